"""Rewrites the layers of a quantised network so that they compute with integers (spec, "Whole numbers").

An importer writes a quantised network with the numbers that integers stand for. Here the values between its layers
become the integers themselves, minus their zero points; the weights and biases of a layer become integers too, and
`Requantize` makes the integers of the next layer from its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import graph as ops
from dcformat.graph import Node
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.graph_passes.copying import Copier, attributes_of

Array = npt.NDArray[Any]

#: The dtypes of inputs whose elements are integers of a small range.
_SMALL = ("int8", "uint8")
#: No sum of a layer may reach this number.
_SUMS = 1 << 31
#: The distance that a bias may have from a multiple of its scale, relative to it: some roundings to float32.
_TOLERANCE = 1e-6


class QuantizedValue(NamedTuple):
    """A value of the new graph whose integers, from `low` to `high`, times `scale` are a value of the old one."""

    value: Value
    scale: float
    low: int
    high: int


class Sums(NamedTuple):
    """A value of the new graph that is a value of the old one if it is multiplied by `scale` and `scales`.

    `scales` is a number, or an array that broadcasts to the value; `name` is for this array.
    """

    value: Value
    scale: float
    scales: float | Array
    name: str


class QuantizedLayer(NamedTuple):
    """The integers of a layer's weights, their steps (one for all channels, or one for each), and its biases."""

    integers: Array
    steps: Array
    bias: Array


def to_integers(builder: GraphBuilder, outputs: Sequence[Value]) -> tuple[GraphBuilder, list[Value]]:
    """Return the graph with integer layers and its outputs, or both unchanged if it has no such layers."""
    rewriter = _Rewriter(builder, outputs)
    for number, node in enumerate(builder.nodes, len(builder.inputs)):
        rewriter.add(number, node)
    if not rewriter.layers:
        return builder, list(outputs)
    return rewriter.new, [rewriter.real(value.number) for value in outputs]


def _without_weights(layer: QuantizedLayer, scale: float, following: ops.Quantize) -> QuantizedLayer:
    """Return a layer whose channels without weights, which are constant, have that constant as their bias.

    Converters give such a channel a tiny random step and a bias near 2^30. Here its step is the one for which the
    factor of `Requantize` is 1. Its integers stay the same.
    """
    steps, bias = layer.steps, layer.bias
    given = np.float32(scale), np.float32(following.scale)
    low, high = following.low - following.zero_point, following.high - following.zero_point

    def made(sums: Array, steps: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(np.clip(np.rint(sums * (given[0] * steps / given[1])), low, high))

    constant = made(bias, steps)
    plain = np.full_like(steps, given[1] / given[0])
    empty = ~layer.integers.reshape(len(bias), -1).any(axis=1) & (made(constant, plain) == constant)
    return layer._replace(steps=np.where(empty, plain, steps), bias=np.where(empty, constant, bias))


class _Rewriter(Copier):
    """Copies operators; values that are known as integers or sums are computed as real numbers only where needed."""

    def __init__(self, old: GraphBuilder, outputs: Sequence[Value]) -> None:
        super().__init__(old)
        self.known: dict[int, QuantizedValue | Sums] = {}
        self.layers = 0
        self._readers: dict[int, list[Node | None]] = {value.number: [None] for value in outputs}
        for node in old.nodes:
            for number in node.values:
                self._readers.setdefault(number, []).append(node)
        for number, port in enumerate(old.inputs):
            self.made[number] = self.new.input(port)
            if port.dtype in _SMALL:
                info = np.iinfo(port.dtype)
                self.known[number] = QuantizedValue(self.made[number], 1.0, int(info.min), int(info.max))

    def add(self, number: int, node: Node) -> None:
        """Copy an operator."""
        handler = _HANDLERS.get(type(node))
        found = None if handler is None else handler(self, node)
        if found is None:
            self.made[number] = self.copy(node, [self._operand(operand) for operand in node.inputs])
        else:
            self.known[number] = found

    def _operand(self, operand: int | str | float) -> Any:
        return self.real(operand) if isinstance(operand, int) else self.operand(operand)

    def real(self, number: int) -> Value:
        """Return the copy of an old value, with the same numbers."""
        if number not in self.made:
            found = self.known[number]
            if isinstance(found, QuantizedValue):
                made = found.value if found.scale == 1 else self.new.binary("mul", found.value, found.scale)
            else:
                scales = np.asarray(np.float32(found.scale) * found.scales)
                made = self.new.binary("mul", found.value, scales, found.name)
            self.made[number] = made
        return self.made[number]

    def whole(self, node: Node) -> QuantizedValue | None:
        """Return the only value among a node's operands, if it is known as integers."""
        found = self.known.get(node.values[0]) if len(node.values) == 1 else None
        return found if isinstance(found, QuantizedValue) else None

    def quantize(self, node: Any) -> QuantizedValue:
        found = self.known.get(node.values[0])
        low, high = node.low - node.zero_point, node.high - node.zero_point
        scale = float(np.float32(node.scale))
        if isinstance(found, QuantizedValue) and found.scale == scale and low <= found.low and found.high <= high:
            return found
        if found is None:
            x = self.real(node.values[0])
            if node.values[0] < len(self.old.inputs):  # the arrays of callers are divided, as in Quantize
                found = Sums(self.new.binary("div", x, scale), scale, 1.0, "")
            else:
                found = Sums(x, 1.0, 1.0, "")
        operands = found.value, found.scales if isinstance(found, Sums) else 1.0
        name = found.name if isinstance(found, Sums) else ""
        scales = {"input_scale": found.scale, "output_scale": scale}
        made = self.new.emit(ops.Requantize, operands, name, **scales, low=low, high=high)
        return QuantizedValue(made, scale, low, high)

    def layer(self, node: Any) -> Sums | None:
        """Make a layer whose operand, weights and bias are integers compute with them."""
        x, layer = self.whole(node), self._layer(node)
        if x is None or layer is None:
            return None
        bias, name = layer.bias, self.old.wanted[node.weight]
        if node.bias is not None:
            exact = self.old.tensors[node.bias] / (x.scale * layer.steps.astype(np.float64))
            bias = np.rint(exact).astype(np.float32)
            if (np.abs(bias - exact) > _TOLERANCE * np.abs(exact)).any():
                return None
            layer = layer._replace(bias=bias)
        following = self._following(node)
        if following is not None and len(layer.steps) > 1:
            layer = _without_weights(layer, x.scale, following)
        reach = np.abs(layer.integers).reshape(len(bias), -1).sum(axis=1) * max(-x.low, x.high)
        if (reach + np.abs(layer.bias)).max() >= _SUMS:
            return None
        self.layers += 1
        stored = None if node.bias is None else self.new.tensor(layer.bias, self.old.wanted[node.bias])
        changes = {"weight": self.new.integer_tensor(layer.integers, name), "bias": stored}
        made = self.new.emit(type(node), (x.value,), **{**attributes_of(node), **changes})
        behind = 0 if isinstance(node, ops.Linear) else layer.integers.ndim - 2
        scales = layer.steps.reshape(-1, *(1,) * behind) if len(layer.steps) > 1 else float(layer.steps[0])
        return Sums(made, x.scale, scales, f"{name.removesuffix('.weight')}.scale")

    def _layer(self, node: ops.Conv | ops.Linear) -> QuantizedLayer | None:
        """Return a layer's weights as integers, if they are multiples of known steps, and no bias."""
        weight = self.old.tensors[node.weight]
        steps = self.old.steps(weight)
        if steps is None or len(steps) not in (1, len(weight)):
            return None
        across = steps.reshape(-1, *(1,) * (weight.ndim - 1))
        integers = np.rint(weight.astype(np.float64) / across)
        if np.abs(integers + 0.5).max() > 127.5 or not np.array_equal((integers * across).astype(np.float32), weight):
            return None
        return QuantizedLayer(integers, steps, np.zeros(len(weight), np.float32))

    def _following(self, node: Node) -> ops.Quantize | None:
        """Return the `Quantize` that alone reads a result."""
        readers = self._readers.get(len(self.old.inputs) + self.old.nodes.index(node), [])
        return readers[0] if len(readers) == 1 and isinstance(readers[0], ops.Quantize) else None

    def relu(self, node: ops.ReLU) -> QuantizedValue | Sums | None:
        found = self.known.get(node.values[0])
        if found is None:
            return None
        made = self.new.emit(ops.ReLU, (found.value,))
        if isinstance(found, Sums):
            return found._replace(value=made)
        return found._replace(value=made, low=max(found.low, 0), high=max(found.high, 0))

    def moved(self, node: Any) -> QuantizedValue | None:
        """Copy an operator whose result has elements of its operand, or zeros."""
        found = self.whole(node)
        if found is None or (isinstance(node, ops.Pad) and node.value) or getattr(node, "mode", "nearest") == "linear":
            return None
        low, high = (min(found.low, 0), max(found.high, 0)) if isinstance(node, ops.Pad) else (found.low, found.high)
        return QuantizedValue(self.copy(node, [found.value]), found.scale, low, high)

    def averaged(self, node: Any) -> Sums | None:
        found = self.whole(node)
        if found is None or getattr(node, "function", "mean") not in ("mean", "sum"):
            return None
        return Sums(self.copy(node, [found.value]), found.scale, 1.0, "scale")

    def joined(self, node: ops.Concat) -> QuantizedValue | None:
        parts = [self.known.get(operand) for operand in node.inputs if isinstance(operand, int)]
        wholes = [part for part in parts if isinstance(part, QuantizedValue)]
        if len(wholes) < len(node.inputs) or len({part.scale for part in wholes}) > 1:
            return None
        made = self.copy(node, [part.value for part in wholes])
        return QuantizedValue(
            made, wholes[0].scale, min(part.low for part in wholes), max(part.high for part in wholes)
        )

    def shifted(self, node: Node) -> QuantizedValue | None:
        """Copy the addition of a constant to integers that stand for themselves, or the subtraction of one."""
        found = self.whole(node)
        number = _constant(node)
        if found is None or found.scale != 1 or number is None or number != np.rint(number) or abs(number) > 1 << 16:
            return None
        shift = int(number) if isinstance(node, ops.Add) else -int(number)
        operands = [found.value if isinstance(operand, int) else self.operand(operand) for operand in node.inputs]
        made = self.copy(node, operands)
        return QuantizedValue(made, 1.0, found.low + shift, found.high + shift)

    def binary(self, node: ops.Binary) -> QuantizedValue | None:
        """Note the multiplication of integers by their scale, and the division by it."""
        found, number = self.whole(node), _constant(node)
        if found is None or number is None:
            return None
        value_first = isinstance(node.inputs[0], int)
        if node.function == "mul" and found.scale == 1 and 0 < number < np.inf:
            return found._replace(scale=number)
        if node.function == "div" and found.scale == number and value_first:
            return found._replace(scale=1.0)
        return self.shifted(node) if node.function == "sub" and value_first else None

    def unary(self, node: ops.Unary) -> QuantizedValue | None:
        found = self.whole(node)
        return found if found is not None and found.scale == 1 and node.function == "round" else None


def _constant(node: Node) -> float | None:
    """Return the constant that is the other of two operands, in float32."""
    constants = [operand for operand in node.inputs if isinstance(operand, float)]
    return float(np.float32(constants[0])) if len(node.inputs) == 2 and len(constants) == 1 else None


_HANDLERS: dict[type[Node], Callable[[_Rewriter, Any], QuantizedValue | Sums | None]] = {
    ops.Quantize: _Rewriter.quantize, ops.Conv: _Rewriter.layer, ops.Linear: _Rewriter.layer, ops.ReLU: _Rewriter.relu,
    **dict.fromkeys((ops.Reshape, ops.Flatten, ops.Transpose, ops.Slice, ops.Tile), _Rewriter.moved),
    **dict.fromkeys((ops.Pad, ops.MaxPool, ops.Resize), _Rewriter.moved),
    **dict.fromkeys((ops.AvgPool, ops.Reduce), _Rewriter.averaged),
    ops.Concat: _Rewriter.joined, ops.Add: _Rewriter.shifted, ops.Binary: _Rewriter.binary, ops.Unary: _Rewriter.unary,
}  # fmt: skip
