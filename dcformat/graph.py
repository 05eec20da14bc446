"""The network in a file: a list of operators in execution order.

Values are numbered. Value 0 is the network's input; node `k` makes value `k + 1` and may read only values with smaller
numbers, so a graph is acyclic and in execution order by construction. The last value is the output (logits, or
probabilities after `Softmax`). Shapes leave out the batch dimension: ``(channels, height, width)`` or ``(features,)``.

Convolutions and linear layers name their tensors; all other parameters are attributes. Batch normalisation has no
operator: exporters fold it into the preceding convolution.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import inf, isfinite, prod
from typing import ClassVar

from dcformat.errors import GraphError, ShapeError
from dcformat.layout import MAX_ELEMENTS
from dcformat.records import record

Shape = tuple[int, ...]
Pair = tuple[int, int]


@record
class Node:
    """An operator; `inputs` are value numbers, and `arity` is their count (None for two or more)."""

    inputs: tuple[int, ...]
    kind: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that this node reads."""
        return ()

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        """Return the result's shape without the batch dimension; raise `ShapeError` if the inputs do not fit."""
        raise NotImplementedError


def _weight(node: Node, name: str, tensors: Mapping[str, Shape], rank: int) -> Shape:
    shape = tensors.get(name)
    if shape is None:
        raise GraphError(f"{node.kind}'s tensor", got=repr(name), expected="the name of a tensor in the file")
    if len(shape) != rank or 0 in shape:
        raise ShapeError(f"{node.kind} weight {name!r}", got=shape, expected=f"rank {rank}, no dimension 0")
    return shape


def _bias(node: Node, name: str | None, tensors: Mapping[str, Shape], out: int) -> None:
    if name is None:
        return
    shape = tensors.get(name)
    if shape is None:
        raise GraphError(f"{node.kind}'s tensor", got=repr(name), expected="the name of a tensor in the file")
    if shape != (out,):
        raise ShapeError(f"{node.kind} bias {name!r}", got=shape, expected=(out,))


def _image(node: Node, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ShapeError(f"{node.kind} input", got=shape, expected="(channels, height, width)")
    return shape


def _at_least(node: Node, values: Pair, least: int, field: str) -> None:
    if min(values) < least:
        raise GraphError(f"{node.kind} {field}", got=values, expected=f"at least {least}")


def _window(
    node: Node, size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Return a sliding window's output length, as in PyTorch: the last window of ceil mode starts inside the input."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if span < 0:
        raise ShapeError(f"{node.kind} input size", got=size, expected=f"room for a window of {kernel}")
    out = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out -= 1
    return out


@record
class Linear(Node):
    """``y = x @ weight.T + bias``; the weight is ``(out_features, in_features)``."""

    weight: str
    bias: str | None = None
    kind: ClassVar[str] = "linear"

    @property
    def tensors(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        out, features = _weight(self, self.weight, tensors, 2)
        if inputs[0] != (features,):
            raise ShapeError(f"linear {self.weight!r} input", got=inputs[0], expected=(features,))
        _bias(self, self.bias, tensors, out)
        return (out,)


@record
class Conv2d(Node):
    """2-D cross-correlation with zero padding; weight ``(out_channels, in_channels / groups, kernel_h, kernel_w)``."""

    weight: str
    bias: str | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    kind: ClassVar[str] = "conv2d"

    @property
    def tensors(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        channels, *size = _image(self, inputs[0])
        out, per_group, *kernel = _weight(self, self.weight, tensors, 4)
        _at_least(self, self.stride, 1, "stride")
        _at_least(self, self.dilation, 1, "dilation")
        _at_least(self, self.padding, 0, "padding")
        if self.groups < 1 or out % self.groups or channels != per_group * self.groups:
            raise ShapeError(
                f"conv2d {self.weight!r} with {self.groups} groups",
                got=f"{channels} input and {out} output channels",
                expected=f"{per_group} input channels a group, output channels divisible by the groups",
            )
        _bias(self, self.bias, tensors, out)
        return (
            out,
            *(_window(self, size[i], kernel[i], self.stride[i], self.padding[i], self.dilation[i]) for i in (0, 1)),
        )


@record
class ReLU(Node):
    """``max(x, 0)``."""

    kind: ClassVar[str] = "relu"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return inputs[0]


@record
class _Pool(Node):
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        channels, *size = _image(self, inputs[0])
        _at_least(self, self.kernel, 1, "kernel")
        _at_least(self, self.stride, 1, "stride")
        _at_least(self, self.padding, 0, "padding")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise GraphError(f"{self.kind} padding", got=self.padding, expected="at most half the kernel")
        return (
            channels,
            *(
                _window(self, size[i], self.kernel[i], self.stride[i], self.padding[i], 1, self.ceil_mode)
                for i in (0, 1)
            ),
        )


@record
class MaxPool2d(_Pool):
    """Maximum over windows; padding counts as minus infinity."""

    kind: ClassVar[str] = "max_pool2d"


@record
class AvgPool2d(_Pool):
    """Mean over windows; with `count_include_pad` the padding counts as zeros, as in PyTorch."""

    count_include_pad: bool = True
    kind: ClassVar[str] = "avg_pool2d"


@record
class GlobalAvgPool(Node):
    """Mean over height and width: ``(channels, height, width)`` to ``(channels,)``."""

    kind: ClassVar[str] = "global_avg_pool"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return (_image(self, inputs[0])[0],)


@record
class GlobalMaxPool(Node):
    """Maximum over height and width: ``(channels, height, width)`` to ``(channels,)``."""

    kind: ClassVar[str] = "global_max_pool"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return (_image(self, inputs[0])[0],)


@record
class Flatten(Node):
    """Join all dimensions but the batch into one, in row-major order."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return (prod(inputs[0]),)


@record
class Add(Node):
    """Elementwise sum of two or more values of one shape."""

    kind: ClassVar[str] = "add"
    arity: ClassVar[int | None] = None

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        if any(shape != inputs[0] for shape in inputs):
            raise ShapeError("add inputs", got=tuple(inputs), expected="equal shapes")
        return inputs[0]


@record
class Concat(Node):
    """Concatenation along the channels (the first dimension after the batch), in the order of `inputs`."""

    kind: ClassVar[str] = "concat"
    arity: ClassVar[int | None] = None

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        if any(shape[1:] != inputs[0][1:] or len(shape) != len(inputs[0]) for shape in inputs):
            raise ShapeError("concat inputs", got=tuple(inputs), expected="shapes equal but for the channels")
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])


@record
class Softmax(Node):
    """``exp(x) / sum(exp(x))`` over the features of a rank 1 value."""

    kind: ClassVar[str] = "softmax"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        if len(inputs[0]) != 1:
            raise ShapeError("softmax input", got=inputs[0], expected="(features,)")
        return inputs[0]


@record
class Preprocessing:
    """How a uint8 pixel becomes the network's float32 input: ``(pixel / 255 - mean) / std``.

    `mean` and `std` hold one value for all channels or one for each channel. Float input is taken to be preprocessed
    and is used unchanged.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@record
class Graph:
    """Operators in execution order, the input's shape without the batch, and its preprocessing."""

    input_shape: Shape
    nodes: tuple[Node, ...]
    preprocessing: Preprocessing | None = None

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.kind] = counts.get(node.kind, 0) + 1
        operators = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no operators"
        return f"Graph(input {'x'.join(map(str, self.input_shape))}: {operators})"

    def shapes(self, tensors: Mapping[str, Shape]) -> list[Shape]:
        """Validate the graph, and return the shape of every value, the input first.

        Parameters
        ----------
        tensors : mapping of str to tuple of int
            The shape of every tensor in the file.

        Raises
        ------
        GraphError, ShapeError
            Nodes are connected wrongly, or shapes do not fit.
        """
        if not self.input_shape or len(self.input_shape) not in (1, 3) or min(self.input_shape) < 1:
            raise ShapeError("input shape", got=self.input_shape, expected="(features,) or (channels, height, width)")
        if prod(self.input_shape) > MAX_ELEMENTS:
            raise ShapeError("input shape", got=self.input_shape, expected=f"at most {MAX_ELEMENTS} elements")
        self._check_preprocessing()
        values = [self.input_shape]
        for number, node in enumerate(self.nodes):
            count = len(node.inputs)
            if count != node.arity if node.arity is not None else count < 2:
                raise GraphError(f"node {number} ({node.kind}) inputs", got=count, expected=node.arity or "2 or more")
            for value in node.inputs:
                if not 0 <= value <= number:
                    raise GraphError(f"node {number} ({node.kind}) input", got=value, expected=f"0 to {number}")
            shape = node.output_shape([values[i] for i in node.inputs], tensors)
            # Without this limit, every node could double a value by concatenation.
            if prod(shape) > MAX_ELEMENTS:
                raise ShapeError(f"node {number} ({node.kind})", got=shape, expected=f"at most {MAX_ELEMENTS} elements")
            values.append(shape)
        return values

    def _check_preprocessing(self) -> None:
        p = self.preprocessing
        if p is None:
            return
        channels = self.input_shape[0] if len(self.input_shape) == 3 else 1
        if len(p.mean) != len(p.std) or len(p.mean) not in (1, channels):
            expected = "1 value each" if channels == 1 else f"1 or {channels} values each"
            raise ShapeError("preprocessing", got=(len(p.mean), len(p.std)), expected=expected)
        stored = [_as_float32(v) for v in (*p.mean, *p.std)]
        if not all(map(isfinite, stored)) or 0.0 in stored[len(p.mean) :]:
            raise GraphError("preprocessing", got=(p.mean, p.std), expected="finite float32 values, std not 0")


def _as_float32(value: float) -> float:
    """Return a number rounded to float32: a number beyond its range becomes infinite or zero."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return inf
