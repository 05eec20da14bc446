"""Makes an image callable: copies it to memory of its own, which becomes executable and no longer writable.

No image is used if Python's and NumPy's objects are laid out differently than its entry expects; `abi` checks this once
in each process.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from dcformat.jit.machine_code.image import CodeImage

NDARRAY = "dcformat.ndarray"
REFUSE = "dcformat.refuse"

_METH_FASTCALL = 0x80
_MAP_FAILED = ctypes.c_void_p(-1).value

#: The names that an image may import: Python's functions, and those that LLVM calls to copy memory and to compute.
_FROM_PYTHON = frozenset(
    {
        "Py_IncRef", "PyBool_FromLong", "PyErr_Occurred", "PyEval_RestoreThread", "PyEval_SaveThread",
        "PyFloat_AsDouble", "PyFloat_FromDouble", "PyLong_AsLongLong", "PyLong_FromLongLong", "PyObject_Vectorcall",
    }
)  # fmt: skip
_FROM_C = frozenset({"memcpy", "memmove", "memset", "memcmp", "exp", "expf", "log", "logf", "fma", "fmaf"})

_SINGLETONS = {"_Py_NoneStruct": None, "_Py_TrueStruct": True, "_Py_FalseStruct": False}

#: Method definitions and names that callable objects point to: they must live as long as the process.
_kept: list[Any] = []
# Not even the end of the interpreter frees them: it may look at a function after it has cleared this module.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept))


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    )  # fmt: skip


def dtype_symbol(name: str) -> str:
    """Return the name under which images import a dtype's address."""
    return f"dcformat.dtype.{name}"


def provided(symbol: str) -> bool:
    """Return whether an image may import this symbol."""
    return symbol.startswith("dcformat.") or symbol in _SINGLETONS or symbol in _FROM_PYTHON or symbol in _FROM_C


def load(image: CodeImage, name: str, refuse: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs an image.

    Parameters
    ----------
    image : CodeImage
    name : str
        The function's ``__name__``.
    refuse : callable
        Called with the arguments instead of the kernel if their types are not those that it was compiled for.

    Raises
    ------
    OSError
        The system forbids executable memory.
    LookupError
        The image imports a symbol that is not provided.
    """
    code = bytearray(image.code)
    for offset, symbol in image.imports:
        value = id(refuse) if symbol == REFUSE else _address(symbol)
        code[offset : offset + 8] = value.to_bytes(8, "little")
    start = _place(code)
    text = name.encode()
    definition = _MethodDef(text, start + image.entry, _METH_FASTCALL, None)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.argtypes, make.restype = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p), ctypes.py_object
    function: Callable[..., Any] = make(ctypes.addressof(definition), None, None)
    _kept.append((text, definition, refuse))
    return function


def _place(code: bytearray) -> int:
    """Copy code to pages of its own, make them executable, and return their address. They are never freed.

    Linux synchronises the instruction and data caches when pages become executable, which AArch64 needs.
    """
    c = _c_library()
    size = -(-len(code) // mmap.PAGESIZE) * mmap.PAGESIZE
    start = c.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if start is None or start == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "no memory for a kernel")
    ctypes.memmove(start, (ctypes.c_char * len(code)).from_buffer(code), len(code))
    if c.mprotect(start, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "the system forbids executable memory")
    return int(start)


@cache
def _c_library() -> ctypes.CDLL:
    c = ctypes.CDLL(None, use_errno=True)
    c.mmap.restype = ctypes.c_void_p
    c.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    c.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return c


@cache
def _address(symbol: str) -> int:
    if symbol == NDARRAY:
        return id(np.ndarray)
    if symbol.startswith("dcformat.dtype."):
        return id(np.dtype(symbol.rpartition(".")[2]))
    if symbol in _SINGLETONS:
        return id(_SINGLETONS[symbol])
    if symbol in _FROM_PYTHON or symbol in _FROM_C:
        library = ctypes.pythonapi if symbol in _FROM_PYTHON else _c_library()
        try:
            address = ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value
        except AttributeError:
            address = None
        if address:
            return address
    raise LookupError(symbol)
