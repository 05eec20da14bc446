"""Compares the compiled kernel with the NumPy oracles: every operator, every kind of plan, any batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import cpu
from dcformat_runtime.compile import choices
from dcformat_runtime.network import lower
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat.graph import Add, AvgPool, Concat, Flatten, MaxPool, Reduce, ReLU, Softmax
from tests.format.strategies import COMPILED
from tests.runtime.example_networks import NETS, Net, engines, error, fire, inputs, lenet, mlp, residual

TOLERANCE = 1e-5


@pytest.mark.parametrize("batch", [1, 2, 9, 17, 70])
@pytest.mark.parametrize("name", NETS)
def test_networks_agree_with_the_oracle(name: str, batch: int) -> None:
    network = NETS[name]().network()
    kernel, oracle = engines(network)
    x = inputs(network, batch)
    before = x.copy()
    assert error(kernel.run(x), oracle.run(x)) < TOLERANCE
    assert np.array_equal(x, before)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_mostly_zero_inputs(density: float, share: float) -> None:
    """The result is the same for dense columns of the nonzero inputs and for gathers."""
    network = mlp(64, 40, 20, 5, density=density).network()
    kernel, oracle = engines(network)
    x = inputs(network, 1, share=share)
    assert error(kernel.run(x), oracle.run(x)) < TOLERANCE


def test_a_layer_without_weights_is_its_bias() -> None:
    network = mlp(16, 20, 3, density=0.0).network()
    kernel, oracle = engines(network)
    for batch in (1, 5):
        x = inputs(network, batch)
        assert error(kernel.run(x), oracle.run(x)) < TOLERANCE


@settings(max_examples=12)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    pick = data.draw
    groups = pick(st.sampled_from([1, 1, 2]))
    channels, out = groups * pick(st.integers(1, 3)), groups * pick(st.integers(1, 3))
    kernel = pick(st.integers(1, 4)), pick(st.integers(1, 4))
    dilation = pick(st.integers(1, 2)), pick(st.integers(1, 2))
    stride = pick(st.integers(1, 3)), pick(st.integers(1, 3))
    padding = pick(st.integers(0, 3)), pick(st.integers(0, 3))
    size = tuple(pick(st.integers(d * (k - 1) + 1, d * (k - 1) + 18)) for k, d in zip(kernel, dilation, strict=True))
    net = Net(channels, *size, seed=pick(st.integers(0, 9)), density=pick(st.sampled_from([0.1, 0.5, 1.0])))
    net.conv(0, out, channels, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if pick(st.booleans()):
        net.add(ReLU((len(net.nodes),)))
    _compare(net, pick(st.sampled_from([1, 3, 18])))


@settings(max_examples=16)
@given(st.data())
def test_dense_convolutions(data: st.DataObject) -> None:
    """Rows are computed by fours, over one to six blocks, in one run of columns or in several."""
    pick = data.draw
    channels, out = pick(st.sampled_from([1, 3, 30])), pick(st.integers(4, 37))
    kernel = pick(st.integers(1, 4)), pick(st.integers(1, 4))
    stride, padding = pick(st.integers(1, 3)), (pick(st.integers(0, 3)), pick(st.integers(0, 3)))
    size = pick(st.integers(4, 18)), pick(st.integers(4, 18))
    net = Net(channels, *size, seed=pick(st.integers(0, 9)), density=pick(st.sampled_from([0.8, 1.0])))
    how: dict[str, Any] = {"stride": (stride, stride), "padding": padding}
    net.conv(0, out, channels, kernel, **how)
    if pick(st.booleans()):
        net.add(Add((1, net.conv(0, out, channels, kernel, **how))))
    if pick(st.booleans()):
        net.add(ReLU((len(net.nodes),)))
    network, batch, max_blocks = net.network(), pick(st.sampled_from([1, 3, 18])), pick(st.sampled_from([1, 12]))
    x = inputs(network, batch)
    for exact in (False, True):
        found = KernelEngine(network, 1, exact, vectors=_registers(max_blocks)).run(x)
        expected = NumpyEngine(network, exact).run(x)
        assert np.array_equal(found, expected) if exact else error(found, expected) < TOLERANCE


@settings(max_examples=24)
@given(st.data())
def test_depthwise_convolutions(data: st.DataObject) -> None:
    """Channels are computed alone, with padding as wide as the kernel or wider, and lines of any width."""
    pick = data.draw
    channels = pick(st.integers(2, 5))
    out = channels * pick(st.integers(1, 2))
    kernel = pick(st.integers(1, 5)), pick(st.integers(1, 5))
    stride = pick(st.integers(1, 3)), pick(st.integers(1, 3))
    dilation = pick(st.integers(1, 2)), pick(st.integers(1, 2))
    padding = pick(st.integers(0, 6)), pick(st.sampled_from([0, 1, 2, 3, 6, 70]))
    size = tuple(pick(st.integers(d * (k - 1) + 1, d * (k - 1) + 70)) for k, d in zip(kernel, dilation, strict=True))
    net = Net(channels, *size, seed=pick(st.integers(0, 9)), density=pick(st.sampled_from([0.3, 1.0])))
    how: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    net.conv(0, out, channels, kernel, **how)
    if pick(st.booleans()):
        net.add(Add((1, net.conv(0, out, channels, kernel, **how))))
    if pick(st.booleans()):
        net.add(ReLU((len(net.nodes),)))
    network, max_blocks = net.network(), pick(st.sampled_from([1, 12]))
    x = inputs(network, pick(st.sampled_from([1, 2])))
    for exact in (False, True):
        found = KernelEngine(network, 1, exact, vectors=_registers(max_blocks)).run(x)
        expected = NumpyEngine(network, exact).run(x)
        assert np.array_equal(found, expected) if exact else error(found, expected) < TOLERANCE


@settings(max_examples=12)
@given(st.data())
def test_residuals(data: st.DataObject) -> None:
    """A convolution adds another value to its result, for any places of the two."""
    pick = data.draw
    channels, out = pick(st.integers(1, 3)), pick(st.integers(1, 20))
    size = pick(st.integers(3, 18)), pick(st.integers(3, 30))
    kernel, stride = pick(st.sampled_from([1, 3])), pick(st.integers(1, 2))
    net = Net(channels, *size, seed=pick(st.integers(0, 9)), density=pick(st.sampled_from([0.1, 0.5, 1.0])))
    how: dict[str, Any] = {"stride": (stride, stride), "padding": (kernel // 2, kernel // 2)}
    ways = [net.conv(0, out, channels, (kernel, kernel), **how) for _ in range(2)]
    value = net.add(Add(tuple(pick(st.permutations(ways)))))
    if pick(st.booleans()):
        value = net.add(ReLU((value,)))
    end = pick(st.sampled_from(["image", "vector", "joined", "pooled"]))
    height, width = ((s - 1) // stride + 1 for s in size)
    if end == "vector":
        net.linear(net.add(Flatten((value,))), 5, out * height * width)
    elif end == "joined":
        net.add(Concat((value, ways[0])))
    elif end == "pooled":
        net.add(MaxPool((value,), (2, 2), (2, 2), ceil_mode=True))
    assert [layer.residual for layer in net.network().layers[:2]] == [None, 1]
    _compare(net, pick(st.sampled_from([1, 3, 18])))


def test_sums_that_no_convolution_takes() -> None:
    """The other operand is the input, or both are the same, or others read the convolution's result as well."""
    net = Net(3, 6, 7)
    first = net.add(Add((net.conv(0, 3, 3, (1, 1)), 0)))
    second = net.conv(first, 3, 3, (1, 1))
    third = net.add(Add((second, second)))
    fourth = net.conv(third, 3, 3, (1, 1))
    net.add(Add((net.add(ReLU((net.conv(fourth, 3, 3, (1, 1)),))), fourth)))
    assert all(layer.residual is None for layer in net.network().layers)
    _compare(net, 1)
    _compare(net, 18)


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("padding", [1, 2, 3, 5, 9])
def test_padding_wider_than_the_kernel(padding: int, kernel: int) -> None:
    """A copied line must not write into the next channel."""
    for width in range(3, 14):
        for height in (kernel, kernel + 1, kernel + 9):
            net = Net(3, height, width, density=1.0)
            net.conv(0, 2, 3, (kernel, kernel), padding=(0, padding))
            _compare(net, 1)


@pytest.mark.parametrize("height", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [17, 33, 50])
def test_few_wide_lines(width: int, height: int) -> None:
    """Here the lines of an image's copy are filled up to blocks, even if they are few."""
    net = Net(1, height, width, density=1.0)
    net.conv(0, 2, 1, (4, 1), padding=(2, 0))
    _compare(net, 1)


@pytest.mark.parametrize("max_blocks", [1, 3, 6, 12])
@pytest.mark.parametrize("channels", [1, 20])
@pytest.mark.parametrize("size", [(4, 5), (8, 7), (7, 12), (6, 26)])
def test_pooled_lines_of_many_images(size: tuple[int, int], channels: int, max_blocks: int) -> None:
    """Few columns are pooled at a time if there are many channels, otherwise as many as registers hold."""
    net = Net(channels, *size)
    net.conv(0, 3, channels, (3, 3), padding=(1, 0))
    net.add(MaxPool((len(net.nodes),), (2, 2), (2, 2)))
    net.add(ReLU((len(net.nodes),)))
    network = net.network()
    x = inputs(network, 18)
    assert (
        error(
            KernelEngine(network, 1, False, vectors=_registers(max_blocks)).run(x),
            NumpyEngine(network).run(x),
        )
        < TOLERANCE
    )


@settings(max_examples=12)
@given(st.data())
def test_pools(data: st.DataObject) -> None:
    pick = data.draw
    kernel = pick(st.integers(1, 4)), pick(st.integers(1, 4))
    stride = pick(st.integers(1, 3)), pick(st.integers(1, 3))
    padding = tuple(pick(st.integers(0, k // 2)) for k in kernel)
    size = tuple(pick(st.integers(k, k + 20)) for k in kernel)
    net = Net(2, *size)
    if pick(st.booleans()):
        net.conv(0, 2, 2, (1, 1), 1.0)
    kind = pick(st.sampled_from([MaxPool, AvgPool]))
    net.add(kind((len(net.nodes),), kernel, stride, padding, padding, ceil_mode=pick(st.booleans())))
    if kind is MaxPool and pick(st.booleans()):
        net.add(ReLU((len(net.nodes),)))
    _compare(net, pick(st.sampled_from([1, 3, 18])))


@pytest.mark.parametrize("max_blocks", [1, 2, 3, 6, 12])
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("height", [4, 7, 8, 10])
@pytest.mark.parametrize("width", [5, 7, 8, 24])
def test_lines_of_half_blocks(width: int, height: int, halves: bool, max_blocks: int) -> None:
    """Lines of outputs are one or three half blocks, with or without pooling in registers."""
    stride, padding = (2, (1, 2)) if height == 8 else (1, (0, 0))
    for pools in (False, True):
        net = Net(2, stride * height - 2 * padding[0] + 2, stride * width - 2 * padding[1] + 2, density=0.5)
        value = net.conv(0, 5, 2, (3, 3), stride=(stride, stride), padding=padding)
        if pools:
            value = net.add(MaxPool((value,), (2, 2), (2, 2)))
        net.add(ReLU((value,)))
        network = net.network()
        x = inputs(network, 1)
        assert (
            error(
                KernelEngine(network, 1, False, vectors=cpu.Vectors(max_blocks, cpu.vectors().permutes, halves)).run(x),
                NumpyEngine(network).run(x),
            )
            < TOLERANCE
        )


def _registers(max_blocks: int) -> cpu.Vectors:
    return cpu.vectors()._replace(max_blocks=max_blocks)


def _compare(net: Net, batch: int) -> None:
    network = net.network()
    kernel, oracle = engines(network)
    x = inputs(network, batch)
    assert error(kernel.run(x), oracle.run(x)) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_values_that_many_layers_read(batch: int) -> None:
    """Many layers read the input and a hidden value, and the result is an image."""
    net = Net(3, 5, 7)
    first = net.add(Add((0, net.conv(0, 3, 3, (3, 3), padding=(1, 1)), 0)))
    second = net.add(ReLU((first,)))
    joined = net.add(Concat((0, first, second)))
    net.add(Concat((joined, net.add(ReLU((0,))), net.conv(joined, 4, 9, (1, 1)))))
    _compare(net, batch)


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_vectors_of_all_kinds(batch: int) -> None:
    net = Net(4, 6, 5)
    flat = net.add(Flatten((0,)))
    pooled = net.add(Reduce((net.conv(0, 5, 4, (2, 2)),), "max", (1, 2)))
    both = net.add(Concat((flat, pooled)))
    hidden = net.add(ReLU((net.linear(both, 19, 125),)))
    net.add(Softmax((net.add(Add((net.linear(hidden, 6, 19), net.linear(both, 6, 125)))),)))
    _compare(net, batch)


@pytest.mark.parametrize("batch", [1, 20])
def test_an_image_flattened_at_once(batch: int) -> None:
    net = Net(1, 5, 5)
    net.linear(net.add(ReLU((net.add(Flatten((0,))),))), 3, 25)
    _compare(net, batch)


def test_wide_layers_and_many_columns() -> None:
    """There are more columns than 16 bits can number, runs of columns, and more rows than registers hold."""
    net = mlp(70_000, 24, density=0.002)
    for batch in (1, 8):
        _compare(net, batch)


def test_column_runs_resume_their_sums() -> None:
    _compare(mlp(400, 6, density=0.9), 64)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize(
    "make", [partial(lenet, size=320), partial(fire, size=(240, 220)), partial(residual, size=110)]
)
def test_convolutions_that_are_too_large_for_lanes(make: Callable[[], Net]) -> None:
    network = make().network()
    kernel, oracle = engines(network)
    assert {plan.lanes for plan in kernel.program(False).choices} == {1}
    x = inputs(network, 11)
    assert error(kernel.run(x), oracle.run(x)) < TOLERANCE


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("exact", [False, True])
def test_small_images_of_a_batch_become_lanes(exact: bool) -> None:
    """Where a network's images have shrunk to a block of positions or less, sixteen images are computed together."""
    net = Net(1, 520, 520)  # too large for lanes
    value = net.conv(net.add(MaxPool((0,), (40, 40), (40, 40))), 16, 1, (3, 3), stride=(3, 3))
    value = net.conv(value, 96, 16, (3, 3), padding=(1, 1), density=0.3)
    value = net.add(MaxPool((net.conv(value, 96, 96, (3, 3), padding=(1, 1), density=0.3),), (2, 2), (2, 2)))
    net.linear(net.add(Flatten((value,))), 5, 4 * 96)
    network = net.network()
    one, three = KernelEngine(network, 1, exact), KernelEngine(network, 3, exact, hand_over=1.0)
    oracle = NumpyEngine(network, exact=exact)
    plan = one.program(False).choices[16]
    assert (plan.tile, plan.lanes) == (16, 1)
    assert "w2" in plan.names[1] and "w2" not in plan.names[0]
    for batch in (5, 16, 33):
        x = inputs(network, batch)
        if exact:
            assert np.array_equal(one.run(x), oracle.run(x))
            assert np.array_equal(three.run(x), oracle.run(x))
        else:
            assert error(one.run(x), oracle.run(x)) < TOLERANCE
            assert error(three.run(x), oracle.run(x)) < TOLERANCE


def test_batches_are_split_over_threads() -> None:
    network = lenet().network()
    one, three = KernelEngine(network, 1, False), KernelEngine(network, 3, False, hand_over=1.0)
    for batch in (16, 33, 200):
        x = inputs(network, batch)
        assert error(three.run(x), one.run(x)) < 1e-6


@pytest.mark.parametrize("name", NETS)
def test_one_input_is_shared_by_threads(name: str) -> None:
    network = NETS[name]().network()
    one, three = KernelEngine(network, 1, False), KernelEngine(network, 3, False, hand_over=0.001)
    for seed in range(5):
        x = inputs(network, 1, seed)
        assert np.array_equal(three.run(x), one.run(x))


@pytest.mark.parametrize(
    ("size", "density", "dense"), [(4, 0.5, True), (4, 0.3, False), (5, 0.5, False), (5, 0.8, True)]
)
def test_few_positions_run_as_dense_with_fewer_weights(size: int, density: float, dense: bool) -> None:
    net = Net(8, size, size)
    net.conv(0, 12, 8, (3, 3), padding=(1, 1), density=density)
    network = net.network()
    kernel, oracle = engines(network)
    assert choices.is_dense(network.layers[0], flat=True) == dense
    x = inputs(network, 1)
    assert error(kernel.run(x), oracle.run(x)) < TOLERANCE


@pytest.mark.parametrize("size", [13, 20])
def test_long_lines_are_shared_by_blocks(size: int) -> None:
    """The parts of a 1 x 1 convolution are runs of positions, if there are many."""
    net = Net(5, size, size)
    first = net.conv(0, 9, 5, (1, 1))
    net.add(Add((net.conv(first, 9, 9, (1, 1)), first)))
    network = net.network()
    one, three = KernelEngine(network, 1, False), KernelEngine(network, 3, False, hand_over=0.001)
    x = inputs(network, 1)
    assert error(one.run(x), NumpyEngine(network).run(x)) < TOLERANCE
    assert np.array_equal(three.run(x), one.run(x))


@pytest.mark.parametrize("max_blocks", [1, 3, 6, 12])
def test_any_number_of_registers(max_blocks: int) -> None:
    network = NETS["fire"]().network()
    expected = NumpyEngine(network).run(inputs(network, 1))
    kernel = KernelEngine(network, 1, False, vectors=_registers(max_blocks))
    assert error(kernel.run(inputs(network, 1)), expected) < TOLERANCE


def test_profile_names_every_layer_and_computes_the_same() -> None:
    network = NETS["lenet"]().network()
    kernel, _ = engines(network)
    for batch in (1, 20):
        names = [name for name, _ in kernel.profile(inputs(network, batch))]
        weights = [layer.name for layer in network.layers if layer.weight is not None]
        assert [name for name in names if name in weights] == weights
        assert names[0] == "input" and names[-1] == "output"


def test_negative_zero_weights_and_biases() -> None:
    net = mlp(16, 4)
    tensor = net.tensors["w0"]
    tensor.data[:] = np.where(np.arange(tensor.data.size) % 2, tensor.data, np.float32(-0.0))
    network = lower(net.model())
    kernel, oracle = engines(network)
    assert error(kernel.run(inputs(network, 1)), oracle.run(inputs(network, 1))) < TOLERANCE
