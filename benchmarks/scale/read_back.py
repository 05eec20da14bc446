"""Measures the cost of reading back: CPU seconds to write a checkpoint's tensors, and to read the file, in each mode.

python benchmarks/scale/read_back.py FILE [--mode MODE]... [--rounds N]

FILE is a checkpoint of float32 tensors, which are written unchanged and rounded to bfloat16.
"""

from __future__ import annotations

import argparse
import sys
import time
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "codecs"))
from floats import changed, read
from machine import describe

from dcformat.dense import from_dense
from dcformat.model import Model
from dcformat.read_back import require_read_back
from dcformat.writer import write


def main() -> None:
    """Print a line for each dtype and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--mode", action="append", choices=["fast", "small", "tiny"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = read(options.file)
    print("| values | mode | write | read back | more |\n|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        arrays = changed(found, 0.0, dtype == "bfloat16")
        model = Model({name: from_dense(name, array, dtype, exact=True) for name, array in arrays.items()})
        for mode in options.mode or ["fast"]:
            rounds = [_seconds(model, mode) for _ in range(options.rounds)]
            writing, reading = (min(each) for each in zip(*rounds, strict=True))
            print(f"| {dtype} | {mode} | {writing:.3f} s | {reading:.3f} s | {reading / writing:.1%} |", flush=True)
    print("\n" + describe())


def _seconds(model: Model, mode: str) -> tuple[float, float]:
    out = BytesIO()
    began = time.process_time()
    write(model, out, mode=mode)  # type: ignore[arg-type]  # one of the choices
    between = time.process_time()
    require_read_back(model, out.getvalue(), "file")
    return between - began, time.process_time() - between


if __name__ == "__main__":
    main()
