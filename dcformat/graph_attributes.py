"""How the attributes of each operator become bytes (spec, "Operators").

The attributes of an operator are the fields in its entry of `ATTRIBUTES`, one after another. They are left out of a
file if each has its default.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

from dcformat import graph as g
from dcformat import layout
from dcformat.cursor import Cursor, varint
from dcformat.errors import EncodingError, GraphError, LimitError
from dcformat.graph.rearranging import COORDINATES, PAD_MODES, RESIZE_MODES, ROUNDINGS

#: Operator ids. Spec, "Operators".
OPERATORS: dict[int, type[g.Node]] = dict(
    enumerate(
        (
            g.Linear, g.Conv, g.ReLU, g.MaxPool, g.AvgPool, g.Reduce, g.Unary, g.Flatten, g.Add, g.Concat, g.Softmax,
            g.Binary, g.Where, g.Quantize, g.Normalize, g.MatMul, g.ConvTranspose, g.LSTM, g.GRU, g.Reshape,
            g.Transpose, g.Slice, g.Pad, g.Tile, g.Gather, g.Resize, g.Requantize,
        ),
        start=1,
    )
)  # fmt: skip


class OperatorContext:
    """The context that the bytes of operators depend on.

    Attributes
    ----------
    names : tuple of str
        The names of the file's tensors, in order.
    count : int
        The length of the last counted list; for a convolution, at first its number of spatial dimensions.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self.count = 0

    def number(self, name: str) -> int:
        """Return the number of a tensor that is in the file."""
        return self._numbers[name]

    def name(self, field: str, number: int) -> str:
        """Return the name of a tensor; a `GraphError` if the file has none of this number."""
        if number >= len(self.names):
            raise GraphError(field, got=number, expected=f"less than {len(self.names)}")
        return self.names[number]


def write_real(field: str, value: float) -> bytes:
    """Return a number as float32, to which it is rounded; it may be infinite."""
    try:
        raw = struct.pack("<f", value)
    except OverflowError:
        raise GraphError(field, got=value, expected="a number in the range of float32") from None
    if isnan(value):
        raise GraphError(field, got=value, expected="a number")
    return raw


def read_real(field: str, cursor: Cursor) -> float:
    """Read a float32, which may be infinite."""
    (value,) = struct.unpack("<f", cursor.take(4, field))
    if isnan(value):
        raise EncodingError(field, got="NaN", expected="a number")
    return float(value)


class AttributeCoding:
    """How a value is written and read; `field` names it in errors."""

    def write(self, field: str, value: Any, scope: OperatorContext) -> bytes:
        """Return the bytes of a value; a `FormatError` if it has none."""
        raise NotImplementedError

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> Any:
        """Read a value."""
        raise NotImplementedError


class _Count(AttributeCoding):
    """A varint of at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def write(self, field: str, value: int, scope: OperatorContext) -> bytes:
        if not 0 <= value <= self.limit:
            raise LimitError(field, got=value, expected=f"0 to {self.limit}")
        return varint(value)

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> int:
        return cursor.varint(field, self.limit)


class _OptionalCount(_Count):
    """A count plus 1, or 0 for None."""

    def write(self, field: str, value: int | None, scope: OperatorContext) -> bytes:
        return super().write(field, 0 if value is None else value + 1, scope)

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> int | None:  # type: ignore[override]
        number = super().read(field, cursor, scope)
        return number - 1 if number else None


class _Signed(_Count):
    """0, -1, 1, -2, 2, ... as the varints 0, 1, 2, 3, 4, ..."""

    def write(self, field: str, value: int, scope: OperatorContext) -> bytes:
        return super().write(field, 2 * value if value >= 0 else -2 * value - 1, scope)

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> int:
        number = super().read(field, cursor, scope)
        return -(number + 1 >> 1) if number & 1 else number >> 1


class _Real(AttributeCoding):
    """A float32, to which a writer rounds; it may be infinite."""

    def write(self, field: str, value: float, scope: OperatorContext) -> bytes:
        return write_real(field, value)

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> float:
        return read_real(field, cursor)


class _Choice(AttributeCoding):
    """A word, as its place in a table; truth values are a table of two."""

    def __init__(self, table: Sequence[Any]) -> None:
        self.table = tuple(table)

    def write(self, field: str, value: Any, scope: OperatorContext) -> bytes:
        if value not in self.table:
            raise GraphError(field, got=repr(value), expected=", ".join(map(str, self.table)))
        return varint(self.table.index(value))

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> Any:
        number = cursor.varint(field, layout.MAX_ATTRIBUTE)
        if number >= len(self.table):
            raise EncodingError(field, got=number, expected=f"at most {len(self.table) - 1}")
        return self.table[number]


class _Axes(AttributeCoding):
    """A set of dimensions, as a varint whose bit i stands for dimension i."""

    def write(self, field: str, value: Sequence[int], scope: OperatorContext) -> bytes:
        return varint(sum(1 << axis for axis in value))

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> tuple[int, ...]:
        mask = cursor.varint(field, (1 << layout.MAX_RANK) - 1)
        return tuple(axis for axis in range(layout.MAX_RANK) if mask >> axis & 1)


class _Each(AttributeCoding):
    """A list as long as the scope says."""

    def __init__(self, item: AttributeCoding) -> None:
        self.item = item

    def write(self, field: str, value: Sequence[Any], scope: OperatorContext) -> bytes:
        return b"".join(self.item.write(field, item, scope) for item in value)

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> tuple[Any, ...]:
        return tuple(self.item.read(field, cursor, scope) for _ in range(scope.count))


class _Counted(_Each):
    """A list after its length, which also is the length of the lists that follow."""

    def write(self, field: str, value: Sequence[Any], scope: OperatorContext) -> bytes:
        return _Count(layout.MAX_RANK).write(f"{field} length", len(value), scope) + super().write(field, value, scope)

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> tuple[Any, ...]:
        scope.count = cursor.varint(f"{field} length", layout.MAX_RANK)
        return super().read(field, cursor, scope)


class _OptionalTensor(AttributeCoding):
    """A tensor's number plus 1, or 0 for None."""

    def write(self, field: str, value: str | None, scope: OperatorContext) -> bytes:
        return varint(0 if value is None else scope.number(value) + 1)

    def read(self, field: str, cursor: Cursor, scope: OperatorContext) -> str | None:
        number = cursor.varint(field, layout.MAX_TENSORS)
        return scope.name(field, number - 1) if number else None


_FLAG = _Choice((False, True))
_REAL = _Real()
_SMALL = _Count(layout.MAX_ATTRIBUTE)
_SIZE = _Count(layout.MAX_ELEMENTS)
_AXIS = _Count(layout.MAX_RANK - 1)
_INTEGER = _Signed(2 * layout.MAX_ATTRIBUTE)
_AROUND = {"stride": _Each(_SMALL), "padding": _Each(_SMALL), "padding_end": _Each(_SMALL)}
_POOL = {"kernel": _Counted(_SMALL), **_AROUND, "ceil_mode": _FLAG}
_RECURRENT = {"recurrent_bias": _OptionalTensor(), "reverse": _FLAG}

#: The attributes of each operator that has any, in the order of the bytes.
ATTRIBUTES: dict[type[g.Node], dict[str, AttributeCoding]] = {
    g.Conv: {**_AROUND, "dilation": _Each(_SMALL), "groups": _SMALL},
    g.ConvTranspose: {**_AROUND, "dilation": _Each(_SMALL), "output_padding": _Each(_SMALL), "groups": _SMALL},
    g.MaxPool: _POOL,
    g.AvgPool: {**_POOL, "count_include_pad": _FLAG},
    g.Reduce: {"function": _Choice(g.REDUCTIONS), "axes": _Axes(), "keepdims": _FLAG},
    g.Unary: {"function": _Choice(g.UNARY)},
    g.Concat: {"axis": _AXIS},
    g.Softmax: {"axis": _OptionalCount(layout.MAX_RANK - 1)},
    g.Binary: {"function": _Choice(g.BINARY)},
    g.Quantize: {"scale": _REAL, "zero_point": _INTEGER, "low": _INTEGER, "high": _INTEGER},
    g.Normalize: {"axes": _Axes(), "epsilon": _REAL, "centered": _FLAG},
    g.LSTM: _RECURRENT,
    g.GRU: {**_RECURRENT, "reset_after": _FLAG},
    g.Reshape: {"shape": _Counted(_SIZE)},
    g.Transpose: {"order": _Counted(_AXIS)},
    g.Slice: {"axis": _AXIS, "start": _SIZE, "size": _SIZE, "step": _INTEGER},
    g.Pad: {"before": _Counted(_SIZE), "after": _Each(_SIZE), "mode": _Choice(PAD_MODES), "value": _REAL},
    g.Tile: {"repeats": _Counted(_SMALL)},
    g.Gather: {"axis": _AXIS},
    g.Resize: {
        "size": _Counted(_SIZE), "scale": _Each(_REAL), "mode": _Choice(RESIZE_MODES),
        "coordinates": _Choice(COORDINATES), "rounding": _Choice(ROUNDINGS),
    },
    g.Requantize: {"input_scale": _REAL, "output_scale": _REAL, "low": _INTEGER, "high": _INTEGER},
}  # fmt: skip

#: The defaults of operators that may leave out their attributes; a convolution has those of each spatial dimension.
DEFAULTS: dict[type[g.Node], tuple[Any, ...]] = {
    g.Conv: ((1,), (0,), (0,), (1,), 1),
    g.ConvTranspose: ((1,), (0,), (0,), (1,), (0,), 1),
    g.MaxPool: ((2, 2), (2, 2), (0, 0), (0, 0), False),
    g.AvgPool: ((2, 2), (2, 2), (0, 0), (0, 0), False, True),
    g.Reduce: ("mean", (1, 2), False),
    g.Concat: (0,),
    g.Softmax: (None,),
    g.LSTM: (None, False),
    g.GRU: (None, False, True),
    g.Gather: (0,),
}


def defaults(kind: type[g.Node], spatial: int) -> tuple[Any, ...] | None:
    """Return an operator's defaults, or None; `spatial` is the number of spatial dimensions of a convolution."""
    found = DEFAULTS.get(kind, None if kind in ATTRIBUTES else ())
    if found is None or kind not in (g.Conv, g.ConvTranspose):
        return found
    return tuple(value * spatial if isinstance(value, tuple) else value for value in found)


def write_attributes(what: str, kind: type[g.Node], values: Sequence[Any], scope: OperatorContext) -> bytes:
    """Return the bytes of all attributes of an operator; `what` names it in errors."""
    codings = ATTRIBUTES.get(kind, {}).items()
    return b"".join(c.write(f"{what} {field}", value, scope) for (field, c), value in zip(codings, values, strict=True))


def read_attributes(what: str, kind: type[g.Node], cursor: Cursor, scope: OperatorContext) -> tuple[Any, ...]:
    """Read all attributes of an operator, in the order of `ATTRIBUTES`."""
    codings = ATTRIBUTES.get(kind, {}).items()
    return tuple(coding.read(f"{what} {field}", cursor, scope) for field, coding in codings)
