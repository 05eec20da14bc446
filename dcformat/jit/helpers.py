"""The helpers that kernels call: Python functions that are compiled into each kernel that uses them."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

#: The helpers marked by `device` or `shared`, and whether their code is inlined.
devices: dict[FunctionType, bool] = {}
#: The helpers marked by `intrinsic`, and the builders of their compiled forms.
intrinsics: dict[FunctionType, Callable[[], Any]] = {}


def device(function: F) -> F:
    """Mark a helper of kernels: it runs as Python in Python, and the compiler inlines it into compiled kernels."""
    devices[cast(FunctionType, function)] = True
    return function


def shared(function: F) -> F:
    """Mark a helper that a kernel calls in several places and that is too large to be inlined in each of them."""
    devices[cast(FunctionType, function)] = False
    return function


def intrinsic(build: Callable[[], Any]) -> Callable[[F], F]:
    """Mark a helper whose compiled form is not its own code: `build` makes that form (a Numba intrinsic) on demand.

    The function itself defines what the helper does, and runs if nothing is compiled. Saved code is rebuilt if `build`
    changes, or any module of the same top-level package that `build` imports by name.
    """

    def mark(function: F) -> F:
        intrinsics[cast(FunctionType, function)] = build
        return function

    return mark
