"""The backend that needs only NumPy: it computes dense products, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import numpy as np

from dcformat.graph import AvgPool, Conv, Linear, Operand, Reduce, Shape, Softmax
from dcformat_runtime.bounds import UNBOUNDED, Bound
from dcformat_runtime.elementwise_layers import Elementwise
from dcformat_runtime.network import Layer, Network
from dcformat_runtime.numpy_backend import ordered_elements, ordered_operators, windows
from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand, evaluate
from dcformat_runtime.weight_matrices import Floats

LayerFunction = Callable[[list[Floats]], Floats]


class NumpyEngine:
    """Runs a network with `evaluate`, or with `ordered_operators` for exact sums. It keeps no state between calls."""

    name = "numpy"

    def __init__(self, network: Network, exact: bool = False) -> None:
        self._network = network
        self._shape = network.input_shape
        dense: dict[int, Floats] = {}  # layers that share a weight share its dense form
        for weight in (layer.weight for layer in network.layers if not exact):
            if weight is not None and id(weight) not in dense:
                dense[id(weight)] = weight.dense()
        self._steps = [_step(layer, exact, dense.get(id(layer.weight))) for layer in network.layers]
        last = {value: k for k, layer in enumerate(network.layers) for value in layer.inputs}
        self._done: list[list[int]] = [[] for _ in network.layers]
        for value, k in last.items():
            if value:
                self._done[k].append(value)

    def run(self, x: Floats) -> Floats:
        """Return the results ``(batch, outputs)`` of float32 ``(batch, features)``; `x` is not changed."""
        values = {0: x.reshape(len(x), *self._shape)}
        with np.errstate(all="ignore"):  # infinities and NaN are not errors here
            for _ in self._walk(values):
                pass
        out = values[self._network.output].reshape(len(x), self._network.outputs)
        return out.copy() if np.may_share_memory(out, x) else out

    def profile(self, x: Floats) -> list[tuple[str, float]]:
        """Return each layer's name and seconds."""
        times = []
        start = perf_counter()
        with np.errstate(all="ignore"):
            for layer in self._walk({0: x.reshape(len(x), *self._shape)}):
                now = perf_counter()
                times.append((layer.name, now - start))
                start = now
        return times

    def _walk(self, values: dict[int, Floats]) -> Iterator[Layer]:
        """Compute each layer into `values`, and drop each value after its last use."""
        for layer, step, done in zip(self._network.layers, self._steps, self._done, strict=True):
            values[layer.output] = step([values[v] for v in layer.inputs])
            for value in done:
                del values[value]
            yield layer


def _step(layer: Layer, exact: bool, dense: Floats | None) -> LayerFunction:
    """Return a function that makes a layer's output from its inputs; pool, residual and bounds are included."""
    compute = _ordered(layer) if exact else None
    compute = compute or _plain(layer, dense)
    pool = layer.pool

    def step(values: list[Floats]) -> Floats:
        out = compute(values)
        if pool is not None:
            out = windows.max_pool(pool, out)
        if layer.residual is not None:
            out += values[1]
        if layer.bounds != UNBOUNDED:
            low, high = np.array(layer.bounds, np.float32)
            np.minimum(np.maximum(out, low, out=out), high, out=out)
        return out

    return step


def _plain(layer: Layer, dense: Floats | None) -> LayerFunction:
    node, shape = layer.node, layer.conv_shape or layer.out_shape
    if isinstance(node, Bound):
        return lambda values: values[0].copy()
    if isinstance(node, Elementwise):
        return lambda values: _elementwise(node, values, shape, False)
    tensors: dict[str, Floats] = {}
    if isinstance(node, (Linear, Conv)):
        assert dense is not None and layer.bias is not None  # network.lower loads both
        tensors = {node.weight: dense} | ({node.bias: layer.bias} if node.bias is not None else {})
    return lambda values: evaluate(node, [NumpyOperand(value, True) for value in values], tensors, shape)


def _ordered(layer: Layer) -> LayerFunction | None:
    """Return the ordered form of a layer's operator, or None if it has only one form."""
    node, weight, bias = layer.node, layer.weight, layer.bias
    match node:
        case Linear() if weight is not None and bias is not None:
            return lambda v: ordered_operators.linear(v[0], weight, bias)
        case Conv() if weight is not None and bias is not None:
            return lambda v: ordered_operators.conv(v[0], weight, bias, node)
        case AvgPool():
            return lambda v: ordered_operators.avg_pool(v[0], node)
        case Elementwise():
            return lambda v: _elementwise(node, v, layer.out_shape, True)
        case Reduce(function="mean"):
            return lambda v: ordered_operators.global_avg_pool(v[0]).reshape(len(v[0]), *layer.out_shape)
        case Softmax():
            return lambda v: ordered_operators.softmax(v[0])
    return None


def _elementwise(node: Elementwise, values: Sequence[Floats], shape: Shape, exact: bool) -> Floats:
    """Compute the operators of an elementwise layer one by one; in exact form, by the steps of the kernels."""
    known = [NumpyOperand(value, True) for value in values]
    for each in node.nodes:
        operands = [_operand(operand, known) for operand in each.inputs]
        made = ordered_elements.elements(each, operands, len(shape)) if exact else None
        known.append(NumpyOperand(evaluate(each, operands, {}, shape) if made is None else made, True))
    return known[-1].array


def _operand(operand: Operand, known: Sequence[NumpyOperand]) -> NumpyOperand:
    return known[operand] if isinstance(operand, int) else NumpyOperand(np.array(operand, np.float32), False)
