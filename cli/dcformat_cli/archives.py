"""Writing tensors for other programs: safetensors and NumPy's npz, one tensor in memory at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dcformat.model import STORAGE
from dcformat_cli.checkpoints import SCALE_SUFFIX
from dcformat_cli.failures import InputError

if TYPE_CHECKING:
    from dcformat import DcfFile

_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}

#: The oldest date that a zip archive can hold: the same model gives the same bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_safetensors(path: object, content: DcfFile, out: BinaryIO) -> None:
    """Write all tensors, every dtype and bit as it is; the scale of an int8 tensor goes into the metadata.

    Raises
    ------
    InputError
        A tensor is called as safetensors' own metadata.
    """
    header: dict[str, Any] = {}
    scales: dict[str, str] = {}
    start = 0
    for name in content.names:
        if name == "__metadata__":
            raise InputError(path, "names that safetensors allows", repr(name))
        info = content.info(name)
        size = STORAGE[info.dtype].itemsize * prod(info.shape)
        header[name] = {
            "dtype": _CODES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [start, start + size],
        }
        start += size
        if info.scale != 1.0:
            scales[name + SCALE_SUFFIX] = repr(info.scale)
    text = json.dumps({"__metadata__": scales, **header} if scales else header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for _, values in _tensors(content):
        out.write(values.data if values.ndim and values.size else values.tobytes())


def write_npz(path: object, content: DcfFile, out: BinaryIO) -> None:
    """Write all tensors as `numpy.savez` would, with a fixed date.

    Raises
    ------
    InputError
        A tensor that NumPy has no dtype for (bfloat16, int8 with a scale), or a name that zip changes.
    """
    for name in content.names:
        info = content.info(name)
        if info.dtype == "bfloat16":
            raise InputError(path, "dtypes that NumPy has", "bfloat16 (use .safetensors)", name)
        if info.scale != 1.0:
            raise InputError(path, "dtypes that NumPy has", "int8 with a scale (use .safetensors)", name)
        if zipfile.ZipInfo(name).filename != name:
            raise InputError(path, "names that a zip archive can hold", f"{name!r} (use .safetensors)")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, values in _tensors(content):
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def _tensors(content: DcfFile) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name in content.names:
        yield name, np.ascontiguousarray(content.tensor(name).to_dense()).reshape(content.info(name).shape)
