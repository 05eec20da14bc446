"""The work of a kernel call, estimated from its arguments before it runs."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from dcformat.jit.signature import Signature


class WorkEstimate:
    """Estimates the steps of a call.

    Parameters
    ----------
    work : callable
        A function of some of the kernel's parameters, by name, that returns the maximum number of microseconds that
        Python takes.
    function : function
        The kernel.
    signature : Signature

    Raises
    ------
    ValueError
        `work` names a parameter that the kernel does not have.
    """

    def __init__(self, work: Callable[..., int], function: FunctionType, signature: Signature) -> None:
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        wanted = work.__code__.co_varnames[: work.__code__.co_argcount]
        unknown = set(wanted) - set(names)
        if unknown:
            raise ValueError(f"kernel {function.__name__}: work: expected some of {names}, found {sorted(unknown)}")
        self._work, self._count = work, len(names)
        self._places = [(names.index(name), not signature.arguments[names.index(name)].ndim) for name in wanted]

    def __call__(self, args: tuple[Any, ...]) -> int | None:
        """Return the steps of a call, or None if the arguments are too few or too many."""
        if len(args) != self._count:
            return None
        # Python's integers grow, whereas NumPy's would wrap around.
        return int(self._work(*(int(args[at]) if is_scalar else args[at] for at, is_scalar in self._places)))
