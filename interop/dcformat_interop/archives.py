"""Writers of safetensors and NumPy's npz, which keep one tensor in memory at a time, and never in dense form."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Mapping
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dcformat.model import STORAGE
from dcformat_interop.refusals import UnfitError
from dcformat_interop.safetensors import METADATA_PREFIX, SCALE_SUFFIX

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat_interop.packing.packed_files import PackedFiles

#: The names of dtypes in safetensors, in its order of sorting.
_CODES = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64", "float32": "F32", "uint32": "U32",
    "int32": "I32", "bfloat16": "BF16", "float16": "F16", "uint16": "U16", "int16": "I16", "float8_e5m2fnuz":
    "F8_E5M2FNUZ", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip

#: The date of every member, fixed so that the same model gives the same bytes: the oldest in a zip archive.
_EPOCH = (1980, 1, 1, 0, 0, 0)

#: Absolute paths, drives, backslashes, and ``..`` between slashes.
_OUTSIDE = re.compile(r"^/|^[A-Za-z]:|\\|(^|/)\.\.(/|$)")


def write_safetensors(path: object, content: DcfFile | PackedFiles, out: BinaryIO, skip: Collection[str] = ()) -> None:
    """Write all tensors with their dtypes and bits, in the order and with the header of the safetensors library.

    The metadata holds the keys that `METADATA_PREFIX` marks in the file's metadata, and the scales of int8 tensors.

    Parameters
    ----------
    path : path
        The name of the output, for errors.
    content : DcfFile or PackedFiles
    out : binary file object
    skip : collection of str
        Names of tensors to leave out.

    Raises
    ------
    UnfitError
        A tensor has the name of safetensors' own metadata.
    """
    header, names = safetensors_header(path, content, skip)
    out.write(header)
    for name in names:
        _write_elements(content, name, out)


def safetensors_header(
    path: object, content: DcfFile | PackedFiles, skip: Collection[str] = ()
) -> tuple[bytes, list[str]]:
    """Return the first bytes of the file that `write_safetensors` writes, and the order of the tensors behind them."""
    metadata = {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in content.metadata.items()
        if key.startswith(METADATA_PREFIX)
    }
    header: dict[str, Any] = {}
    start = 0
    # Wide dtypes come first, so that every tensor is aligned.
    names = sorted(_left(content, skip), key=lambda name: (list(_CODES).index(content.info(name).dtype), name))
    for name in names:
        if name == "__metadata__":
            raise UnfitError(path, "names that safetensors allows", repr(name))
        info = content.info(name)
        size = info.nbytes
        header[name] = {
            "dtype": _CODES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [start, start + size],
        }
        start += size
        if info.scale != 1.0:
            metadata[name + SCALE_SUFFIX] = repr(info.scale)
    whole = {"__metadata__": metadata, **header} if metadata else header
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, names


def write_npz(path: object, content: DcfFile | PackedFiles, out: BinaryIO, skip: Collection[str] = ()) -> None:
    """Write all tensors as `numpy.savez` would, with a fixed date.

    Parameters
    ----------
    path : path
        The name of the output, for errors.
    content : DcfFile or PackedFiles
    out : binary file object
    skip : collection of str
        Names of tensors to leave out.

    Raises
    ------
    UnfitError
        NumPy has no dtype for a tensor (bfloat16, floats of eight bits, int8 with a scale), a name points outside the
        archive, or `numpy.load` would confuse two names.
    """
    names = _left(content, skip)
    for name in names:
        info = content.info(name)
        if info.dtype == "bfloat16" or info.dtype.startswith("float8"):
            raise UnfitError(path, "dtypes that NumPy has", f"{info.dtype} (use .safetensors)", name)
        if info.scale != 1.0:
            raise UnfitError(path, "dtypes that NumPy has", "int8 with a scale (use .safetensors)", name)
    _check_members(path, names, " (use .safetensors)")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            info = content.info(name)
            descr = np.lib.format.dtype_to_descr(STORAGE[info.dtype])
            with _member(archive, name) as member:
                header = {"descr": descr, "fortran_order": False, "shape": info.shape}
                np.lib.format.write_array_header_1_0(member, header)
                _write_elements(content, name, member)


def _left(content: DcfFile | PackedFiles, skip: Collection[str]) -> list[str]:
    return [name for name in content.names if name not in skip]


def write_arrays(path: object, arrays: Mapping[str, npt.NDArray[Any]], out: BinaryIO) -> None:
    """Write arrays as `numpy.savez` would, with a fixed date.

    Parameters
    ----------
    path : path
        The name of the output, for errors.
    arrays : mapping of str to ndarray
        Arrays of numbers by name.
    out : binary file object

    Raises
    ------
    UnfitError
        A name points outside the archive, or `numpy.load` would confuse two names.
    """
    _check_members(path, arrays, "")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with _member(archive, name) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def _check_members(path: object, names: Collection[str], advice: str) -> None:
    for name in names:
        if not _is_member(name):
            raise UnfitError(path, "names that a zip archive can hold", f"{name!r}{advice}")
        if name.endswith(".npy") and name.removesuffix(".npy") in names:
            found = f"{name.removesuffix('.npy')!r} and {name!r}, which NumPy confuses{advice}"
            raise UnfitError(path, "names that NumPy distinguishes", found)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True)


def _is_member(name: str) -> bool:
    """Return whether a name stays inside the folder of the unpacked archive, and zip keeps it unchanged."""
    inside = not _OUTSIDE.search(name) and name.isprintable()
    return inside and zipfile.ZipInfo(name).filename == name


def _write_elements(content: DcfFile | PackedFiles, name: str, out: IO[bytes]) -> None:
    """Write a tensor's elements piece by piece, because the dense form may be much larger than memory."""
    for piece in content.pieces(name):
        out.write(piece.data)
