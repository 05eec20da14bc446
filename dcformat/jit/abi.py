"""The layout of the CPython and NumPy objects that compiled entries read: offsets that are checked before use."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import numpy as np

#: Offsets in an array object, in bytes: its type, data pointer, rank, pointer to the shape, dtype and flags.
ARRAY_TYPE, ARRAY_DATA, ARRAY_NDIM, ARRAY_SHAPE, ARRAY_DTYPE, ARRAY_FLAGS = 8, 16, 24, 32, 56, 64
#: Least size of an array object with all these fields, in bytes.
_ARRAY_BYTES = 72
#: Bytes of an object's header: a reference count and a type.
_HEADER_BYTES = 16
#: Bits of an array's flags.
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400


@cache
def layout_known() -> bool:
    """Return whether this Python and this NumPy lay out their objects as compiled entries expect."""
    if sys.platform != "linux" or sys.implementation.name != "cpython" or sys.maxsize < 1 << 32:
        return False
    if object.__basicsize__ != _HEADER_BYTES or sys.byteorder != "little":  # Python is free-threaded, or a debug build.
        return False
    array = np.zeros((2, 3), np.float32)
    base = id(array)
    shape = ctypes.c_void_p.from_address(base + ARRAY_SHAPE).value
    return (
        np.ndarray.__basicsize__ >= _ARRAY_BYTES
        and ctypes.c_void_p.from_address(base + ARRAY_TYPE).value == id(np.ndarray)
        and ctypes.c_void_p.from_address(base + ARRAY_DATA).value == array.__array_interface__["data"][0]
        and ctypes.c_int.from_address(base + ARRAY_NDIM).value == 2
        and ctypes.c_void_p.from_address(base + ARRAY_DTYPE).value == id(np.dtype("float32")) == id(array.dtype)
        and ctypes.c_int.from_address(base + ARRAY_FLAGS).value & 0xFFFF == array.flags.num & 0xFFFF
        and shape is not None
        and [ctypes.c_ssize_t.from_address(shape + 8 * axis).value for axis in (0, 1)] == [2, 3]
    )
