"""Measures the CPU seconds to pack and to decode 10,000 tensors of 64 float32 elements.

python benchmarks/scale/small_tensors.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

import dcformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import describe


def main() -> None:
    random = np.random.default_rng(0)
    names = [f"layers.{n}.norm.weight" for n in range(10_000)]
    tensors = {name: dcformat.from_dense(name, random.standard_normal(64, np.float32)) for name in names}
    model = dcformat.Model(tensors)
    dcformat.dumps(dcformat.Model({name: tensors[name] for name in names[:50]}))
    began = time.process_time()
    packed = dcformat.dumps(model)
    between = time.process_time()
    dcformat.load(packed)
    print(describe())
    print(f"{len(packed):,} bytes; packed in {between - began:.2f} CPU seconds, decoded in", end=" ")
    print(f"{time.process_time() - between:.2f}")


if __name__ == "__main__":
    main()
