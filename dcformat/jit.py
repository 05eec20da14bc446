"""Compiled kernels, loaded lazily: a decorated function is plain Python until it is first called.

Importing this module, or a module of kernels, imports no compiler. The first call of a kernel compiles it with Numba;
without Numba, or with ``NUMBA_DISABLE_JIT=1``, the same Python function runs as it is.

Kernels validate nothing: whatever they index must have been proved in range by their caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_devices: dict[FunctionType, Any] = {}
_intrinsics: dict[FunctionType, Callable[[], Any]] = {}


def device(function: F) -> F:
    """Mark a helper that kernels call: Python in Python, inlined by the compiler when a kernel is compiled."""
    _devices[cast(FunctionType, function)] = None
    return function


def intrinsic(build: Callable[[], Any]) -> Callable[[F], F]:
    """Mark a helper whose compiled form is not its own code: `build` makes it (a Numba intrinsic) when it is needed.

    The function itself says what the helper means, and is what runs where nothing is compiled.
    """

    def mark(function: F) -> F:
        _intrinsics[cast(FunctionType, function)] = build
        return function

    return mark


class Kernel:
    """A function of arrays and scalars, compiled for one signature at its first call."""

    def __init__(self, function: FunctionType, signature: str) -> None:
        self.python = function
        self.signature = signature
        self._call: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self._call is None:
            self._call = self._resolve()
        return self._call(*args)

    def _resolve(self) -> Callable[..., Any]:
        if os.environ.get("NUMBA_DISABLE_JIT") == "1":
            return self.python
        try:
            import numba
        except ImportError:
            return self.python
        return cast(Callable[..., Any], numba.njit(self.signature, nogil=True)(_for_compiler(self.python, numba)))


def kernel(signature: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a `Kernel`. `signature` is Numba's, e.g. ``"int64(uint8[::1], int64[::1], int64)"``."""
    return lambda function: Kernel(cast(FunctionType, function), signature)


def _for_compiler(function: FunctionType, numba: Any) -> FunctionType:
    """Copy a function so that the device functions among its globals are the compiled ones."""
    scope = dict(function.__globals__)
    for name in function.__code__.co_names:
        helper = scope.get(name)
        if isinstance(helper, FunctionType) and helper in _intrinsics:
            _devices[helper] = _devices.get(helper) or _intrinsics[helper]()
        if isinstance(helper, FunctionType) and helper in _devices:
            if _devices[helper] is None:
                _devices[helper] = numba.njit(inline="always")(_for_compiler(helper, numba))
            scope[name] = _devices[helper]
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
