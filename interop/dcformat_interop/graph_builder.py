"""A builder of graphs for importers: numbers values, stores tensors, and validates each operator as it is added.

Shapes here include the batch, of size 1; `graph_passes` takes it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.dense import from_dense
from dcformat.errors import ShapeError
from dcformat.graph import Add as AddNode
from dcformat.graph import (
    Binary,
    Concat,
    Flatten,
    Gather,
    Graph,
    Node,
    Output,
    Pad,
    Port,
    Preprocessing,
    Reduce,
    Reshape,
    Shape,
    Slice,
    Tile,
    Transpose,
    Unary,
    Where,
)
from dcformat.graph import Operand as NodeOperand
from dcformat.layout import MAX_ELEMENTS, MAX_INPUTS, MAX_NAME_BYTES, MAX_NODES
from dcformat.model import Model

Array = npt.NDArray[Any]

#: Whole numbers up to this one are exact in float32.
EXACT = 1 << 24


class Value(NamedTuple):
    """A value of the graph: its number and its shape."""

    number: int
    shape: Shape


#: An operand of an operator: a value, or an array or number that is constant.
BuilderOperand = Value | Array | float

#: The identity of a tensor: the shape, and a digest of the bits.
TensorKey = tuple[Shape, bytes]

#: The names that a source gives to tensors.
TensorNames = Mapping[TensorKey, Sequence[str]]


class GraphBuilder:
    """Collects inputs, operators, and tensors; equal operators and equal tensors are stored once.

    Parameters
    ----------
    names : mapping of TensorKey to sequence of str, optional
        The names of tensors that keep them, for any requested name. Equal tensors with several such names are
        stored under each that is requested.
    source : GraphBuilder, optional
        A builder whose names, keys and steps of tensors this one knows too.

    Attributes
    ----------
    inputs : list of Port
    nodes : list of Node
    shapes : list of tuple of int
        The shape of each value, the inputs first.
    tensors : dict of str to float32 ndarray
    wanted : dict of str to str
        The name that was requested for each tensor.
    names : mapping of TensorKey to sequence of str
    keys : dict of int to (ndarray, TensorKey)
        The keys of arrays that were stored, by their `id`.
    integers : set of str
        The tensors that a file holds as int8.
    """

    def __init__(self, names: TensorNames = MappingProxyType({}), source: GraphBuilder | None = None) -> None:
        self.names: TensorNames = names if source is None else source.names
        self.keys: dict[int, tuple[Array, TensorKey]] = {} if source is None else source.keys
        self.inputs: list[Port] = []
        self.nodes: list[Node] = []
        self.shapes: list[Shape] = []
        self.tensors: dict[str, Array] = {}
        self.wanted: dict[str, str] = {}
        self.integers: set[str] = set()
        self._steps: dict[tuple[int, int], Array] = {} if source is None else source._steps
        self._tensor_shapes: dict[str, Shape] = {}
        self._known: dict[tuple[TensorKey, str], str] = {}
        self._known_arrays: dict[int, str] = {}
        self._made: dict[Node, Value] = {}

    def input(self, port: Port) -> Value:
        """Add an input; all inputs must be added before the first operator."""
        if self.nodes:
            raise ValueError("builder: expected all inputs before the first operator")
        self.inputs.append(port)
        self.shapes.append(port.shape)
        return Value(len(self.shapes) - 1, port.shape)

    def tensor(self, values: npt.ArrayLike, name: str) -> str:
        """Store a tensor as float32 and return its name, which differs from `name` if that one is taken.

        Raises
        ------
        ValueError
            Float32 cannot hold a whole number exactly, or a value is not finite.
        """
        array = as_float32(values)
        if (found := self._known_arrays.get(id(array))) is not None and self.tensors[found] is array:
            return found
        key = self._key(array, name)
        own = self.names.get(key, ())
        if own and name not in own:
            name = own[0]
        stored = self._known.get((key, name if own else ""))
        if stored is None:
            stored = self._known[key, name if own else ""] = self._free_name(name)
            self.tensors[stored], self.wanted[stored] = array, name
            self._tensor_shapes[stored], self._known_arrays[id(array)] = array.shape, stored
        return stored

    def _key(self, array: Array, name: str) -> TensorKey:
        """Return the key of an array, which must be finite; it is computed once for all builders."""
        kept = self.keys.get(id(array))
        if kept is None or kept[0] is not array:
            if not np.isfinite(array).all():
                raise ValueError(f"tensor {name!r}: expected finite values, found NaN or infinity")
            kept = self.keys[id(array)] = array, tensor_key(array)
        return kept[1]

    def keeps(self, array: Array, name: str) -> bool:
        """Return whether the source has a tensor of this name with these values, which stays one if all are equal."""
        return bool(self.names) and name in self.names.get(tensor_key(as_float32(array)), ())

    def integer_tensor(self, values: Array, name: str) -> str:
        """Store a tensor of integers from -128 to 127, as `tensor` does, which a file holds as int8."""
        stored = self.tensor(values, name)
        self.integers.add(stored)
        return stored

    def note_steps(self, values: Array, steps: Array) -> None:
        """Note that the elements of a constant are multiples of steps: one for all, or one for each output channel."""
        self._steps[_fingerprint(values)] = steps

    def steps(self, values: Array) -> Array | None:
        """Return the steps noted for a constant, or for one with the same elements in another order."""
        return self._steps.get(_fingerprint(values))

    def emit(
        self, kind: type[Node], operands: Sequence[BuilderOperand], name: str = "constant", **attributes: Any
    ) -> Value:
        """Add an operator and return its result; `name` names constants that have to be stored.

        Raises
        ------
        FormatError
            The operands or attributes do not fit.
        """
        node = kind(self._operands(kind, operands, name), **attributes)
        if node in self._made:
            return self._made[node]
        shapes = [() if isinstance(o, float) else self._shape(o) for o in node.inputs]
        shape = node.output_shape(shapes, self._tensor_shapes)
        if prod(shape) > MAX_ELEMENTS:
            raise ShapeError(f"{node.kind} result", got=shape, expected=f"at most {MAX_ELEMENTS} elements")
        if len(self.nodes) >= MAX_NODES:
            raise ShapeError("operators of the network", got=f"more than {MAX_NODES}", expected=f"at most {MAX_NODES}")
        self.nodes.append(node)
        self.shapes.append(shape)
        value = self._made[node] = Value(len(self.shapes) - 1, shape)
        return value

    def index_limits(self) -> dict[str, int]:
        """Return, for each input by which elements are chosen, the number of elements to choose from."""
        return index_limits(self.inputs, self.nodes, self.shapes, self._tensor_shapes)

    def graph(self, outputs: Sequence[Output], preprocessing: Preprocessing | None = None) -> Graph:
        """Return the graph."""
        return Graph(tuple(self.inputs), tuple(self.nodes), tuple(outputs), preprocessing)

    def model(self, outputs: Sequence[Output], exact: bool = False) -> Model:
        """Return the graph and its tensors as a model; `exact` keeps the sign of negative zeros."""
        graph = self.graph(outputs)
        used = dict.fromkeys(name for node in graph.nodes for name in node.tensors)
        stored = {
            name: from_dense(name, self.tensors[name], "int8" if name in self.integers else None, exact=exact)
            for name in used
        }
        return Model(stored, graph)

    def _shape(self, operand: int | str) -> Shape:
        return self._tensor_shapes[operand] if isinstance(operand, str) else self.shapes[operand]

    def _operands(self, kind: type[Node], operands: Sequence[BuilderOperand], name: str) -> tuple[NodeOperand, ...]:
        rank = max((len(o.shape) for o in operands if isinstance(o, Value)), default=0)
        out: list[NodeOperand] = []
        for operand in operands:
            if isinstance(operand, Value):
                out.append(operand.number)
                continue
            array = as_float32(operand)
            alike = _number(array) if kind.takes_constants and array.ndim <= rank else None
            if alike is not None and self.keeps(array, name):
                alike = None
            if alike is not None and (array.size == 1 or _broadcasts(array.shape, operands)):
                out.append(alike)
            elif kind.takes_tensors:
                out.append(self.tensor(array, name))
            else:
                out.append(self.materialize(array, name).number)
        return tuple(out)

    def _free_name(self, name: str) -> str:
        name = name.encode()[: MAX_NAME_BYTES - 8].decode(errors="ignore") or "tensor"
        free, count = name, 1
        while free in self.tensors:
            count += 1
            free = f"{name}.{count}"
        return free

    def materialize(self, array: npt.ArrayLike, name: str = "constant") -> Value:
        """Return a constant as a value, for operators that take values only.

        An operator must read a value, so the constant is joined to an input and cut off again.
        """
        constant = as_float32(array)
        beside = self.reshape(Value(0, self.shapes[0]), (prod(self.shapes[0]),))
        joined = self.emit(Concat, [constant.reshape(-1), beside], name)
        return self.reshape(self.slice(joined, 0, 0, constant.size), constant.shape)

    def copy(self, x: Value) -> Value:
        """Return `x` as the result of an operator: a graph has at least one."""
        return self.emit(Reshape, (x,), shape=x.shape) if len(x.shape) != 1 else self.emit(Flatten, (x,))

    # The following methods save an operator where it would change nothing.

    def add(self, *operands: BuilderOperand, name: str = "constant") -> Value:
        """Return the sum of operands."""
        if len(operands) == 1 and isinstance(operands[0], Value):
            return operands[0]
        if len(operands) > MAX_INPUTS:
            first = self.add(*operands[:MAX_INPUTS], name=name)
            return self.add(first, *operands[MAX_INPUTS:], name=name)
        return self.emit(AddNode, operands, name)

    def binary(self, function: str, a: BuilderOperand, b: BuilderOperand, name: str = "constant") -> Value:
        """Return one of `BINARY` of two operands."""
        return self.emit(Binary, (a, b), name, function=function)

    def unary(self, function: str, x: Value) -> Value:
        """Return one of `UNARY` of a value."""
        return self.emit(Unary, (x,), function=function)

    def where(self, condition: BuilderOperand, a: BuilderOperand, b: BuilderOperand, name: str = "constant") -> Value:
        """Return `a` where the condition is not 0, and `b` elsewhere."""
        return self.emit(Where, (condition, a, b), name)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Return the elements of `x` in another shape."""
        if x.shape == tuple(shape):
            return x
        if len(shape) == 1:
            return self.emit(Flatten, (x,))
        return self.emit(Reshape, (x,), shape=tuple(shape))

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        """Return `x` with its dimensions in another order."""
        return x if list(order) == list(range(len(order))) else self.emit(Transpose, (x,), order=tuple(order))

    def slice(self, x: Value, axis: int, start: int, size: int, step: int = 1) -> Value:
        """Return some positions along an axis."""
        if start == 0 and step == 1 and size == x.shape[axis]:
            return x
        return self.emit(Slice, (x,), axis=axis, start=start, size=size, step=1 if size == 1 else step)

    def concat(self, operands: Sequence[BuilderOperand], axis: int, name: str = "constant") -> Value:
        """Return operands joined along an axis."""
        if len(operands) == 1 and isinstance(operands[0], Value):
            return operands[0]
        if len(operands) > MAX_INPUTS:
            first = self.concat(operands[:MAX_INPUTS], axis, name)
            return self.concat([first, *operands[MAX_INPUTS:]], axis, name)
        return self.emit(Concat, operands, name, axis=axis)

    def tile(self, x: Value, repeats: Sequence[int]) -> Value:
        """Return `x` repeated along each dimension."""
        return x if all(count == 1 for count in repeats) else self.emit(Tile, (x,), repeats=tuple(repeats))

    def gather(self, data: BuilderOperand, indices: BuilderOperand, axis: int, name: str = "constant") -> Value:
        """Return the entries of `data` along an axis that `indices` choose."""
        return self.emit(Gather, (data, indices), name, axis=axis)

    def pad(
        self, x: Value, before: Sequence[int], after: Sequence[int], mode: str = "constant", value: float = 0.0
    ) -> Value:
        """Return `x` with positions added before and after each dimension."""
        if not any(before) and not any(after):
            return x
        return self.emit(Pad, (x,), before=tuple(before), after=tuple(after), mode=mode, value=value)

    def reduce(self, function: str, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
        """Return a reduction over `axes`, which may be none."""
        if not axes:
            return x
        return self.emit(Reduce, (x,), function=function, axes=tuple(sorted(axes)), keepdims=keepdims)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Return `x` broadcast to a shape that it broadcasts to."""
        full = self.reshape(x, (1,) * (len(shape) - len(x.shape)) + x.shape)
        return self.tile(full, [size // have for size, have in zip(shape, full.shape, strict=True)])


def tensor_key(array: Array) -> TensorKey:
    """Return the identity of a contiguous float32 array."""
    return array.shape, blake2b(array.data, digest_size=16).digest()


def index_limits(
    inputs: Sequence[Port], nodes: Sequence[Node], shapes: Sequence[Shape], tensors: Mapping[str, Shape]
) -> dict[str, int]:
    """Return, for each input by which elements are chosen, the number of elements to choose from.

    `shapes` are those of all values, and `tensors` those of the tensors.
    """
    origins = {number: port.name for number, port in enumerate(inputs)}
    limits: dict[str, int] = {}
    for number, node in enumerate(nodes, len(inputs)):
        if isinstance(node, Reshape | Flatten | Transpose | Slice) and node.values[0] in origins:
            origins[number] = origins[node.values[0]]
        if isinstance(node, Gather) and node.inputs[1] in origins:
            data = node.inputs[0]
            shape = tensors[data] if isinstance(data, str) else shapes[int(data)]
            name = origins[int(node.inputs[1])]
            limits[name] = min(limits.get(name, shape[node.axis]), shape[node.axis])
    return limits


def as_float32(values: npt.ArrayLike) -> Array:
    """Return an array as float32; raise `ValueError` if it has whole numbers that float32 does not hold."""
    array = np.asarray(values)
    if array.dtype == np.float32 and array.flags.c_contiguous:
        return array
    if array.dtype.kind in "iu" and array.size and not np.all((array >= -EXACT) & (array <= EXACT)):
        raise ValueError("expected whole numbers up to 2^24, which float32 holds exactly, found greater ones")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32).reshape(array.shape)


def _fingerprint(array: Array) -> tuple[int, int]:
    """Return the number of an array's elements, and a number that does not depend on their order."""
    mixed = as_float32(array).view(np.uint32).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return array.size, int((mixed * np.uint64(0xBF58476D1CE4E5B9)).sum(dtype=np.uint64))


def _number(array: Array) -> float | None:
    """Return the number that all elements are, or None if they differ or are NaN."""
    if not array.size or not (array == array.flat[0]).all():
        return None
    return float(array.flat[0])


def _broadcasts(shape: Shape, operands: Sequence[BuilderOperand]) -> bool:
    """Return whether the values alone have the shape to which a constant of `shape` broadcasts with them."""
    values = [o.shape for o in operands if isinstance(o, Value)]
    try:
        alone = np.broadcast_shapes(*values)
        return np.broadcast_shapes(alone, shape) == alone
    except ValueError:
        return False
