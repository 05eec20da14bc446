"""The reader of safetensors. It checks every offset before it reads any data, and does not read skipped tensors."""

from __future__ import annotations

import json
import math
import os
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dcformat.limits import is_array_shape
from dcformat.model import STORAGE
from dcformat.wording import counted
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import JSON_BYTES, SKIPPED, Array, Budget, Dense, Raw, Skip, unique_names

#: An int8 tensor's name with this suffix is the metadata key of its scale.
SCALE_SUFFIX = ".dcformat_scale"

#: In the metadata of a `.dcf` file, this prefix marks the keys of a safetensors file's own metadata.
METADATA_PREFIX = "safetensors."

#: The limit of the safetensors library.
_MAX_HEADER_BYTES = 100_000_000

#: The dtypes by their names in safetensors.
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16", "BF16": "bfloat16",
    "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip

_EXPECTED = "a safetensors file"

#: The rank limit of NumPy's arrays.
_MAX_RANK = 64


def read_safetensors(path: str, file: BinaryIO, skip: Skip, budget: Budget) -> Raw:
    """Read all tensors and the metadata of a safetensors file.

    Raises
    ------
    UnfitError
        The file is damaged, or its bytes exceed the budget.
    """
    layout = read_layout(path, file, budget)
    raw = Raw(metadata=layout.metadata)
    for entry in layout.entries:
        name, code = entry.name, entry.code
        if skip(name):
            raw.left_out[name] = SKIPPED
            continue
        if code not in DTYPES:
            raw.left_out[name] = code
            continue
        budget.take(entry.end - entry.begin, name)
        file.seek(layout.start + entry.begin)
        data = np.frombuffer(file.read(entry.end - entry.begin), np.uint8)
        if code == "BOOL":
            require_bools(path, name, data)
        values = data.view(STORAGE[DTYPES[code]]).reshape(entry.shape)
        raw.entries[name] = Dense(DTYPES[code], values, layout.scales.get(name, 1.0))
    return raw


def require_bools(path: str, name: str, data: Array) -> None:
    """Raise `UnfitError` unless the bytes of a tensor of bools are 0 or 1."""
    if data.size and int(data.max()) > 1:
        raise UnfitError(path, "bytes of 0 or 1 in a tensor of bools", int(data.max()), name)


class HeaderEntry(NamedTuple):
    """A tensor's entry in the header; `begin` and `end` count from the end of the header."""

    name: str
    code: str
    shape: list[int]
    begin: int
    end: int


class Layout(NamedTuple):
    """A safetensors file without its data.

    Attributes
    ----------
    header : bytes
        The raw header.
    start : int
        Offset of the data.
    metadata : dict of str to str
        Without the scales of int8 tensors.
    scales : dict of str to float
    entries : list of HeaderEntry
        In the order of the data, which they cover without gaps.
    """

    header: bytes
    start: int
    metadata: dict[str, str]
    scales: dict[str, float]
    entries: list[HeaderEntry]


def read_layout(path: str, file: BinaryIO, budget: Budget, *, header_only: bool = False) -> Layout:
    """Read everything but the data of a safetensors file.

    Parameters
    ----------
    path : str
        The name of the file, for errors.
    file : binary file object
    budget : Budget
        It counts the header.
    header_only : bool
        Whether the data is elsewhere.

    Raises
    ------
    UnfitError
        The file is damaged or truncated, or its header exceeds the budget.
    """
    size = file.seek(0, os.SEEK_END)
    raw, header = _header(path, file, size, budget)
    metadata = _metadata(path, header.pop("__metadata__", None))
    scales = _scales(path, metadata, header)
    entries = _entries(path, header)
    if not header_only:
        _require_size(path, entries, size - 8 - len(raw))
    return Layout(raw, 8 + len(raw), metadata, scales, entries)


def _require_size(path: str, entries: list[HeaderEntry], found: int) -> None:
    """Raise `UnfitError` unless the file has as many bytes of data as its header says."""
    expected = entries[-1].end if entries else 0
    if found < expected:
        raise UnfitError(path, f"{counted(expected, 'byte')} of data", f"{found:,}: the file is truncated")
    if found > expected:
        raise UnfitError(path, f"{counted(expected, 'byte')} of data", f"{found:,}")


def _header(path: str, file: BinaryIO, size: int, budget: Budget) -> tuple[bytes, dict[str, Any]]:
    """Return the header, raw and parsed."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise UnfitError(path, f"a header of at most {_MAX_HEADER_BYTES:,} bytes", f"{length:,}")
    if length > size - 8:
        raise UnfitError(path, f"a header of {length:,} bytes", f"{size - 8:,}: the file is truncated")
    budget.take(JSON_BYTES * length, "header")
    raw = file.read(length)
    try:
        header: dict[str, Any] = json.loads(raw.decode(), object_pairs_hook=unique_names)
    except (ValueError, RecursionError) as error:
        raise UnfitError(path, _EXPECTED, f"a damaged header ({error})") from None
    if not isinstance(header, dict):
        raise UnfitError(path, _EXPECTED, "a header that is no JSON object")
    return raw, header


def _metadata(path: str, found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UnfitError(path, "text as metadata", "something else", "__metadata__")
    return dict(found)


def _scales(path: str, metadata: dict[str, str], header: dict[str, Any]) -> dict[str, float]:
    """Remove the scales of int8 tensors, which `write_safetensors` stored, from the metadata and return them."""
    scales = {}
    for key in [key for key in metadata if key.endswith(SCALE_SUFFIX)]:
        name = key.removesuffix(SCALE_SUFFIX)
        entry = header.get(name)
        if not isinstance(entry, dict) or entry.get("dtype") != "I8":
            continue  # Another program wrote the key.
        text = metadata.pop(key)
        try:
            scales[name] = float(text)
        except ValueError:
            raise UnfitError(path, "a number", repr(text), key) from None
        single = float(np.float32(scales[name])) if abs(scales[name]) < 3.5e38 else math.inf
        if not (0 < scales[name] == single < math.inf):
            raise UnfitError(path, "a positive float32", text, key)
    return scales


def _entries(path: str, header: dict[str, Any]) -> list[HeaderEntry]:
    """Return each tensor's name, dtype, shape, begin and end, in the order of the data, which must have no gaps."""
    out = []
    for name, entry in header.items():
        try:
            code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise UnfitError(path, "dtype, shape and data_offsets", "something else", name) from None
        whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        if not whole or not isinstance(code, str) or len(shape) > _MAX_RANK:
            raise UnfitError(path, "dtype, shape and data_offsets", "something else", name)
        size = STORAGE[DTYPES[code]].itemsize if code in DTYPES else 0
        if size and prod(shape) * size != end - begin:
            raise UnfitError(path, f"as many bytes as {code} of shape {shape} has", f"{end - begin:,}", name)
        if size and not is_array_shape(shape, size):
            raise UnfitError(path, "a shape that NumPy supports", shape, name)
        out.append(HeaderEntry(name, code, shape, begin, end))
    out.sort(key=lambda entry: entry[3:])
    position = 0
    for name, _, _, begin, end in out:
        if begin != position or end < begin:
            raise UnfitError(path, f"data at byte {position:,} behind the header", f"{begin:,} to {end:,}", name)
        position = end
    return out
