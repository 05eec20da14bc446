"""Small sharded checkpoints for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

INDEX = "model.safetensors.index.json"
_CODES = {"float32": "F32", "float16": "F16", "int64": "I64", "float64": "F64", "uint16": "BF16", "bool": "BOOL"}
Arrays = Mapping[str, npt.NDArray[Any]]


def safetensors(arrays: Arrays, metadata: Mapping[str, str] | None = None, indent: int | None = None) -> bytes:
    """Return a safetensors file in the order of `arrays`; arrays of uint16 are taken as bfloat16."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, array in arrays.items():
        code = _CODES[array.dtype.name]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header, indent=indent).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values())


def arrays(number: int) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of one file."""
    random = np.random.default_rng(number)
    normal = random.standard_normal((40, 30)).astype(np.float32)
    return {
        f"{number}.weight": normal,
        f"{number}.pruned": np.where(random.random((40, 30)) < 0.1, normal, np.float32(0)),
        f"{number}.half": (normal.view("<u4") >> 16).astype("<u2"),
        f"{number}.count": np.arange(number + 3),
        f"{number}.wide": random.standard_normal(5),
        f"{number}.empty": np.zeros((0, 4), np.float32),
        f"{number}.scalar": np.array(number + 0.5, np.float32),
    }


def write(directory: Path, count: int = 3, *, metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write a checkpoint of several files, one of them with a header of unusual form, and return its tensors."""
    directory.mkdir(exist_ok=True)
    where, everything = {}, {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        tensors = arrays(number)
        data = safetensors(tensors, metadata or {"format": "pt"}, indent=1 if number == 1 else None)
        (directory / name).write_bytes(data)
        where.update(dict.fromkeys(tensors, name))
        everything.update(tensors)
    total = sum(array.nbytes for array in everything.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / INDEX).write_text(json.dumps(index, indent=2))
    return everything


def contents(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}
