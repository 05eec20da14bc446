"""Estimates how many bytes a coder of repeated magnitudes would take for tensors such as bases of Fourier transforms.

    python benchmarks/codecs/repeats.py FILE NAME...

FILE is a checkpoint as `floats.py` reads it, and NAME a float32 tensor in it. A magnitude is the one after, or the one
before, the last occurrence of the magnitude before it; or new; or any other that has occurred. These cases and the
signs are counted with adaptive frequencies, a new magnitude with 25.7 bits, as `small` takes for the rest of a float,
and any other with the logarithm of their number. The table compares the estimate with `small` and with xz.
"""

from __future__ import annotations

import argparse
import lzma
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))
from floats import read

import dcformat
from dcformat.dense import from_dense
from dcformat.model import Model

_NEW_BITS = 25.7
_AFTER, _BEFORE, _NEW, _OTHER = range(4)


class Adaptive:
    """Frequencies of symbols in contexts, which begin equal."""

    def __init__(self, symbols: int) -> None:
        self._counts: dict[Any, list[float]] = defaultdict(lambda: [0.4] * symbols)

    def cost(self, context: Any, symbol: int) -> float:
        """Return the bits of a symbol, and count it."""
        counts = self._counts[context]
        bits = math.log2(sum(counts) / counts[symbol])
        counts[symbol] += 1
        return bits


def estimate(values: npt.NDArray[np.float32]) -> tuple[float, int]:
    """Return the bytes that a coder of repeats would take, and the number of different magnitudes."""
    flat = values.reshape(-1)
    magnitudes = np.abs(flat).view(np.uint32).tolist()
    signs = (flat.view(np.uint32) >> 31).tolist()
    cases, directions, bits = Adaptive(4), Adaptive(2), 0.0
    last: dict[int, int] = {}
    after = before = -1
    context, history = (_NEW, _NEW), 0
    for place, (magnitude, sign) in enumerate(zip(magnitudes, signs, strict=True)):
        source = last.get(magnitude, -1)
        case = _OTHER if source >= 0 else _NEW
        if 0 <= after < place and magnitudes[after] == magnitude:
            case, source = _AFTER, after
        elif before >= 0 and magnitudes[before] == magnitude:
            case, source = _BEFORE, before
        bits += cases.cost(context, case)
        bits += _NEW_BITS if case == _NEW else math.log2(len(last)) if case == _OTHER else 0.0
        other = signs[source] if source >= 0 else 0
        bits += directions.cost((case, other, history), sign)
        history = (history << 1 | (sign ^ other)) & 7
        after = source + 1 if source >= 0 else -1
        before = source - 1 if source >= 0 else place - 1
        last[magnitude] = place
        context = (context[1], case)
    return bits / 8, len(last)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    arrays = read(options.file)
    print("| tensor | values | magnitudes | xz -9e | small | estimate |\n|---|---|---|---|---|---|")
    for name in options.names:
        values = arrays[name]
        size, different = estimate(values)
        with dcformat.open(dcformat.dumps(Model({name: from_dense(name, values)}), mode="small")) as file:
            small = file.info(name).payload_bytes
        xz = len(lzma.compress(values.tobytes(), preset=9 | lzma.PRESET_EXTREME))
        print(f"| {name} | {values.size:,} | {different:,} | {xz:,} | {small:,} | {size:,.0f} |")


if __name__ == "__main__":
    main()
