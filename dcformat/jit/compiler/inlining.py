"""Prepares a kernel for Numba: replaces its helpers by compiled, inlined ones."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numba

from dcformat.jit.helpers import devices, intrinsics

_compiled: dict[tuple[FunctionType, frozenset[str]], Any] = {}


def with_compiled_helpers(function: FunctionType, fastmath: frozenset[str]) -> FunctionType:
    """Return a copy of a function whose globals hold the compiled helpers."""
    scope = dict(function.__globals__)
    for name in function.__code__.co_names:
        helper = scope.get(name)
        if isinstance(helper, FunctionType) and (helper in intrinsics or helper in devices):
            scope[name] = _helper(helper, fastmath)
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)


def _helper(function: FunctionType, fastmath: frozenset[str]) -> Any:
    key = (function, fastmath)
    if key not in _compiled:
        if function in intrinsics:
            _compiled[key] = intrinsics[function]()
        else:
            # LLVM inlines the helpers, because Numba's own inlining takes three times as long to compile.
            options = {"forceinline": devices[function], "error_model": "numpy", "fastmath": set(fastmath) or False,
                       "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # fmt: skip
            _compiled[key] = numba.njit(**options)(with_compiled_helpers(function, fastmath))
    return _compiled[key]
