"""Kernels' signatures: ``"int64(uint8[::1], const float32[:, ::1], int64)"``.

The notation is Numba's for C-contiguous arrays and scalars, with one addition: ``const`` marks an array that the kernel
does not write to, and that may therefore be read-only.
"""

from __future__ import annotations

import re

from dcformat.records import record

_ARRAYS = frozenset(
    {
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
    }
)
_SCALARS = frozenset({"int64", "float32", "float64", "boolean"})
_RETURNS = frozenset({"void", "int64", "float64", "boolean"})
_ARGUMENT = re.compile(r"(const )?([a-z0-9]+)(?:\[((?::, ?)*)::1\])?")


@record
class Argument:
    """A parameter: a scalar (`ndim` 0) or a C-contiguous array."""

    dtype: str
    ndim: int
    const: bool

    def __str__(self) -> str:
        if not self.ndim:
            return self.dtype
        return f"{'' if self.const else 'writable '}C-contiguous {self.ndim}-dimensional {self.dtype} array"


@record
class Signature:
    """A parsed signature."""

    returns: str
    arguments: tuple[Argument, ...]


def parse(text: str) -> Signature:
    """Parse a signature; raise `ValueError` if kernels do not support it."""
    returns, _, rest = text.partition("(")
    if returns not in _RETURNS or not rest.endswith(")"):
        raise ValueError(f"kernel signature: expected one of {sorted(_RETURNS)} and (...), found {text!r}")
    inner = rest[:-1].strip()
    return Signature(returns, tuple(_argument(part.strip()) for part in _split(inner)) if inner else ())


def _split(text: str) -> list[str]:
    return re.split(r",(?![^\[]*\])", text)


def _argument(text: str) -> Argument:
    match = _ARGUMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"kernel argument: expected a scalar or a C-contiguous array, found {text!r}")
    const, dtype, axes = match.groups()
    ndim = 0 if axes is None else axes.count(":") + 1
    if dtype not in (_ARRAYS if ndim else _SCALARS):
        raise ValueError(f"kernel argument: expected a dtype that kernels support, found {text!r}")
    return Argument(dtype, ndim, bool(const))
