"""Compiled kernels, loaded lazily: a decorated function stays plain Python until it is first called.

Importing this package, or a module of kernels, imports no compiler. The first call of a kernel looks for machine code
that an earlier process saved, which runs without Numba. If there is none, Numba compiles the kernel and the machine
code is saved. Where Numba is missing or fails, the same Python function runs as it is written.

A kernel that is not compiled yet runs short work in Python: most small files are decoded long before their kernels
would be compiled. Each kernel states how much work a call is, and a process does at most `PATIENCE` of it in Python.
A call that does not fit is compiled first, whatever a file says.

Kernels validate nothing: their caller must have proved every index in range. The types of their arguments are checked.
A kernel that allocates, raises or divides by zero cannot be saved.

Environment: ``DCFORMAT_CACHE=off`` neither loads nor saves machine code, ``only`` never compiles;
``NUMBA_DISABLE_JIT=1`` runs Python; ``NUMBA_BOUNDSCHECK=1`` compiles with bounds checks, and saves nothing.

`registry` holds the kernels and decides how each runs. The folder `machine_code` keeps compiled kernels and loads
them; the folder `compiler` makes them, and is imported only when something must be compiled.
"""

from __future__ import annotations

from dcformat.jit.helpers import device, intrinsic
from dcformat.jit.observer import Observer, observe
from dcformat.jit.registry import (
    PATIENCE,
    SHARE,
    Kernel,
    KernelMissingError,
    is_ready,
    kernel,
    kernels,
    lacks_compiler,
    warm,
)
from dcformat.jit.settings import can_compile

__all__ = [
    "PATIENCE", "SHARE", "Kernel", "KernelMissingError", "Observer", "can_compile", "device", "intrinsic", "is_ready",
    "kernel", "kernels", "lacks_compiler", "observe", "warm",
]  # fmt: skip
