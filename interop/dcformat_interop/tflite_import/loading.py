"""Loads TensorFlow Lite files: tensors, operators, and their options, all of which are checked before use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dcformat.graph import Shape
from dcformat.layout import MAX_RANK
from dcformat_interop.refusals import UnfitError, WrongKindError
from dcformat_interop.tflite_import.flatbuffer import Flatbuffer, Table
from dcformat_interop.tflite_import.quantization import Quantization, read_quantization
from dcformat_interop.tflite_import.schema import CUSTOM, DTYPES, IDENTIFIER, OPERATORS, OPTIONS, VERSION

#: Buffers up to this offset are empty: larger ones may lie behind the flatbuffer.
_NO_OFFSET = 1

#: Dtypes of which values need not be known.
_OPAQUE = ("string", "resource", "variant", "complex64", "complex128")


@dataclass(frozen=True, slots=True, eq=False)
class TfliteTensor:
    """A tensor as the file describes it.

    Attributes
    ----------
    number : int
    name : str
    dtype : str
        One of `DTYPES`.
    shape, signature : tuple of int
        The shape, and the same with -1 for sizes that are left open.
    data : memoryview or None
        The bytes of a constant.
    quantization : Quantization or None
    sparsity : Table or None
    is_variable : bool
        Whether the tensor is a state that passes from one call of the network to the next.
    dtype_field, data_field : int or None
        The positions in the file of its dtype, and of the offset to its bytes.
    """

    number: int
    name: str
    dtype: str
    shape: Shape
    signature: Shape
    data: memoryview | None
    quantization: Quantization | None
    sparsity: Table | None
    is_variable: bool
    dtype_field: int | None
    data_field: int | None

    @property
    def what(self) -> str:
        """The tensor's name in errors."""
        return f"tensor {self.number} {self.name!r}"


@dataclass(frozen=True, slots=True, eq=False)
class OperatorInfo:
    """An operator as the file describes it; an input is -1 if it is left out."""

    number: int
    op_type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]

    @property
    def what(self) -> str:
        """The operator's name in errors."""
        return f"operator {self.number} ({self.op_type})"


@dataclass(frozen=True, slots=True, eq=False)
class TfliteFile:
    """The main graph of a file."""

    path: str
    tensors: Sequence[TfliteTensor]
    operators: Sequence[OperatorInfo]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def load_tflite(path: str, data: bytes) -> TfliteFile:
    """Read a file's main graph; raise `UnfitError` if it is damaged or is another kind of file."""
    if data[4:8] != IDENTIFIER:
        found = "an empty file" if not data else f"no {IDENTIFIER.decode()} at byte 4"
        raise WrongKindError(path, "a TensorFlow Lite model", found)
    model = Flatbuffer(path, data).root()
    if (version := model.number(0, "I")) != VERSION:
        raise UnfitError(path, f"version {VERSION} of TensorFlow Lite's schema", version)
    graphs = model.tables(2, "subgraph")
    graph = next(graphs, None)
    if graph is None:
        raise UnfitError(path, "a graph", "none")
    buffers = [_buffer(model, table) for table in model.tables(4, "buffer")]
    tensors = [_tensor(path, table, number, buffers) for number, table in enumerate(graph.tables(0, "tensor"))]
    kinds = [_kind(path, table) for table in model.tables(1, "operator code")]
    operators = [
        _operator(path, table, number, kinds, len(tensors)) for number, table in enumerate(graph.tables(3, "operator"))
    ]
    inputs, outputs = graph.integers(1), graph.integers(2)
    for what, numbers in (("inputs", inputs), ("outputs", outputs)):
        _check_tensors(path, what, numbers, range(len(tensors)))
    return TfliteFile(path, tensors, operators, inputs, outputs)


class _Buffer(NamedTuple):
    """The bytes of a buffer, if it has any, and the position of the offset that leads to them."""

    data: memoryview | None
    field: int | None


def _buffer(model: Table, table: Table) -> _Buffer:
    """Return a buffer, which may lie behind the flatbuffer."""
    data = model.buffer.data
    offset, size = table.number(1, "Q"), table.number(2, "Q")
    if offset > _NO_OFFSET:
        model.buffer.require(offset + size, table.what)
        return _Buffer(memoryview(data)[offset : offset + size], None)
    found = table.array(0, "u1")
    return _Buffer(None if found is None or not found.size else found.data, table.place(0, 4))


def _tensor(path: str, table: Table, number: int, buffers: Sequence[_Buffer]) -> TfliteTensor:
    name, shape, signature = table.text(3), table.integers(0), table.integers(7)
    what = f"tensor {number} {name!r}"
    dtype = table.number(1, "b")
    if not 0 <= dtype < len(DTYPES):
        raise UnfitError(path, f"a dtype from 0 to {len(DTYPES) - 1}", dtype, what)
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise UnfitError(path, f"at most {MAX_RANK} dimensions of at least 0", shape, what)
    if signature and (len(signature) != len(shape) or any(size < -1 for size in signature)):
        raise UnfitError(path, f"a signature of shape {shape}", signature, what)
    place = table.number(2, "I")
    if place >= max(len(buffers), 1):
        raise UnfitError(path, f"a buffer from 0 to {len(buffers) - 1}", place, what)
    quantization = table.table(4, what)
    buffer = buffers[place] if buffers and place and DTYPES[dtype] not in _OPAQUE else _Buffer(None, None)
    return TfliteTensor(
        number, name, DTYPES[dtype], shape, signature or shape, buffer.data,
        None if quantization is None else read_quantization(path, what, quantization, DTYPES[dtype], shape),
        table.table(6, what), bool(table.number(5, "?")), table.place(1, 1), buffer.field,
    )  # fmt: skip


def _kind(path: str, table: Table) -> str:
    """Return the name of an operator code; a custom one is ``CUSTOM NAME``."""
    code = int(max(table.number(0, "b"), table.number(3, "i")))
    if code == CUSTOM:
        return f"CUSTOM {table.text(1)}"
    if not 0 <= code < len(OPERATORS):
        raise UnfitError(path, f"an operator from 0 to {len(OPERATORS) - 1}", code, table.what)
    return OPERATORS[code]


def _operator(path: str, table: Table, number: int, kinds: Sequence[str], tensors: int) -> OperatorInfo:
    kind = table.number(0, "I")
    if kind >= len(kinds):
        raise UnfitError(path, f"an operator code below {len(kinds)}", kind, table.what)
    op_type, inputs, outputs = kinds[kind], table.integers(1), table.integers(2)
    what = f"operator {number} ({op_type})"
    _check_tensors(path, what, inputs, range(-1, tensors))
    _check_tensors(path, what, outputs, range(tensors))
    return OperatorInfo(number, op_type, inputs, outputs, _options(path, what, op_type, table))


def _check_tensors(path: str, what: str, numbers: Sequence[int], allowed: range) -> None:
    for number in numbers:
        if number not in allowed:
            raise UnfitError(path, f"tensors from {allowed.start} to {allowed.stop - 1}", number, what)


def _options(path: str, what: str, op_type: str, table: Table) -> dict[str, Any]:
    """Return the options of an operator that has any, with defaults for those that are left out."""
    known = OPTIONS.get(op_type)
    if known is None:
        return {}
    number, found = table.number(3, "B"), table.table(4, f"options of {what}")
    out: dict[str, Any] = {}
    if found is not None and number != known.number:
        raise UnfitError(path, f"options of class {known.number}", f"class {number}", what)
    for place, entry in enumerate(known.fields):
        if entry.is_vector:
            out[entry.name] = () if found is None else found.integers(place, np.dtype(entry.form).str)
        else:
            out[entry.name] = entry.default if found is None else found.number(place, entry.form, entry.default)
    if found is not None and found.last_field() >= len(known.fields):
        expected = f"the options {', '.join(entry.name for entry in known.fields)}"
        raise UnfitError(path, expected, f"one more, of number {found.last_field()}", what)
    return out
