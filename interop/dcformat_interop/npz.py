"""The reader of NumPy's .npz. It counts the array of each member by its header before it decompresses the data."""

from __future__ import annotations

import io
import warnings
import zipfile
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dcformat.wording import counted
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import SKIPPED, Budget, Dense, Raw, Skip

#: The limit of `numpy.load`.
_MAX_HEADER_BYTES = 10_000

#: Number of bytes that are decompressed at a time.
_PART = 1 << 20

_ENCRYPTED = 1
_EXPECTED = "a NumPy .npz archive of plain arrays"


def read_npz(path: str, file: BinaryIO, skip: Skip, budget: Budget) -> Raw:
    """Read all arrays of an .npz archive, under the names that `numpy.load` gives.

    Raises
    ------
    UnfitError
        The archive is damaged, a member is not an array, two members have one name, or the bytes exceed the budget.
    """
    raw = Raw()
    members: dict[str, str] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in members:
                    raise UnfitError(path, "one member of each name", f"{members[name]!r} and {info.filename!r}", name)
                members[name] = info.filename
                if skip(name):
                    raw.left_out[name] = SKIPPED
                    continue
                found = _member(path, archive, info, name, budget)
                if isinstance(found, str):
                    raw.left_out[name] = found
                else:
                    raw.entries[name] = found
    except (MemoryError, UnfitError):
        raise
    except Exception as error:  # zipfile and zlib raise many classes of errors.
        found = (str(error).strip().splitlines() or [type(error).__name__])[0]
        what = next(reversed(members), "")
        raise UnfitError(path, _EXPECTED, f"a damaged one ({found})", what) from None
    return raw


def _member(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, budget: Budget) -> Dense | str:
    """Return a member's array, or the name of its dtype if it cannot be read."""
    if info.flag_bits & _ENCRYPTED:
        raise UnfitError(path, _EXPECTED, "an encrypted member", name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnfitError(path, "members stored or deflated, as NumPy writes them", "another compression", name)
    with archive.open(info) as member:
        shape, fortran, dtype = _header(path, name, member)
        if dtype.hasobject or dtype.kind not in "biufc":
            return dtype.name
        size = prod(shape) * dtype.itemsize
        budget.take(size, name)
        data = np.empty(size, np.uint8)
        count = _fill(member, data.data)
        if count != size:
            raise UnfitError(path, f"{counted(size, 'byte')} of data", f"{count:,}", name)
        if member.read(1):
            raise UnfitError(path, f"{counted(size, 'byte')} of data", "more", name)
    values: npt.NDArray[Any] = data.view(dtype)
    return Dense(dtype.name, values.reshape(shape[::-1]).T if fortran else values.reshape(shape))


def _fill(member: Any, out: memoryview) -> int:
    """Read until `out` is full or the member ends, without a second copy of all bytes, and return their number."""
    place = 0
    while count := member.readinto(out[place : place + _PART]):
        place += count
    return place


def _header(path: str, name: str, member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether the order is Fortran's, and the dtype; refuse a header beyond NumPy's limit."""
    magic = member.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise UnfitError(path, _EXPECTED, f"a member that is no array ({name})")
    if magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise UnfitError(path, ".npy version 1, 2 or 3", ".".join(map(str, magic[6:])), name)
    count = member.read(2 if magic[6] == 1 else 4)
    length = int.from_bytes(count, "little")
    if length > _MAX_HEADER_BYTES:
        raise UnfitError(path, f"a header of at most {_MAX_HEADER_BYTES} bytes", f"{length}", name)
    text = member.read(length)
    try:
        with warnings.catch_warnings():  # The warnings are about headers that Python 2 wrote.
            warnings.simplefilter("ignore")
            # Version 3 differs from version 2 only in the encoding, and only the names of fields are not ASCII.
            stream = io.BytesIO(count + text)
            read = np.lib.format.read_array_header_1_0 if magic[6] == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
    except Exception:  # The tokenizer and NumPy's dtype parser raise many classes of errors.
        raise UnfitError(path, "the header of an array", "a damaged one", name) from None
    if any(dimension < 0 for dimension in shape):
        raise UnfitError(path, "a shape without negative numbers", shape, name)
    return shape, fortran, dtype
