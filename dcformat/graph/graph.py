"""The network as a whole: its inputs, its operators, and its outputs.

Values are numbered. The inputs come first; then each node, in order, makes one value, and may read only values with
smaller numbers. So a graph is acyclic and in execution order by construction.

Values are float32. Whole numbers, truth values (0 and 1) and indices are float32 too, exact up to 2^24: `Port.dtype` is
that of the arrays that a caller gives or gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isinf, isnan, prod
from typing import TypeGuard

from dcformat.errors import FormatError, GraphError, ShapeError
from dcformat.graph.node import Node, Operand, Shape, as_float32
from dcformat.layout import DTYPES, KERNEL_DTYPES, MAX_ELEMENTS, MAX_RANK
from dcformat.records import record

#: The dtypes of inputs and outputs; their numbers in a file are their places here.
PORT_DTYPES = ("float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")


def with_batch(shape: Shape, batch_axis: int | None) -> tuple[int | None, ...]:
    """Return the shape of a caller's array, in which None stands for the batch."""
    return shape if batch_axis is None else (*shape[:batch_axis], None, *shape[batch_axis:])


@record
class Port:
    """An input: its name, its shape without the batch, its dtype, and where the batch goes.

    A caller's array has the batch at dimension `batch_axis`. An input with None is the same for the whole batch. If all
    inputs have None, the network takes no batches.
    """

    shape: Shape
    name: str = "input"
    dtype: str = "float32"
    batch_axis: int | None = 0

    @property
    def full_shape(self) -> tuple[int | None, ...]:
        """The shape of a caller's array: None stands for the batch."""
        return with_batch(self.shape, self.batch_axis)


@record
class Output:
    """An output: the number of a value, and the properties of a `Port`. `batch_axis` is None without a batch."""

    value: int
    name: str = "output"
    dtype: str = "float32"
    batch_axis: int | None = 0


@record
class Preprocessing:
    """How a uint8 pixel becomes the network's float32 input: ``(pixel / 255 - mean) / std``.

    `mean` and `std` hold one value for all channels or one for each channel, the first dimension of an input of rank 3.
    Float input is taken to be preprocessed and is used unchanged. Only a network with one float32 input has it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@record
class Graph:
    """Inputs, operators in execution order, and outputs; most networks have one input, and give their last value."""

    inputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    preprocessing: Preprocessing | None = None

    @classmethod
    def sequential(cls, input_shape: Shape, nodes: Sequence[Node], preprocessing: Preprocessing | None = None) -> Graph:
        """Make a graph with one input, which gives its last value."""
        return cls((Port(tuple(input_shape)),), tuple(nodes), (Output(len(nodes)),), preprocessing)

    @property
    def input_shape(self) -> Shape:
        """The shape of the only input, without the batch; a `GraphError` if there are several."""
        if len(self.inputs) != 1:
            raise GraphError("inputs of the network", got=len(self.inputs), expected=1)
        return self.inputs[0].shape

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.kind] = counts.get(node.kind, 0) + 1
        operators = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no operators"
        inputs = ", ".join("x".join(map(str, port.shape)) or "scalar" for port in self.inputs)
        return f"Graph(input {inputs}: {operators})"

    def shapes(self, tensors: Mapping[str, Shape]) -> list[Shape]:
        """Validate the graph, and return the shape of every value, the inputs first.

        Parameters
        ----------
        tensors : mapping of str to tuple of int
            The shape of every tensor in the file.

        Raises
        ------
        GraphError, ShapeError
            Nodes are connected wrongly, or shapes do not fit.
        """
        self._check_ports()
        self._check_preprocessing()
        values = [port.shape for port in self.inputs]
        for number, node in enumerate(self.nodes):
            try:
                shape = node.output_shape(_operand_shapes(node, values, tensors), tensors)
                # Without this limit, every node could double a value by concatenation.
                if not 1 <= prod(shape) <= MAX_ELEMENTS:
                    raise ShapeError(f"{node.kind} result", got=shape, expected=f"1 to {MAX_ELEMENTS} elements")
            except FormatError as error:
                error.field = f"node {number}: {error.field}"
                raise
            values.append(shape)
        self._check_outputs(values)
        return values

    def check_dtypes(self, dtypes: Mapping[str, str]) -> None:
        """Raise `GraphError` if an operator uses a tensor of a dtype that networks do not compute with."""
        for node in self.nodes:
            for name in node.tensors:
                if dtypes.get(name, DTYPES[0]) not in DTYPES[:KERNEL_DTYPES]:
                    expected = f"a tensor of {', '.join(DTYPES[:KERNEL_DTYPES])}"
                    raise GraphError(f"{node.kind}'s tensor {name!r}", got=dtypes[name], expected=expected)

    def _check_ports(self) -> None:
        if not self.inputs:
            raise GraphError("inputs of the network", got="none", expected="at least one")
        names = [port.name for port in self.inputs]
        if len(set(names)) != len(names):
            raise GraphError("names of the inputs", got=names, expected="different names")
        for port in self.inputs:
            if len(port.shape) > MAX_RANK or any(size < 1 for size in port.shape):
                raise ShapeError("input shape", got=port.shape, expected=f"at most {MAX_RANK} dimensions, none of 0")
            if prod(port.shape) > MAX_ELEMENTS:
                raise ShapeError("input shape", got=port.shape, expected=f"at most {MAX_ELEMENTS} elements")
            _check_port(f"input {port.name!r}", port.dtype, port.batch_axis, port.shape)

    def _check_outputs(self, values: Sequence[Shape]) -> None:
        if not self.outputs:
            raise GraphError("outputs of the network", got="none", expected="at least one")
        names = [output.name for output in self.outputs]
        if len(set(names)) != len(names):
            raise GraphError("names of the outputs", got=names, expected="different names")
        batches = any(port.batch_axis is not None for port in self.inputs)
        for output in self.outputs:
            if not 0 <= output.value < len(values):
                raise GraphError(f"output {output.name!r}", got=output.value, expected=f"0 to {len(values) - 1}")
            _check_port(f"output {output.name!r}", output.dtype, output.batch_axis, values[output.value])
            if (output.batch_axis is not None) != batches:
                raise GraphError(
                    f"output {output.name!r}", got=f"batch axis {output.batch_axis}",
                    expected="a batch axis if an input has one",
                )  # fmt: skip

    def _check_preprocessing(self) -> None:
        p = self.preprocessing
        if p is None:
            return
        if len(self.inputs) != 1 or self.inputs[0].dtype != "float32":
            got = ", ".join(port.dtype for port in self.inputs)
            raise GraphError("preprocessing", got=f"inputs of {got}", expected="one input of float32")
        shape = self.inputs[0].shape
        channels = shape[0] if len(shape) == 3 else 1
        if len(p.mean) != len(p.std) or len(p.mean) not in (1, channels):
            expected = "1 value each" if channels == 1 else f"1 or {channels} values each"
            raise ShapeError("preprocessing", got=(len(p.mean), len(p.std)), expected=expected)
        stored = [as_float32(v) for v in (*p.mean, *p.std)]
        if not all(map(isfinite, stored)) or 0.0 in stored[len(p.mean) :]:
            raise GraphError("preprocessing", got=(p.mean, p.std), expected="finite float32 values, std not 0")


def _operand_shapes(node: Node, values: Sequence[Shape], tensors: Mapping[str, Shape]) -> list[Shape]:
    """Return the shape of each operand, that of a constant being ``()``."""
    count = len(node.inputs)
    if count != node.arity if node.arity is not None else count < node.least_arity:
        raise GraphError(f"{node.kind} inputs", got=count, expected=node.arity or f"{node.least_arity} or more")
    if not any(_is_whole(operand) for operand in node.inputs):
        raise GraphError(f"{node.kind} inputs", got="no value", expected="at least one")
    return [_operand_shape(node, operand, values, tensors) for operand in node.inputs]


def _operand_shape(node: Node, operand: Operand, values: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
    if isinstance(operand, str) and node.takes_tensors:
        shape = tensors.get(operand)
        if shape is None:
            raise GraphError(f"{node.kind} input", got=repr(operand), expected="a tensor in the file")
        if 0 in shape:
            raise ShapeError(f"{node.kind} tensor {operand!r}", got=shape, expected="no dimension 0")
        return shape
    if isinstance(operand, float) and node.takes_constants:
        if isnan(operand) or (isinf(as_float32(operand)) and not isinf(operand)):
            raise GraphError(f"{node.kind} input", got=operand, expected="a number that float32 can hold")
        return ()
    if not _is_whole(operand):
        raise GraphError(f"{node.kind} input", got=repr(operand), expected="the number of a value")
    if not 0 <= operand < len(values):
        raise GraphError(f"{node.kind} input", got=operand, expected=f"0 to {len(values) - 1}")
    return values[operand]


def _is_whole(operand: Operand) -> TypeGuard[int]:
    return isinstance(operand, int) and not isinstance(operand, bool)


def _check_port(what: str, dtype: str, batch_axis: int | None, shape: Shape) -> None:
    if dtype not in PORT_DTYPES:
        raise GraphError(f"{what} dtype", got=repr(dtype), expected=", ".join(PORT_DTYPES))
    if batch_axis is not None and not 0 <= batch_axis <= len(shape):
        raise GraphError(f"{what} batch axis", got=batch_axis, expected=f"0 to {len(shape)}, or None")
