"""Compares the file sizes of the five models in every mode with their entropy and with general compressors.

    python benchmarks/codecs/sizes.py --reference DIR --han FILE.net [--models NAME,...] [--out FILE.md]

Every file is read back and compared bit for bit. The output is a Markdown table with the machine, versions and date.
"""

from __future__ import annotations

import argparse
import lzma
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import describe

import dcformat
from dcformat.codecs import MODES
from dcformat.model import Model
from models import entropy_bytes, models


def same(a: Model, b: Model) -> bool:
    """Return whether two models hold the same bits."""
    for name, tensor in a.tensors.items():
        # The writer may choose another form, so compare elements.
        pieces = zip(tensor.pieces(), b.tensors[name].pieces(), strict=True)
        if not all(np.array_equal(x.view(np.uint8), y.view(np.uint8)) for x, y in pieces):
            return False
    return True


def general(model: Model) -> dict[str, int]:
    """Return the size of the dense float32 tensors under each general compressor."""
    import zstandard

    raw = b"".join(tensor.to_dense().tobytes() for tensor in model.tensors.values())
    return {
        "float32": len(raw),
        "zstd -19": len(zstandard.ZstdCompressor(level=19).compress(raw)),
        "xz -9e": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="folder with the two LeNets (.npz)")
    parser.add_argument("--han", type=Path, required=True, help="compressed_SqueezeNet.net")
    parser.add_argument("--models", help="names, with commas between; all if left out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for name, make in models(options.reference, options.han).items():
        if options.models and name not in options.models.split(","):
            continue
        model = make()
        bound = entropy_bytes(model)
        small = sum(tensor.nbytes for tensor in model.tensors.values()) < 1 << 24
        peers = general(model) if small else {}
        for mode in MODES:
            if mode == "tiny" and not small:
                continue
            data = dcformat.dumps(model, mode=mode)
            assert same(model, dcformat.load(data, max_memory=None)), (name, mode)
            rows.append((name, mode, f"{len(data):,}", f"{100 * (len(data) / bound - 1):+.2f} %"))
            print(*rows[-1], file=sys.stderr)
        rows += [(name, peer, f"{size:,}", f"{100 * (size / bound - 1):+.2f} %") for peer, size in peers.items()]
    lines = ["| model | coder | bytes | against order-0 entropy, floats raw |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    text = "\n".join([describe("zstandard"), "", *lines, ""])
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
