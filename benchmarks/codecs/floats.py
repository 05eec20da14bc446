"""Compares the sizes of checkpoints' floats with xz and zstd, and measures decoding on one thread.

    python benchmarks/codecs/floats.py FILE... [--bfloat16] [--prune SHARE] [--rounds N] [--out FILE.md]

FILE is a checkpoint: .npz, .safetensors, a PyTorch file, or an ONNX model, whose float32 tensors are taken. A missing
file, or one whose library is missing, is skipped with the reason. `--bfloat16` rounds the values first; `--prune` sets
this share of the smallest magnitudes of each matrix to zero. Decoding is to dense arrays, tensor after tensor; the
table gives the largest tensor alone too, because even the smallest takes 0.1 ms. Times are processor time, the least of
several rounds in which all modes take turns.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import describe

import dcformat
from dcformat.dense import from_dense
from dcformat.model import Model

Arrays = dict[str, npt.NDArray[Any]]
MODES: tuple[dcformat.codecs.Mode, ...] = ("fast", "small")


def read(path: Path) -> Arrays:
    """Return a file's float32 tensors."""
    if path.suffix == ".onnx":
        import onnx

        found = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    else:
        from dcformat_interop import read_checkpoint

        found = {name: dense.values for name, dense in read_checkpoint(path).tensors.items()}
    return {name: array for name, array in found.items() if array.dtype == np.float32}


def changed(arrays: Arrays, share: float, brain: bool) -> Arrays:
    """Return the arrays pruned and rounded as requested."""
    out = {}
    for name, array in arrays.items():
        if share and array.ndim > 1:
            array = np.where(np.abs(array) <= np.quantile(np.abs(array), share), np.float32(0), array)
        if brain:
            bits = array.view(np.uint32).astype(np.int64)
            array = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)
        out[name] = np.ascontiguousarray(array)
    return out


def peers(raw: bytes) -> Iterator[str]:
    """Yield the bytes that general compressors take; a dash for one that is not installed."""
    yield f"{len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)):,}"
    try:
        import zstandard
    except ImportError:
        print("zstd: skipped, because the package zstandard is not installed", file=sys.stderr)
        yield "-"
        return
    yield f"{len(zstandard.ZstdCompressor(level=19).compress(raw)):,}"


def seconds(data: bytes, name: str | None = None) -> float:
    """Return the processor time that it takes to decode all tensors, or one of them."""
    with dcformat.open(data) as file:
        start = time.process_time()
        for each in file.names if name is None else [name]:
            file.tensor(each).to_dense()
        return time.process_time() - start


def row(path: Path, options: argparse.Namespace) -> str:
    """Return the table's row of a file."""
    arrays = changed(read(path), options.prune, options.bfloat16)
    dtype = "bfloat16" if options.bfloat16 else "float32"
    model = Model({name: from_dense(name, array, dtype) for name, array in arrays.items()})
    raw, count = sum(a.nbytes for a in arrays.values()), sum(a.size for a in arrays.values())
    largest = max(arrays, key=lambda name: arrays[name].nbytes)
    files = {mode: dcformat.dumps(model, mode=mode) for mode in MODES}
    best: dict[tuple[str, bool], float] = {}
    for _ in range(options.rounds):
        for mode, data in files.items():
            for alone in (False, True):
                took = seconds(data, largest if alone else None)
                best[mode, alone] = min(took, best.get((mode, alone), took))
    cells = [path.name, f"{raw:,}", *peers(b"".join(a.tobytes() for a in arrays.values()))]
    for mode in MODES:
        size = len(files[mode])
        speeds = [raw / best[mode, False] / 1e6, arrays[largest].nbytes / best[mode, True] / 1e6]
        cells += [f"{size:,}", f"{8 * size / count:.3f}", " / ".join(f"{speed:,.0f}" for speed in speeds)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table, or write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--prune", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [describe(), ""]
    head = "| file | bytes | xz -9e | zstd -19 | fast | bits | MB/s: all / largest | small | bits | MB/s |"
    lines += [head, "|" + "---|" * (head.count("|") - 1)]
    for path in options.files:
        try:
            lines.append(row(path, options))
        except (OSError, ImportError, dcformat.FormatError) as error:
            print(f"{path}: skipped: {error}", file=sys.stderr)
    text = "\n".join(lines) + "\n"
    print(text) if options.out is None else options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
