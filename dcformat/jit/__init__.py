"""Compiled kernels, loaded lazily: a decorated function stays plain Python until it is first called.

An import of this package, or of a module of kernels, imports no compiler. The first call of a kernel looks for machine
code that an earlier process saved, which runs without Numba. If it finds none, Numba compiles the kernel, and the
machine code is saved. If Numba is missing or fails, the same function runs as plain Python.

A kernel that is not compiled yet runs short work in Python: most small files are decoded long before their kernels
would be compiled. Each kernel states the work of a call, and a process does at most `PATIENCE` of it in Python. A call
that exceeds this is compiled first, for any file.

Kernels validate nothing: their caller must have proved that every index is in range. Only the types of their arguments
are checked. A kernel that allocates, raises or divides by zero cannot be saved.

Environment: ``DCFORMAT_CACHE=off`` neither loads nor saves machine code, ``only`` never compiles, and ``kernels`` saves
no networks (`dcformat_runtime.prepared`);
``NUMBA_DISABLE_JIT=1`` runs Python; ``NUMBA_BOUNDSCHECK=1`` compiles with bounds checks and saves nothing.

`registry` holds the kernels and decides how each runs. The folder `machine_code` keeps compiled kernels and loads
them; the folder `compiler` makes them, and is imported only if something must be compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcformat.jit.helpers import device, intrinsic, shared
    from dcformat.jit.observer import Observer, observe
    from dcformat.jit.registry import (
        PATIENCE,
        SHARE,
        UNSAVED_PATIENCE,
        Kernel,
        KernelMissingError,
        kernel,
        kernels,
        lacks_compiler,
        warm,
    )
    from dcformat.jit.settings import can_compile

__all__ = [
    "PATIENCE", "SHARE", "UNSAVED_PATIENCE", "Kernel", "KernelMissingError", "Observer",
    "can_compile", "device", "intrinsic", "kernel", "kernels", "lacks_compiler", "observe", "shared", "warm",
]  # fmt: skip

_HOMES = {
    "device": "helpers", "intrinsic": "helpers", "shared": "helpers", "Observer": "observer", "observe": "observer",
    "can_compile": "settings",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name on first use: a process that runs a prepared network loads machine code without the registry."""
    if name in __all__:
        from importlib import import_module

        value = getattr(import_module(f"dcformat.jit.{_HOMES.get(name, 'registry')}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all names, also before they are imported."""
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations"})
