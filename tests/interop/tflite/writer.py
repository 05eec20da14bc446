"""A small writer of TensorFlow Lite models, for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from dcformat_interop.tflite_import.schema import DTYPES, IDENTIFIER, OPERATORS, OPTIONS

Array = npt.NDArray[Any]


#: The first version of each operator that LiteRT has known only since a later version.
_VERSIONS = {"BROADCAST_TO": 2}


class Number(NamedTuple):
    """A number in a table; `form` is its format in the notation of `struct`."""

    form: str
    value: float


#: The values of a field of a table: a number, a string, a vector of numbers, a table, or a vector of tables; None is a
#: field that the table knows and leaves out.
Entry = Any
Fields = Mapping[int, Entry]


@dataclass
class Tensor:
    """A tensor of a model; `data` makes it a constant."""

    shape: Sequence[int] = ()
    data: npt.ArrayLike | None = None
    dtype: str = "float32"
    scale: Sequence[float] | float | None = None
    zero_point: Sequence[int] | int = 0
    axis: int = 0
    signature: Sequence[int] | None = None
    name: str = ""
    sparsity: Fields | None = None
    others: Fields = field(default_factory=dict)


@dataclass
class Operator:
    """An operator: its name, the numbers of its inputs and outputs, and its options by name."""

    op_type: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Mapping[str, Any] = field(default_factory=dict)


def constant(values: npt.ArrayLike, **others: Any) -> Tensor:
    """Return a constant tensor with the dtype of its values; Python's floats are float32, and whole numbers int32."""
    array = np.asarray(values)
    if not isinstance(values, np.ndarray | np.generic):
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
    return Tensor(array.shape, array, others.pop("dtype", array.dtype.name), **others)


def model(
    tensors: Sequence[Tensor], operators: Sequence[Operator], inputs: Sequence[int], outputs: Sequence[int]
) -> bytes:
    """Return the bytes of a model."""
    kinds = list(dict.fromkeys(operator.op_type for operator in operators))
    buffers: list[Fields] = [{}]
    described = [_tensor(tensor, number, buffers) for number, tensor in enumerate(tensors)]
    graph = {
        0: described, 1: np.array(inputs, np.int32), 2: np.array(outputs, np.int32),
        3: [_operator(operator, kinds) for operator in operators], 4: "main",
    }  # fmt: skip
    codes = [_code(kind) for kind in kinds]
    return flatbuffer({0: Number("I", 3), 1: codes, 2: [graph], 3: "made by a test", 4: buffers})


def _code(kind: str) -> Fields:
    name, _, custom = kind.partition(" ")
    number = OPERATORS.index(name)
    fields = {0: Number("b", min(number, 127)), 2: Number("i", _VERSIONS.get(name, 1)), 3: Number("i", number)}
    return {**fields, 1: custom} if custom else fields


def _tensor(tensor: Tensor, number: int, buffers: list[Fields]) -> Fields:
    place = 0
    if tensor.data is not None:
        place = len(buffers)
        data = tensor.data if isinstance(tensor.data, bytes) else np.ascontiguousarray(tensor.data).tobytes()
        buffers.append({0: np.frombuffer(data, np.uint8)})
    fields: dict[int, Entry] = {
        0: np.array(tensor.shape, np.int32), 1: Number("b", DTYPES.index(tensor.dtype)), 2: Number("I", place),
        3: tensor.name or f"tensor_{number}",
    }  # fmt: skip
    if tensor.scale is not None:
        scales = np.atleast_1d(np.asarray(tensor.scale, np.float32))
        zeros = np.broadcast_to(np.atleast_1d(np.asarray(tensor.zero_point, np.int64)), scales.shape)
        fields[4] = {2: scales, 3: zeros, 6: Number("i", tensor.axis)}
    if tensor.sparsity is not None:
        fields[6] = tensor.sparsity
    if tensor.signature is not None:
        fields[7] = np.array(tensor.signature, np.int32)
    return {**fields, **tensor.others}


def _operator(operator: Operator, kinds: Sequence[str]) -> Fields:
    fields: dict[int, Entry] = {
        0: Number("I", kinds.index(operator.op_type)), 1: np.array(operator.inputs, np.int32),
        2: np.array(operator.outputs, np.int32),
    }  # fmt: skip
    known = OPTIONS.get(operator.op_type)
    if known is None:
        return fields
    options: dict[int, Entry] = {}
    names = [entry.name for entry in known.fields]
    for name, value in operator.options.items():
        entry = known.fields[names.index(name)]
        options[names.index(name)] = (
            np.array(value, entry.form) if entry.is_vector else Number(entry.form, value)
        )  # fmt: skip
    return {**fields, 3: Number("B", known.number), 4: options}


def flatbuffer(root: Fields) -> bytes:
    """Return the bytes of tables; each comes before those to which it refers."""
    out = bytearray(struct.pack("<I", 0) + IDENTIFIER)
    _patch(out, 0, _table(out, root))
    return bytes(out)


def _patch(out: bytearray, place: int, target: int) -> None:
    struct.pack_into("<I", out, place, target - place)


def _align(out: bytearray, size: int, ahead: int = 0) -> None:
    out += bytes(-(len(out) + ahead) % size)


def _table(out: bytearray, fields: Fields) -> int:
    count = max(fields, default=-1) + 1
    _align(out, 8, 4 + 2 * count)
    vtable = len(out)
    out += bytes(4 + 2 * count)
    start = len(out)
    out += bytes(4)
    later: list[tuple[int, Entry]] = []
    for number, entry in sorted(fields.items()):
        if entry is None:
            continue
        form = entry.form if isinstance(entry, Number) else "I"
        _align(out, struct.calcsize(f"<{form}"))
        struct.pack_into("<H", out, vtable + 4 + 2 * number, len(out) - start)
        if isinstance(entry, Number):
            out += struct.pack(f"<{form}", entry.value)
        else:
            later.append((len(out), entry))
            out += bytes(4)
    struct.pack_into("<HH", out, vtable, 4 + 2 * count, len(out) - start)
    struct.pack_into("<i", out, start, start - vtable)
    for place, entry in later:
        _patch(out, place, _entry(out, entry))
    return start


def _entry(out: bytearray, entry: Entry) -> int:
    if isinstance(entry, Mapping):
        return _table(out, entry)
    if isinstance(entry, str):
        _align(out, 4)
        start, data = len(out), entry.encode()
        out += struct.pack("<I", len(data)) + data + b"\0"
        return start
    if isinstance(entry, np.ndarray):
        _align(out, 16, 4)
        start = len(out)
        out += struct.pack("<I", len(entry)) + entry.astype(entry.dtype.newbyteorder("<")).tobytes()
        return start
    _align(out, 4)
    start = len(out)
    out += struct.pack("<I", len(entry)) + bytes(4 * len(entry))
    for number, item in enumerate(entry):
        _patch(out, start + 4 + 4 * number, _table(out, item))
    return start
