"""Recognises networks of integers (spec, "Whole numbers"), and turns their nodes into operators on images of bytes.

A network of integers has one input and one output of int8 or uint8. Each layer's sums go to a `Requantize`, and its
result, at most 255 apart, is a value of bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import (
    Add,
    AvgPool,
    Binary,
    Conv,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    Node,
    Pair,
    Reduce,
    Requantize,
    Reshape,
    Shape,
    Softmax,
    Transpose,
)
from dcformat.model import Model
from dcformat.records import record, replace
from dcformat_runtime.as_floats import to_float32
from dcformat_runtime.numpy_backend.elementwise import requantize_factor

Array = npt.NDArray[Any]

#: The dtypes of inputs and outputs.
BYTES = ("int8", "uint8")
#: The largest number of a byte, and a bound of the sums of a layer.
LARGEST_BYTE, _SUMS = 255, 1 << 31
#: Sums of two bytes times scales below this are finite in float32.
_SCALE = 2.0**118


class Unfit(Exception):
    """A node is not one of a network of integers."""


@record(eq=False)
class View:
    """The input as an array of `shape`, whose dimensions lie `strides` bytes apart; `shift` is added to each byte."""

    shape: Shape
    strides: Shape
    shift: int


@record(eq=False)
class IntegerImage:
    """A value of bytes, number `number`: whole numbers from `least` to `greatest`; (channels, height, width).

    The graph has it as `shape`, and at the end with `shift` added.
    """

    number: int
    size: tuple[int, int, int]
    least: int
    greatest: int
    shape: Shape
    shift: int = 0


@record(eq=False)
class Windows:
    """The windows of a layer or a pool, vertically and horizontally."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)


@record(eq=False)
class Operator:
    """An operator of a network of integers: ``input``, ``convolve``, ``channels``, ``pool``, ``add`` or ``softmax``.

    It makes value `target` of `sources`. Layers have `weights` (out, in, height, width) and sums to begin with
    (`bias`); `factors` holds a float32 for each channel. `scales` are those of addends, or of a softmax.
    """

    kind: str
    name: str
    sources: tuple[IntegerImage, ...]
    target: IntegerImage
    windows: Windows = Windows()
    weights: Array | None = None
    bias: Array | None = None
    factors: Array | None = None
    scales: tuple[float, ...] = ()
    maximum: bool = False
    view: View | None = None
    flip: int = 0


class _Sums(NamedTuple):
    """The result of a layer, a pool, a sum or a softmax before it is rounded: an operator without a target."""

    kind: str
    name: str
    sources: tuple[IntegerImage, ...]
    size: tuple[int, int, int]
    shape: Shape
    fields: dict[str, Any]


class _Pair(NamedTuple):
    """A number that a value is multiplied by, before a sum or a softmax."""

    image: IntegerImage
    scale: float


_Known = View | IntegerImage | _Sums | _Pair


@record(eq=False)
class IntegerNetwork:
    """The operators in order; `view` is that of the output, whose bytes become those of `dtype`."""

    operators: tuple[Operator, ...]
    output: IntegerImage
    dtype: str


def read(model: Model) -> IntegerNetwork | None:
    """Return a model as a network of integers, or None if it is not one."""
    graph = model.graph
    assert graph is not None
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    port, output = graph.inputs[0], graph.outputs[0]
    if port.dtype not in BYTES or output.dtype not in BYTES or port.batch_axis != 0 or output.batch_axis != 0:
        return None
    try:
        return _Reader(model, graph).read()
    except Unfit:
        return None


def _require(condition: object) -> None:
    if not condition:
        raise Unfit


class _Reader:
    def __init__(self, model: Model, graph: Graph) -> None:
        self.graph, self.tensors = graph, model.tensors
        self.shapes = graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
        self.operators: list[Operator] = []
        self._dense: dict[str, Array] = {}
        port = graph.inputs[0]
        strides = tuple(prod(port.shape[axis + 1 :]) for axis in range(len(port.shape)))
        self._low = int(np.iinfo(port.dtype).min)
        self.known: list[_Known] = [View(port.shape, strides, 0)]
        self._count = 0

    def read(self) -> IntegerNetwork:
        for node in self.graph.nodes:
            handler = _HANDLERS.get(type(node))
            _require(handler)
            assert handler is not None
            self.known.append(handler(self, node, self.shapes[len(self.known)]))
        output = self.graph.outputs[0]
        result = self.known[output.value]
        _require(isinstance(result, IntegerImage))
        assert isinstance(result, IntegerImage)
        limits = np.iinfo(output.dtype)
        _require(limits.min <= result.least + result.shift and result.greatest + result.shift <= limits.max)
        return IntegerNetwork(tuple(self.operators), result, output.dtype)

    def tensor(self, name: str) -> Array:
        """Return a tensor as float32."""
        if name not in self._dense:
            tensor = self.tensors[name]
            self._dense[name] = to_float32(tensor, tensor.to_dense())
        return self._dense[name]

    def image(self, number: int) -> IntegerImage:
        """Return a value of integers; the input becomes one where an operator first reads it."""
        found = self.known[number]
        if isinstance(found, View):
            _require(len(found.shape) in (1, 3))
            size = (found.shape[0], *found.shape[1:]) if len(found.shape) == 3 else (found.shape[0], 1, 1)
            least = self._low + found.shift
            made = self._made(size, least, least + LARGEST_BYTE, found.shape)
            flip = 0x80 if self._low else 0
            self.operators.append(Operator("input", "input", (), made, view=found, flip=flip))
            self.known[number] = found = made
        _require(isinstance(found, IntegerImage) and found.shift == 0)
        assert isinstance(found, IntegerImage)
        return found

    def _made(self, size: tuple[int, int, int], least: int, greatest: int, shape: Shape) -> IntegerImage:
        _require(least <= 0 <= greatest <= least + LARGEST_BYTE)
        self._count += 1
        return IntegerImage(self._count - 1, size, least, greatest, shape)

    def shifted(self, node: Any, shape: Shape) -> _Known:
        """Add a constant to the input or to the last value."""
        constants = [operand for operand in node.inputs if isinstance(operand, float)]
        _require(len(node.inputs) == 2 and len(constants) == 1)
        number, value = constants[0], self.known[node.values[0]]
        if isinstance(node, Binary):
            if node.function == "mul":
                _require(abs(number) < _SCALE)
                return _Pair(self.image(node.values[0]), float(np.float32(number)))
            _require(node.function == "sub" and isinstance(node.inputs[0], int))
            number = -number
        _require(abs(number) <= LARGEST_BYTE and number == int(number))
        _require(isinstance(value, View | IntegerImage))
        assert isinstance(value, View | IntegerImage)
        return replace(value, shift=value.shift + int(number))

    def add(self, node: Any, shape: Shape) -> _Known:
        """Add two values times their scales, or a constant."""
        if any(isinstance(operand, float) for operand in node.inputs):
            return self.shifted(node, shape)
        parts = [self.known[operand] for operand in node.inputs if isinstance(operand, int)]
        _require(len(node.inputs) == len(parts) == 2)
        pairs = [part if isinstance(part, _Pair) else None for part in parts]
        first, second = pairs
        _require(first is not None and second is not None)
        assert first is not None and second is not None
        _require(first.image.size == second.image.size and first.image.shape == second.image.shape == shape)
        fields = {"scales": (first.scale, second.scale)}
        return _Sums("add", "add", (first.image, second.image), first.image.size, shape, fields)

    def moved(self, node: Any, shape: Shape) -> _Known:
        """Follow the input through new shapes and orders, or flatten a value."""
        value = self.known[node.values[0]]
        if isinstance(value, View):
            if isinstance(node, Transpose):
                strides = tuple(value.strides[axis] for axis in node.order)
                return View(shape, strides, value.shift)
            whole = tuple(prod(value.shape[axis + 1 :]) for axis in range(len(value.shape)))
            _require(value.strides == whole)
            return View(shape, tuple(prod(shape[axis + 1 :]) for axis in range(len(shape))), value.shift)
        _require(isinstance(value, IntegerImage) and not isinstance(node, Transpose))
        assert isinstance(value, IntegerImage)
        _require(len(shape) == 1 or (len(shape) == 3 and tuple(shape) == value.size))
        return replace(value, shape=shape)

    def conv(self, node: Any, shape: Shape) -> _Known:
        image, weights = self.image(node.values[0]), self.tensor(node.weight)
        _require(len(image.shape) == 3 and weights.ndim == 4)
        depthwise = node.groups == image.size[0] == len(weights) and node.groups > 1
        _require(depthwise or node.groups == 1)
        windows = Windows(weights.shape[2:], node.stride, node.padding, node.dilation)
        size = (shape[0], shape[1], shape[2])
        return self._layer("channels" if depthwise else "convolve", node, (image, weights, windows), size, shape)

    def linear(self, node: Any, shape: Shape) -> _Known:
        image, weights = self.image(node.values[0]), self.tensor(node.weight)
        _require(len(image.shape) == 1)
        windows = Windows((image.size[1], image.size[2]))
        return self._layer(
            "convolve", node, (image, weights.reshape(len(weights), *image.size), windows), (shape[0], 1, 1), shape
        )

    def _layer(
        self,
        kind: str,
        node: Any,
        operand: tuple[IntegerImage, Array, Windows],
        size: tuple[int, int, int],
        shape: Shape,
    ) -> _Known:
        image, weights, windows = operand
        bias = np.zeros(len(weights), np.float32) if node.bias is None else self.tensor(node.bias)
        _require(np.array_equal(weights, np.rint(weights)) and np.abs(weights + 0.5).max() <= 127.5)
        _require(np.array_equal(bias, np.rint(bias)))
        rows = weights.reshape(len(weights), -1)  # float64 holds these sums exactly
        begin = bias.astype(np.float64) + image.least * rows.sum(axis=1, dtype=np.float64)
        reach = LARGEST_BYTE * np.abs(rows).sum(axis=1, dtype=np.float64)
        _require((np.abs(begin) + reach).max() < _SUMS)
        fields = {
            "windows": windows, "weights": weights.astype(np.int8), "bias": begin.astype(np.int32),
        }  # fmt: skip
        return _Sums(kind, node.weight, (image,), size, shape, fields)

    def pool(self, node: Any, shape: Shape) -> _Known:
        image = self.image(node.values[0])
        _require(len(image.shape) == 3 and len(shape) == 3 and len(node.kernel) == 2)
        windows = Windows(node.kernel, node.stride)
        _require(not any(node.padding) and not any(node.padding_end))
        _require(2 * LARGEST_BYTE * prod(node.kernel) < _SUMS)
        ends = [(shape[1 + i] - 1) * node.stride[i] + node.kernel[i] for i in range(2)]
        _require(ends[0] <= image.size[1] and ends[1] <= image.size[2])
        size = (shape[0], shape[1], shape[2])
        sums = _Sums("pool", node.kind, (image,), size, shape, {"windows": windows})
        return sums if isinstance(node, AvgPool) else self._rounded(sums, image.least, image.greatest, True)

    def reduce(self, node: Any, shape: Shape) -> _Known:
        image = self.image(node.values[0])
        _require(len(image.shape) == 3 and node.axes == (1, 2) and node.function == "mean")
        _require(2 * LARGEST_BYTE * prod(image.size[1:]) < _SUMS)
        fields = {"windows": Windows(image.size[1:])}
        return _Sums("pool", "mean", (image,), (image.size[0], 1, 1), shape, fields)

    def softmax(self, node: Any, shape: Shape) -> _Known:
        pair = self.known[node.values[0]]
        _require(isinstance(pair, _Pair) and node.axis is None)
        assert isinstance(pair, _Pair)
        _require(len(pair.image.shape) == 1 and pair.image.size[1:] == (1, 1))
        _require(pair.scale >= 0)  # the kernel treats the largest integer as the largest number
        return _Sums("softmax", "softmax", (pair.image,), pair.image.size, shape, {"scales": (pair.scale,)})

    def requantize(self, node: Any, shape: Shape) -> _Known:
        operand, scale = node.inputs
        _require(isinstance(operand, int) and not isinstance(scale, int))
        found = self.known[operand]
        if not isinstance(found, _Sums):
            image = self.image(operand)
            found = _Sums("pool", "requantize", (image,), image.size, shape, {})
        numbers = np.float32(scale) if isinstance(scale, float) else self.tensor(scale)
        _require(numbers.size == 1 or numbers.shape == (shape[0], *(1,) * (len(shape) - 1)))
        _require(numbers.size in (1, found.size[0]))  # a flattened value has one for each element
        factors = requantize_factor(node, numbers.reshape(-1))
        _require(np.isfinite(factors).all())
        found.fields["factors"] = np.broadcast_to(factors, (found.size[0],))
        return self._rounded(found, node.low, node.high)

    def _rounded(self, sums: _Sums, low: int, high: int, maximum: bool = False) -> IntegerImage:
        made = self._made(sums.size, low, high, sums.shape)
        fields = {"factors": np.ones(sums.size[0], np.float32), **sums.fields}
        self.operators.append(Operator(sums.kind, sums.name, sums.sources, made, maximum=maximum, **fields))
        return made


_HANDLERS: dict[type[Node], Callable[[_Reader, Any, Shape], _Known]] = {
    Add: _Reader.add, Binary: _Reader.shifted, Conv: _Reader.conv, Linear: _Reader.linear,
    **dict.fromkeys((Flatten, Reshape, Transpose), _Reader.moved),
    **dict.fromkeys((MaxPool, AvgPool), _Reader.pool),
    Reduce: _Reader.reduce, Softmax: _Reader.softmax, Requantize: _Reader.requantize,
}  # fmt: skip
