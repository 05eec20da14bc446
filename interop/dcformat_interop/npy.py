"""The reader of the header of NumPy's arrays, alone in a .npy file or in a .npz archive. It never loads a pickle."""

from __future__ import annotations

import io
import warnings
from typing import IO, Any, NamedTuple

import numpy as np

#: The first bytes of every array; the version follows, in two bytes.
NPY_MAGIC = b"\x93NUMPY"
NPY_START_BYTES = len(NPY_MAGIC) + 2

#: The limit of `numpy.load`, and the highest rank of all versions of NumPy.
_MAX_HEADER_BYTES, _MAX_RANK = 10_000, 32


class NpyHeader(NamedTuple):
    """The dtype of an array, whether its order is Fortran's, and its shape."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]


class NpyHeaderError(ValueError):
    """The header of an array is damaged or of another version.

    Attributes
    ----------
    expected, found : str
        What would have been valid, and what was found.
    """

    def __init__(self, expected: str, found: object) -> None:
        self.expected, self.found = expected, str(found)
        super().__init__(f"expected {expected}, found {found}")


def read_npy_header(start: bytes, stream: IO[bytes]) -> NpyHeader:
    """Read the header of an array, which is checked before the array itself is read.

    Parameters
    ----------
    start : bytes
        The first `NPY_START_BYTES` bytes, which begin with `NPY_MAGIC`.
    stream : binary file object
        The bytes after `start`, of which only the header is read.

    Raises
    ------
    NpyHeaderError
        The header is damaged, longer than NumPy allows, or of an unknown version.
    """
    version = start[len(NPY_MAGIC) :]
    if version not in (b"\1\0", b"\2\0", b"\3\0"):
        raise NpyHeaderError(".npy version 1, 2 or 3", ".".join(map(str, version)))
    count = stream.read(2 if version[0] == 1 else 4)
    length = int.from_bytes(count, "little")
    if length > _MAX_HEADER_BYTES:
        raise NpyHeaderError(f"a header of at most {_MAX_HEADER_BYTES} bytes", length)
    text = io.BytesIO(count + stream.read(length))
    # Version 3 differs from version 2 only in the encoding, and only the names of fields are not ASCII.
    read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # They are about headers that Python 2 wrote.
            shape, fortran, dtype = read(text)
    except Exception:  # The tokenizer and NumPy's dtype parser raise many classes of errors.
        raise NpyHeaderError("the header of an array", "a damaged one") from None
    if any(type(size) is not int for size in shape):
        raise NpyHeaderError("the header of an array", "a damaged one")
    if any(size < 0 for size in shape):
        raise NpyHeaderError("a shape without negative numbers", shape)
    if len(shape) > _MAX_RANK:
        raise NpyHeaderError(f"a NumPy array of at most {_MAX_RANK} dimensions", len(shape))
    return NpyHeader(dtype, fortran, shape)


def holds_numbers(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is one of booleans, integers, floats or complex numbers."""
    return dtype.kind in "biufc"
