"""The reader of NumPy's .npz. It counts the array of each member by its header before it decompresses the data."""

from __future__ import annotations

import zipfile
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dcformat.wording import counted
from dcformat_interop.npy import NPY_MAGIC, NPY_START_BYTES, NpyHeaderError, holds_numbers, read_npy_header
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import SKIPPED, Budget, Dense, Raw, Skip

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
        start = member.read(NPY_START_BYTES)
        if not start.startswith(NPY_MAGIC):
            raise UnfitError(path, _EXPECTED, f"a member that is no array ({name})")
        try:
            dtype, fortran, shape = read_npy_header(start, member)
        except NpyHeaderError as error:
            raise UnfitError(path, error.expected, error.found, name) from None
        if not holds_numbers(dtype):
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
