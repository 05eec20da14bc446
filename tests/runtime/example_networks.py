"""Small pruned networks of every shape, built in a few lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from dcformat_runtime import isa
from dcformat_runtime.backends import Backend
from dcformat_runtime.network import Network, lower
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine
from dcformat_runtime.program_record import Program

from dcformat import graph as ops
from dcformat.dense import from_dense
from dcformat.graph import Graph, Node, Preprocessing, Shape
from dcformat.model import Model, Tensor

BACKENDS: tuple[Backend, ...] = ("numba", "numpy")

Floats = npt.NDArray[np.float32]


class Net:
    """Collects nodes and random pruned weights; each method returns the number of the value it makes."""

    def __init__(self, *shape: int, seed: int = 0, density: float = 0.3) -> None:
        self.shape, self.density = shape, density
        self.random = np.random.default_rng(seed)
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []

    def add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes)

    def _weights(self, shape: Shape, density: float | None) -> tuple[str, str]:
        density = self.density if density is None else density
        fan_in = int(np.prod(shape[1:]))
        weight = self.random.standard_normal(shape) * np.sqrt(2 / (fan_in * max(density, 0.01)))
        weight[self.random.random(shape) >= density] = 0
        names = f"w{len(self.nodes)}", f"b{len(self.nodes)}"
        for name, values in zip(names, (weight, self.random.standard_normal(shape[0]) / 4), strict=True):
            self.tensors[name] = from_dense(name, values.astype(np.float32))
        return names

    def linear(self, source: int, out: int, features: int, density: float | None = None) -> int:
        return self.add(ops.Linear((source,), *self._weights((out, features), density)))

    def conv(
        self, source: int, out: int, channels: int, kernel: tuple[int, int], density: float | None = None, **more: Any
    ) -> int:
        shape = (out, channels // more.get("groups", 1), *kernel)
        more["padding_end"] = more.get("padding", (0, 0))
        return self.add(ops.Conv((source,), *self._weights(shape, density), **more))

    def model(self, preprocessing: Preprocessing | None = None) -> Model:
        return Model(self.tensors, Graph.sequential(self.shape, tuple(self.nodes), preprocessing))

    def network(self) -> Network:
        return lower(self.model())


def mlp(features: int = 40, *sizes: int, density: float = 0.3, seed: int = 0) -> Net:
    net, value = Net(features, density=density, seed=seed), 0
    for k, size in enumerate(sizes):
        value = net.linear(value, size, features)
        features = size
        if k < len(sizes) - 1:
            value = net.add(ops.ReLU((value,)))
    return net


def lenet(seed: int = 0, size: int = 12) -> Net:
    net = Net(1, size, size, seed=seed)
    value = net.add(ops.MaxPool((net.conv(0, 5, 1, (3, 3)),), (2, 2), (2, 2)))
    value = net.add(ops.ReLU((net.add(ops.MaxPool((net.conv(value, 7, 5, (2, 2)),), (2, 2), (2, 2))),)))
    features = 7 * (((size - 2) // 2 - 1) // 2) ** 2
    value = net.add(ops.ReLU((net.linear(net.add(ops.Flatten((value,))), 30, features),)))
    net.linear(value, 10, 30)
    return net


def fire(seed: int = 0, size: tuple[int, int] = (31, 27)) -> Net:
    """Squeeze, expand twice and join; planes of 15 x 13, the default, are not whole cache lines."""
    net = Net(3, *size, seed=seed)
    value = net.add(ops.ReLU((net.conv(0, 6, 3, (3, 3), stride=(2, 2)),)))
    value = net.add(ops.MaxPool((value,), (3, 3), (2, 2), ceil_mode=True))
    squeezed = net.add(ops.ReLU((net.conv(value, 4, 6, (1, 1), 1.0),)))
    left = net.add(ops.ReLU((net.conv(squeezed, 5, 4, (1, 1)),)))
    right = net.add(ops.ReLU((net.conv(squeezed, 6, 4, (3, 3), padding=(1, 1)),)))
    value = net.add(ops.Concat((left, right)))
    net.add(ops.Reduce((net.add(ops.ReLU((net.conv(value, 9, 11, (1, 1), padding=(1, 1)),))),), "mean", (1, 2)))
    return net


def residual(seed: int = 0, size: int = 9) -> Net:
    net = Net(3, size, size, seed=seed)
    value = net.add(ops.ReLU((net.conv(0, 6, 3, (3, 3), padding=(1, 1)),)))
    inner = net.add(ops.ReLU((net.conv(value, 6, 6, (3, 3), padding=(1, 1)),)))
    value = net.add(ops.ReLU((net.add(ops.Add((net.conv(inner, 6, 6, (3, 3), padding=(1, 1)), value))),)))
    inner = net.add(ops.ReLU((net.conv(value, 8, 6, (3, 3), stride=(2, 2), padding=(1, 1)),)))
    inner = net.conv(inner, 8, 8, (3, 3), padding=(1, 1))
    value = net.add(ops.ReLU((net.add(ops.Add((inner, net.conv(value, 8, 6, (1, 1), stride=(2, 2))))),)))
    net.add(ops.Softmax((net.linear(net.add(ops.Reduce((value,), "mean", (1, 2))), 10, 8),)))
    return net


def averaging(seed: int = 0) -> Net:
    net = Net(2, 11, 10, seed=seed)
    value = net.add(ops.AvgPool((0,), (3, 3), (2, 2), (1, 1), (1, 1), ceil_mode=True, count_include_pad=False))
    value = net.add(ops.ReLU((net.conv(value, 4, 2, (2, 3), dilation=(2, 1), padding=(1, 2)),)))
    value = net.add(ops.AvgPool((value,), (2, 2), (1, 1), (1, 1), (1, 1)))
    value = net.conv(value, 6, 4, (3, 3), groups=2)
    net.linear(net.add(ops.Flatten((value,))), 4, 210)
    return net


NETS: dict[str, Callable[[], Net]] = {
    "mlp": lambda: mlp(48, 33, 20, 10),
    "sparse mlp": lambda: mlp(32, 48, 24, 7, density=0.03),
    "lenet": lenet,
    "fire": fire,
    "residual": residual,
    "averaging": averaging,
}


def inputs(network: Network, batch: int, seed: int = 1, share: float = 1.0) -> Floats:
    """Return random inputs, of which `share` are nonzero."""
    random = np.random.default_rng(seed)
    shape = (batch, int(np.prod(network.input_shape)))
    return (random.standard_normal(shape) * (random.random(shape) < share)).astype(np.float32)


def engines(network: Network, *, threads: int = 1, exact: bool = False) -> tuple[KernelEngine, NumpyEngine]:
    return KernelEngine(network, threads, exact), NumpyEngine(network)


def error(found: Floats, expected: Floats) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def records(program: Program) -> list[np.ndarray]:
    """Return the records of the program for one image."""
    words = program.mem.view(np.int32)
    plan = program.choices[1].address + isa.PLAN_STAGES
    count, first = words[plan : plan + 2]
    return [words[first + isa.RECORD_WIDTH * k :][: isa.RECORD_WIDTH] for k in range(count)]


def check(network: Network) -> list[np.ndarray]:
    """Compare one image with NumPy, with one thread and with six; return the records for inexact sums."""
    x = inputs(network, 1)
    for exact in (True, False):
        engine = KernelEngine(network, 1, exact)
        found, expected = engine.run(x), NumpyEngine(network, exact).run(x)
        assert np.array_equal(found, expected) if exact else error(found, expected) < 1e-5
        shared = KernelEngine(network, 6, exact, hand_over=0.0001).run(x)
        assert np.array_equal(shared, found) if exact else error(shared, expected) < 1e-5
        assert np.array_equal(engine.run(x), found)  # the arena holds the values of the call before
    return records(engine.program(True))
