"""The backend that needs only NumPy: it computes dense products, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np

from dcformat import graph
from dcformat_runtime.network import Floats, Layer, Network, Sparse
from dcformat_runtime.numpy_backend import operators, ordered_operators

Step = Callable[[list[Floats]], Floats]


class NumpyEngine:
    """Runs a network with `operators`, or with `ordered_operators` for exact sums. It keeps no state between calls."""

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


def _step(layer: Layer, exact: bool, dense: Floats | None) -> Step:
    """Return a function that makes a layer's output from its inputs, pool and ReLU included."""
    compute = _operator(layer, exact, dense)
    pool = layer.pool
    if pool is None and not layer.relu:
        return compute

    def step(values: list[Floats]) -> Floats:
        out = compute(values)
        if pool is not None:
            out = operators.max_pool2d(out, pool)
        return operators.relu(out) if layer.relu else out

    return step


def _operator(layer: Layer, exact: bool, dense: Floats | None) -> Step:
    node, arithmetic = layer.node, ordered_operators if exact else operators
    match node:
        case graph.Linear() | graph.Conv2d():
            assert layer.weight is not None and layer.bias is not None  # network.lower loads both
            if dense is None:
                return _ordered(node, layer.weight, layer.bias)
            weight, bias = dense, layer.bias
            if isinstance(node, graph.Conv2d):
                return lambda v: operators.conv2d(v[0], weight, bias, node)
            return lambda v: operators.linear(v[0], weight, bias)
        case graph.MaxPool2d():
            return lambda v: operators.max_pool2d(v[0], node)
        case graph.AvgPool2d():
            return lambda v: arithmetic.avg_pool2d(v[0], node)
        case graph.GlobalAvgPool():
            return lambda v: arithmetic.global_avg_pool(v[0])
        case graph.GlobalMaxPool():
            return lambda v: operators.global_max_pool(v[0])
        case graph.ReLU():
            return lambda v: np.maximum(v[0], np.float32(0))
        case graph.Flatten():
            return lambda v: v[0].reshape(len(v[0]), layer.out_shape[0])
        case graph.Add():
            return operators.add
        case graph.Concat():
            return lambda v: np.concatenate(v, axis=1)
        case graph.Softmax():
            return lambda v: arithmetic.softmax(v[0])
    raise NotImplementedError(node.kind)


def _ordered(node: graph.Linear | graph.Conv2d, weight: Sparse, bias: Floats) -> Step:
    if isinstance(node, graph.Conv2d):
        return lambda v: ordered_operators.conv2d(v[0], weight, bias, node)
    return lambda v: ordered_operators.linear(v[0], weight, bias)
