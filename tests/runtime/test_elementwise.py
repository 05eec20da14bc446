"""Activations and other elementwise operators run inside the program of a network, as one layer for each chain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, nan

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.elementwise_layers import Elementwise, fits_layers
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

from dcformat.graph import Add, Binary, Flatten, Node, Reduce, ReLU, Unary, Where
from tests.runtime.example_networks import BACKENDS, Net, error, inputs


def hard_swish(net: Net, x: int) -> int:
    gate = net.add(Add((net.add(Binary((x, 1 / 6), "mul")), 0.5)))
    gate = net.add(ReLU((net.add(Binary((gate, 1.0), "minimum")),)))
    return net.add(Binary((x, gate), "mul"))


def silu(net: Net, x: int) -> int:
    return net.add(Binary((x, net.add(Unary((x,), "sigmoid"))), "mul"))


def gelu(net: Net, x: int) -> int:
    half = net.add(Binary((net.add(Unary((net.add(Binary((x, 2**-0.5), "mul")),), "erf")), 0.5), "mul"))
    return net.add(Binary((x, net.add(Add((half, 0.5)))), "mul"))


def leaky(net: Net, x: int) -> int:
    negative = net.add(Binary((x, 0.0), "less"))
    return net.add(Where((negative, net.add(Binary((x, 0.1), "mul")), x)))


def squeezed(net: Net, x: int, channels: int) -> int:
    """Scale each channel by a gate that depends on the means of all channels."""
    means = net.add(Reduce((x,), "mean", (1, 2), keepdims=True))
    gate = net.add(Unary((net.conv(means, channels, channels, (1, 1), 1.0),), "sigmoid"))
    return net.add(Binary((gate, x), "mul"))


def image_network(height: int, width: int) -> Net:
    net = Net(3, height, width)
    value = hard_swish(net, net.conv(0, 8, 3, (3, 3), 0.9, padding=(1, 1)))
    value = silu(net, net.conv(value, 8, 8, (3, 3), 1.0, padding=(1, 1), groups=8))
    value = squeezed(net, value, 8)
    value = net.add(Add((gelu(net, net.conv(value, 8, 8, (1, 1))), value)))
    value = leaky(net, net.conv(value, 5, 8, (3, 3), padding=(1, 1)))
    value = silu(net, net.linear(net.add(Flatten((value,))), 21, 5 * height * width))
    net.add(Unary((net.linear(value, 4, 21),), "tanh"))
    return net


def input_network() -> Net:
    """Return a network that begins with an activation; the input's channels are not filled up."""
    net = Net(3, 5, 7)
    net.conv(silu(net, 0), 4, 3, (3, 3), padding=(1, 1))
    return net


def vector_network() -> Net:
    net = Net(70)
    net.linear(gelu(net, net.linear(hard_swish(net, net.linear(0, 300, 70)), 133, 300)), 9, 133)
    return net


NETWORKS: dict[str, Callable[[], Net]] = {
    "7 x 5": partial(image_network, 7, 5),
    "1 x 1": partial(image_network, 1, 1),
    "16 x 32": partial(image_network, 16, 32),
    "input": input_network,
    "vector": vector_network,
}


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("name", NETWORKS)
def test_activations_are_computed_inside_the_program(name: str, batch: int) -> None:
    network = NETWORKS[name]().network()
    x = inputs(network, batch)
    for exact in (False, True):
        found, expected = KernelEngine(network, 1, exact).run(x), NumpyEngine(network, exact).run(x)
        assert np.array_equal(found, expected) if exact else error(found, expected) < 1e-5


def test_threads_share_the_elements() -> None:
    network = image_network(16, 32).network()
    x = inputs(network, 1)
    assert np.array_equal(KernelEngine(network, 6, True, hand_over=0.0001).run(x), NumpyEngine(network, True).run(x))


def test_a_chain_is_one_layer() -> None:
    layers = image_network(7, 5).network().layers
    kinds = [layer.node.kind for layer in layers]
    assert kinds == [
        "conv", "elementwise", "conv", "elementwise", "reduce", "conv", "elementwise", "elementwise", "conv",
        "elementwise", "conv", "elementwise", "elementwise", "flatten", "linear", "elementwise", "linear",
        "elementwise",
    ]  # fmt: skip
    # A gate is a separate layer, because its shape differs from that of the value that it scales.
    assert (layers[6].out_shape, layers[7].out_shape) == ((8, 1, 1), (8, 7, 5))
    sizes = [len(layer.node.nodes) for layer in layers if isinstance(layer.node, Elementwise)]
    # Hard swish, SiLU, gate, scale, GELU and a sum, leaky ReLU (whose comparison nothing else continues), SiLU, tanh.
    assert sizes == [5, 2, 1, 1, 6, 1, 2, 2, 1]


def test_a_network_with_activations_is_no_graph_of_pieces() -> None:
    session = Session.from_model(image_network(7, 5).model())
    assert isinstance(session, Session) and session.output_shape == (4,)
    names = [layer.name for layer in session.profile(np.zeros((1, 3, 7, 5), np.float32))]
    assert "w0" in names


SPECIAL = np.array([[nan, inf, -inf, -0.0, 0.0, 2e-30, -1.5, 3e38, -3e38, 88.9, -80.0, 0.25]], np.float32)


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "exp", "erf", "neg", "abs", "sign", "floor", "sqrt", "log"])
def test_special_numbers_keep_their_meaning(function: str) -> None:
    """Identity weights pass each number on, except that they add 0."""
    net = Net(12)
    value = net.linear(0, 12, 12, 1.0)
    net.add(Unary((value,), function))
    network = net.network()
    layer = network.layers[0]
    assert layer.weight is not None and layer.bias is not None
    layer.weight.values[:] = np.eye(12, dtype=np.float32).reshape(-1)
    layer.bias[:] = 0
    x = np.where(np.isfinite(SPECIAL), SPECIAL, np.float32(0.5))
    expected = NumpyEngine(network, True).run(x)
    with np.errstate(all="ignore"):
        assert np.array_equal(KernelEngine(network, 1, True).run(x), expected, equal_nan=True)


@pytest.mark.parametrize("batch", [1, 20])
def test_activations_of_special_inputs(batch: int) -> None:
    """NaN, infinities and signed zeros go through an activation of the input as through NumPy."""
    net = Net(1, 3, 4)
    value = net.add(Binary((net.add(Unary((0,), "sigmoid")), 0), "mul"))
    value = leaky(net, value)
    net.conv(value, 1, 1, (1, 1), 1.0)
    network = net.network()
    layer = network.layers[-1]
    assert layer.weight is not None and layer.bias is not None
    layer.weight.values[:], layer.bias[:] = 1, 0
    x = np.repeat(SPECIAL, batch, axis=0)
    found, expected = KernelEngine(network, 1, True).run(x), NumpyEngine(network, True).run(x)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isnan(found[:, 0]).all() and (found[:, 1] == inf).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_chains_are_cut(backend: str) -> None:
    net = Net(2)
    value = net.linear(0, 2, 2, 1.0)
    for _ in range(150):
        value = net.add(Add((value, 1.0)))
    session = Session.from_model(net.model(), backend=backend)  # type: ignore[arg-type]
    plain = Session.from_model(_linear(net).model(), backend=backend)  # type: ignore[arg-type]
    x = np.array([[0.5, -2.0]], np.float32)
    assert np.allclose(session(x), plain(x) + 150)
    kinds = [layer.node.kind for layer in net.network().layers]
    assert kinds == ["linear"] + ["elementwise"] * 3


def _linear(net: Net) -> Net:
    """Return the first layer alone."""
    alone = Net(2)
    alone.tensors, alone.nodes = net.tensors, net.nodes[:1]
    return alone


def test_only_whole_values_and_channels_fit_layers() -> None:
    out = (8, 4, 6)
    mul: Node = Binary((1, 2), "mul")
    assert fits_layers(mul, [out, (8, 1, 1)], out) and fits_layers(mul, [(8, 1, 1), out], out)
    assert not fits_layers(mul, [out, (1, 4, 6)], out)
    assert not fits_layers(mul, [out, (1, 1, 6)], out)
    assert not fits_layers(Binary((1, "scale"), "mul"), [out], out)
    assert not fits_layers(Binary((1, 0.5), "pow"), [out], out)
    assert not fits_layers(Unary((1,), "sin"), [out], out)
    assert fits_layers(Binary((1, 2.0), "pow"), [out], out)
    assert fits_layers(mul, [(8,), (8,)], (8,)) and not fits_layers(mul, [(8,), (1,)], (8,))
