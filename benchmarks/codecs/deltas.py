"""Compares deltas with whole files, and with z4ai if it is installed.

    python benchmarks/codecs/deltas.py FILE [--z4ai PYTHON] [--rounds N] [--out FILE.md]

FILE is a checkpoint of float32 tensors. The changes are: for a share of the weights, a normal step of deviation 1e-4
(as in z4ai's tests), or a step to the next float; a relative normal step for all weights; pruning by magnitude. The
column "entropy" has the ratio at the entropy of the changes, given the exponent of the old weight, over all tensors
together. z4ai runs in a separate Python, because it needs other packages. Times are processor time, the least of
several rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dcformat_interop import read_checkpoint
from machine import describe

import dcformat
from dcformat.dense import from_dense
from dcformat.model import Model

Arrays = dict[str, npt.NDArray[Any]]

#: Compresses the second file as a delta from the first.
_Z4AI = """
import pathlib, sys, z4ai
old, new = (pathlib.Path(name).read_bytes() for name in sys.argv[1:3])
made = z4ai.compress_delta(new, reference=old, dtype=sys.argv[3])
assert bytes(z4ai.decompress_delta(made, reference=old)) == new
print(len(made))
"""


def bfloat16(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Round to bfloat16 bit patterns."""
    bits = array.view(np.uint32).astype(np.int64)
    return np.ascontiguousarray((bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16))


def changes(old: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Yield each change with its name."""
    for share in (0.01, 0.05, 0.2):
        for step in ("step of 1e-4", "next float"):
            source = np.random.default_rng(1)
            new = {}
            for name, array in old.items():
                there = source.random(array.shape) < share
                if step == "next float":
                    moved = np.nextafter(array, np.float32(np.inf))
                else:
                    moved = array + (1e-4 * source.standard_normal(array.shape)).astype(np.float32)
                new[name] = np.where(there, moved, array).astype(np.float32)
            yield f"{100 * share:.0f} %, {step}", new
    for relative in (1e-4, 1e-3, 1e-2):
        source = np.random.default_rng(2)
        yield (
            f"all, relative {relative:g}",
            {
                name: (array * (1 + relative * source.standard_normal(array.shape))).astype(np.float32)
                for name, array in old.items()
            },
        )
    yield (
        "50 % pruned",
        {
            name: np.where(np.abs(array) <= np.quantile(np.abs(array), 0.5), np.float32(0), array)
            if array.ndim > 1
            else array
            for name, array in old.items()
        },
    )


def bound(old: Arrays, new: Arrays, shift: int) -> float:
    """Return the entropy of the change, in bits a weight, given the old exponent; low bits count as uniform."""
    before, after = (
        np.concatenate([array.reshape(-1).view(f"<u{array.itemsize}") for array in some.values()]).astype(np.int64)
        for some in (old, new)
    )
    # As in a difference, steps count in the order of the numbers.
    top = 1 << shift + 8
    exponent = before >> shift & 255
    step = np.where(after < top, after, top - 1 - after) - np.where(before < top, before, top - 1 - before)
    step = np.where((after == 0) & (before != 0), 1 << 40, step)
    magnitude = np.abs(step)
    rest = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))) - 5, 0).astype(np.int64)
    rest[magnitude == 1 << 40] = 0
    symbols = np.sign(step) * ((rest << 8) + (magnitude >> rest))
    together = np.unique(np.stack((exponent, symbols)), axis=1, return_counts=True)[1]
    alone = np.unique(exponent, return_counts=True)[1]
    count = len(before)

    def entropy(counts: npt.NDArray[np.int64]) -> float:
        return float(-(counts / count * np.log2(counts / count)).sum())

    return entropy(together) - entropy(alone) + float(rest.mean())


def packed(arrays: Arrays, dtype: str) -> Model:
    """Return a model of the arrays."""
    return Model({name: from_dense(name, array, dtype, exact=True) for name, array in arrays.items()})


def z4ai(python: str | None, old: Arrays, new: Arrays, dtype: str) -> int | None:
    """Return the bytes of z4ai's delta; None without z4ai."""
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / name) for name in ("old", "new")]
        for name, some in zip(names, (old, new), strict=True):
            Path(name).write_bytes(b"".join(array.tobytes() for array in some.values()))
        run = subprocess.run([python, "-c", _Z4AI, *names, dtype], capture_output=True, text=True, check=True)
    return int(run.stdout)


def row(name: str, old: Arrays, new: Arrays, dtype: str, options: argparse.Namespace) -> str:
    """Return a line of the table."""
    base, model = dcformat.dumps(packed(old, dtype)), packed(new, dtype)
    raw = sum(array.nbytes for array in new.values())
    weights = sum(array.size for array in new.values())
    whole = len(dcformat.dumps(model))
    making, applying = [], []
    for _ in range(options.rounds):
        start = time.process_time()
        made = dcformat.dumps(dcformat.delta(model, base))
        middle = time.process_time()
        result = dcformat.apply(made, base)
        making.append(middle - start)
        applying.append(time.process_time() - middle)
    for key, tensor in result.tensors.items():
        assert tensor.to_dense().tobytes() == model.tensors[key].to_dense().tobytes()
    least = bound(old, new, 23 if dtype == "float32" else 7)
    other = z4ai(options.z4ai, old, new, "fp32" if dtype == "float32" else "bf16")
    theirs = "-" if other is None else f"{raw / other:.1f}x"
    limit = f"{8 * raw / weights / least:.1f}x" if least > 0 else "-"
    speed = f"{raw / min(making) / 1e6:.0f} | {raw / min(applying) / 1e6:.0f}"
    size = f"{len(made):,} | {raw / len(made):.1f}x | {limit} | {theirs} | {100 * len(made) / whole:.1f} %"
    return f"| {dtype} | {name} | {size} | {speed} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--z4ai", help="a Python that has z4ai")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = read_checkpoint(options.file).tensors
    old = {
        name: dense.values for name, dense in found.items() if dense.values.dtype == np.float32 and dense.values.ndim
    }
    lines = [
        "| dtype | change | bytes | smaller than raw | entropy | z4ai | of a whole file | make, MB/s | apply, MB/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, new in changes(old):
        lines.append(row(name, old, new, "float32", options))
        print(lines[-1], file=sys.stderr, flush=True)
        if "next float" in name:  # It is the same bfloat16.
            continue
        brains = ({key: bfloat16(array) for key, array in some.items()} for some in (old, new))
        lines.append(row(name, *brains, "bfloat16", options))
        print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join([*lines, "", describe()]) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
