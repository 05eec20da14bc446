"""ReLU, minima and maxima with constants join the layer before them, and become its bounds."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.bounds import Bound, bounds_of
from dcformat_runtime.network import lower
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

from dcformat.graph import Add, AvgPool, Binary, Conv, Flatten, Graph, MaxPool, Reduce, ReLU
from dcformat.model import Model
from tests.runtime.example_networks import BACKENDS, Net, error, inputs


def clip(net: Net, value: int, low: float, high: float) -> int:
    """Add a clip as importers write it."""
    value = net.add(ReLU((value,)) if low == 0 else Binary((value, float(low)), "maximum"))
    return net.add(Binary((value, float(high)), "minimum"))


def clipped_network(size: int = 9) -> Net:
    """Return a network with bounds on every kind of layer."""
    net = Net(3, size, size)
    value = clip(net, net.conv(0, 8, 3, (3, 3), 0.9, padding=(1, 1)), 0, 0.75)
    depthwise = clip(net, net.conv(value, 8, 8, (3, 3), 1.0, padding=(1, 1), groups=8), 0, 0.5)
    value = clip(net, net.add(Add((net.conv(depthwise, 8, 8, (1, 1)), value))), -0.25, 0.5)
    pooled = clip(net, net.add(MaxPool((value,), (2, 2), (2, 2))), 0.125, 0.25)
    value = clip(net, net.add(AvgPool((net.conv(pooled, 9, 8, (1, 1), 0.2),), (2, 2), (1, 1))), -0.5, 0.5)
    value = clip(net, net.add(Add((value, clip(net, value, -0.125, 0.125)))), -1, 0.375)
    value = clip(net, net.linear(net.add(Flatten((value,))), 40, 9 * (size // 2 - 1) ** 2), 0, 0.625)
    clip(net, net.linear(value, 5, 40), -0.375, 0.375)
    return net


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_bounds_hold_on_every_kind_of_layer(batch: int) -> None:
    network = clipped_network().network()
    x = inputs(network, batch)
    for exact in (False, True):
        found, expected = KernelEngine(network, 1, exact).run(x), NumpyEngine(network, exact).run(x)
        assert np.array_equal(found, expected) if exact else error(found, expected) < 1e-5
    assert expected.max() == np.float32(0.375) and expected.min() == np.float32(-0.375)


def test_a_clip_joins_the_layer_before_it() -> None:
    layers = clipped_network().network().layers
    kinds = [(layer.node.kind, layer.bounds) for layer in layers]
    assert kinds == [
        ("conv", (0.0, 0.75)),
        ("conv", (0.0, 0.5)),
        ("conv", (-0.25, 0.5)),
        ("max_pool", (0.125, 0.25)),
        ("conv", (-inf, inf)),
        ("avg_pool", (-inf, inf)),
        ("bound", (-0.5, 0.5)),
        ("bound", (-0.125, 0.125)),
        ("add", (-1.0, 0.375)),
        ("flatten", (-inf, inf)),
        ("linear", (0.0, 0.625)),
        ("linear", (-0.375, 0.375)),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_are_applied_in_their_order(backend: str) -> None:
    net = Net(4)
    value = net.linear(0, 4, 4, 1.0)
    for function, bound in (("maximum", 1.0), ("minimum", -2.0), ("maximum", -3.0)):
        value = net.add(Binary((value, bound), function))
    session = Session.from_model(net.model(), backend=backend)  # type: ignore[arg-type]
    assert session(np.ones((2, 4), np.float32)).tolist() == [[-2.0] * 4] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_of_the_input_leaves_the_input_as_it_was(backend: str) -> None:
    net = Net(2, 3, 3)
    net.add(Reduce((clip(net, 0, -1, 1),), "max", (1, 2)))
    x = np.arange(-9, 9, dtype=np.float32).reshape(1, 2, 3, 3) / 4
    before = x.copy()
    session = Session.from_model(Model({}, Graph.sequential((2, 3, 3), net.nodes)), backend=backend)  # type: ignore[arg-type]
    assert session(x).tolist() == [[-0.25, 1.0]]
    assert np.array_equal(x, before)


def test_other_operators_are_no_bounds() -> None:
    assert bounds_of(ReLU((3,))) == (0.0, inf)
    assert bounds_of(Binary((3, 0.1), "minimum")) == (-inf, float(np.float32(0.1)))
    assert bounds_of(Binary((0.5, 3), "maximum")) == (0.5, inf)
    for node in (
        Binary((3, 4), "minimum"),
        Binary((3, 3), "maximum"),
        Binary((3, "bound"), "maximum"),
        Binary((3, nan), "minimum"),
        Binary((3, 1.0), "mul"),
        Conv((3,), "w", None),
        Bound((3,)),
    ):
        assert bounds_of(node) is None


def test_a_chain_with_relu6_is_one_program() -> None:
    network = lower(clipped_network().model())
    engine = KernelEngine(network, 1, False)
    names = [name for name, _ in engine.profile(inputs(network, 1))]
    assert names[0] == "input" and names[-1] == "output"
