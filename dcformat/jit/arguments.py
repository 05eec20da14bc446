"""Checks of a kernel's arguments in Python, used only after the faster check in machine code has refused them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcformat.jit.signature import Argument, Signature


def conform(name: str, signature: Signature, args: Sequence[Any]) -> list[Any]:
    """Return equivalent arguments that have exactly the expected types.

    Machine code compares types by identity: it accepts neither subclasses of ndarray nor equal dtype objects.

    Raises
    ------
    TypeError
        An argument has another type, dtype, rank or contiguity, or is read-only although the kernel writes to it.
    """
    if len(args) != len(signature.arguments):
        raise TypeError(f"kernel {name}: expected {len(signature.arguments)} arguments, found {len(args)}")
    out = []
    for index, (argument, value) in enumerate(zip(signature.arguments, args, strict=True)):
        better = _array(argument, value) if argument.ndim else _scalar(argument, value)
        if better is None:
            raise TypeError(f"kernel {name}, argument {index}: expected {argument}, found {_describe(value)}")
        out.append(better)
    return out


def _array(argument: Argument, value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype != np.dtype(argument.dtype) or value.ndim != argument.ndim:
        return None
    flags = value.flags
    if not flags.c_contiguous or not flags.aligned or not (flags.writeable or argument.const):
        return None
    if type(value) is np.ndarray and value.dtype is np.dtype(argument.dtype):
        return value
    return np.ndarray.view(value, np.dtype(argument.dtype), np.ndarray)


def _scalar(argument: Argument, value: Any) -> Any:
    if argument.dtype == "boolean":
        return bool(value) if isinstance(value, bool | np.bool_) else None
    return value


def _describe(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"{type(value).__name__}"
    flags = value.flags
    traits = [
        *(() if flags.c_contiguous else ("not C-contiguous",)),
        *(() if flags.writeable else ("read-only",)),
        *(() if flags.aligned else ("unaligned",)),
    ]
    return ", ".join((f"{value.ndim}-dimensional {value.dtype} array", *traits))
