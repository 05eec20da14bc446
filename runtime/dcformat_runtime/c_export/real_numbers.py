"""Rewrites a network of integers with the numbers that they stand for; fixed point derives its own codes from these."""

from __future__ import annotations

import numpy as np

from dcformat import graph as ops
from dcformat.dense import from_dense
from dcformat.errors import GraphError
from dcformat.graph import Graph, Node
from dcformat.model import Model, Tensor
from dcformat.records import replace
from dcformat_runtime.as_floats import to_float32

#: Operators whose results have the scale of their operand.
_KEEPING = (ops.AvgPool, ops.Flatten, ops.MaxPool, ops.Reduce, ops.ReLU, ops.Reshape, ops.Transpose)


def with_real_numbers(model: Model) -> Model:
    """Return a network with `Quantize` in place of `Requantize`, and the weights and biases that belong to it."""
    assert model.graph is not None
    if not any(isinstance(node, ops.Requantize) for node in model.graph.nodes):
        return model
    return _Rewriter(model, model.graph).rewritten()


class _Rewriter:
    """Copies operators. Values from `Requantize` on have a scale, and are copied as the numbers they stand for.

    `layers` are the results of layers that are copied with real weights.
    """

    def __init__(self, model: Model, graph: Graph) -> None:
        self.model, self.graph = model, graph
        self.tensors: dict[str, Tensor] = dict(model.tensors)
        self.nodes: list[Node] = []
        self.made = dict(enumerate(range(len(graph.inputs))))
        self.scales: dict[int, float] = {}
        self.layers: set[int] = set()

    def rewritten(self) -> Model:
        """Return the network."""
        first = len(self.graph.inputs)
        for number, node in enumerate(self.graph.nodes, first):
            self.made[number] = self._copied(number, node)
        outputs = tuple(replace(output, value=self._whole(output.value)) for output in self.graph.outputs)
        graph = replace(self.graph, nodes=tuple(self.nodes), outputs=outputs)
        return replace(self.model, graph=graph, tensors=self.tensors)

    def _emit(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.graph.inputs) + len(self.nodes) - 1

    def _whole(self, number: int) -> int:
        """Return a value as the whole numbers that it held."""
        scale = self.scales.get(number)
        if scale is None:
            return self.made[number]
        return self._emit(ops.Unary((self._emit(ops.Binary((self.made[number], scale), "div")),), "round"))

    def _copied(self, number: int, node: Node) -> int:
        source = node.values[0]
        scale = self.scales.get(source)
        if isinstance(node, ops.Conv | ops.Linear) and (following := self._following(number)) is not None:
            self.layers.add(number)
            return self._layer(node, following)
        if isinstance(node, ops.Requantize):
            return self._rounded(number, node)
        if isinstance(node, _KEEPING) and scale is not None:
            self.scales[number] = scale
            return self._emit(replace(node, inputs=(self.made[source],)))
        if isinstance(node, ops.Binary) and node.function == "mul" and node.inputs == (source, scale):
            return self.made[source]
        operands = [self._whole(operand) if isinstance(operand, int) else operand for operand in node.inputs]
        return self._emit(replace(node, inputs=tuple(operands)))

    def _following(self, number: int) -> ops.Requantize | None:
        """Return the `Requantize` that alone reads a value."""
        readers = [node for node in self.graph.nodes if number in node.values]
        return readers[0] if len(readers) == 1 and isinstance(readers[0], ops.Requantize) else None

    def _scales(self, node: ops.Requantize) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        scale = node.inputs[1]
        if isinstance(scale, int):
            raise GraphError("requantize", got="scales that the network computes", expected="constant ones")
        numbers = np.array(scale) if isinstance(scale, float) else self.model.tensors[scale].to_dense()
        return np.asarray(numbers, np.float64).reshape(-1)

    def _layer(self, node: ops.Conv | ops.Linear, following: ops.Requantize) -> int:
        """Copy a layer with the weights and the bias that its integers stand for."""
        operand = self.made[node.values[0]]
        if node.values[0] not in self.scales:
            operand = self._emit(ops.Binary((operand, following.input_scale), "mul"))
        scales, weight = self._scales(following), self.model.tensors[node.weight]
        real = to_float32(weight, weight.to_dense()) * scales.reshape(-1, *(1,) * (len(weight.shape) - 1))
        self.tensors[node.weight] = from_dense(node.weight, real.astype(np.float32))
        if node.bias is not None:
            bias = self.model.tensors[node.bias].to_dense() * scales * following.input_scale
            self.tensors[node.bias] = from_dense(node.bias, bias.astype(np.float32))
        return self._emit(replace(node, inputs=(operand,)))

    def _rounded(self, number: int, node: ops.Requantize) -> int:
        source = node.values[0]
        operand, scales = self.made[source], self._scales(node)
        if source not in self.layers and source not in self.scales:
            if len(scales) > 1:
                raise GraphError("requantize", got="a scale for each channel", expected="one, or a layer before it")
            factor = float(np.float32(node.input_scale) * np.float32(scales[0]))
            operand = operand if factor == 1 else self._emit(ops.Binary((operand, factor), "mul"))
        self.scales[number] = node.output_scale
        zero = -128 - node.low if node.high - node.low <= 255 else 0
        return self._emit(ops.Quantize((operand,), node.output_scale, zero, node.low + zero, node.high + zero))
