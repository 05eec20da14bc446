"""3 x 3 convolutions of one image, which shift sums instead of copying their input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dcformat_runtime import isa
from dcformat_runtime.compile.constants import Room
from dcformat_runtime.compile.weights import Weights
from dcformat_runtime.cpu import Vectors, vectors
from dcformat_runtime.kernels.simd_widths import WIDTHS
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

from dcformat import from_dense
from dcformat import graph as ops
from dcformat.graph import Node
from tests.format.strategies import COMPILED
from tests.runtime.example_networks import Net, check, error, inputs, records

WIDE = Vectors(12, permutes=True, half_vectors=False)


def three(net: Net, value: int, out: int, channels: int, density: float = 0.2, **more: Any) -> int:
    return net.conv(value, out, channels, (3, 3), density, padding=(1, 1), **more)


def two_layers(height: int, width: int, channels: int = 3, **more: Any) -> Net:
    net = Net(1, height, width)
    value = net.add(ops.ReLU((net.conv(0, channels, 1, (1, 1), 1.0),)))
    three(net, value, 5, channels, **more)
    return net


def shifted(found: list[np.ndarray]) -> list[np.ndarray]:
    return [record for record in found if record[isa.CODE] == isa.SHIFTED_PRODUCT]


@pytest.mark.parametrize(
    "size",
    [
        (32, 32), (16, 16), (8, 8), (7, 8), (5, 24), (3, 24), (9, 48), (5, 64), (2, 112), (3, 224), (2, 256),
        (5, 56), (6, 28), (14, 14), (7, 7), (6, 4), (4, 2), (2, 2), (5, 1), (1, 16), (1, 6), (3, 13), (5, 104),
    ],
)  # fmt: skip
def test_images_of_all_widths(size: tuple[int, int]) -> None:
    found = check(two_layers(*size).network())
    if vectors().max_blocks >= 12:
        assert shifted(found) and not any(record[isa.CODE] == isa.PAD_COPY for record in found)


@pytest.mark.parametrize("size", [(8, 32), (5, 24), (6, 14)])
@pytest.mark.parametrize("max_blocks", [3, 6, 12])
def test_any_number_of_registers(size: tuple[int, int], max_blocks: int) -> None:
    network = two_layers(*size).network()
    x = inputs(network, 1)
    engine = KernelEngine(network, 1, False, vectors=WIDE._replace(max_blocks=max_blocks))
    assert error(engine.run(x), KernelEngine(network, 1, True).run(x)) < 1e-5


def test_widths_that_fill_no_tile_are_copied() -> None:
    assert 5 not in WIDTHS
    assert not shifted(check(two_layers(4, 5).network()))
    assert not shifted(check(two_layers(4, 80).network()))
    assert not shifted(check(two_layers(5, 14).network()))


def test_one_position_is_copied() -> None:
    assert not shifted(check(two_layers(1, 1).network()))


@pytest.mark.parametrize(
    "more",
    [{"stride": (2, 2)}, {"stride": (1, 2)}, {"dilation": (2, 2)}, {"density": 0.9}, {"groups": 5}],
    ids=str,
)
def test_other_convolutions_are_not_shifted(more: dict[str, Any]) -> None:
    assert not shifted(check(two_layers(9, 16, 5, **more).network()))


@pytest.mark.parametrize("source", [0, 1])
@pytest.mark.parametrize("size", [(32, 32), (16, 16), (6, 56), (28, 28), (4, 2), (2, 4), (10, 48), (2, 224)])
def test_strides_of_two_split_their_input(size: tuple[int, int], source: int) -> None:
    net = Net(4, *size)
    if source:
        net.add(ops.ReLU((net.conv(0, 4, 4, (1, 1), 1.0),)))
    value = net.add(ops.ReLU((three(net, len(net.nodes), 6, 4, stride=(2, 2)),)))
    three(net, value, 5, 6, stride=(1, 1))
    found = check(net.network())
    if vectors().max_blocks >= 12:
        assert [record[isa.CODE] for record in found].count(isa.SPLIT) == 1
        assert len(shifted(found)) == 2


def test_quarters_of_a_channel_are_its_even_and_odd_lines_and_columns() -> None:
    """Each of nine kernels has a single weight, so a result is every second element of every second line."""
    net = Net(2, 4, 32)
    three(net, 0, 9, 2, 0.1, stride=(2, 2))
    kernels = np.eye(9, dtype=np.float32).reshape(9, 1, 3, 3)
    net.tensors["w0"] = from_dense("w0", np.concatenate([0 * kernels, kernels], axis=1))
    net.tensors["b0"] = from_dense("b0", np.zeros(9, np.float32))
    images = np.arange(1, 257, dtype=np.float32).reshape(2, 4, 32)
    found = KernelEngine(net.network(), 1, False).run(images.reshape(1, -1)).reshape(9, 2, 16)
    framed = np.pad(images[1], 1)
    for k, result in enumerate(found):
        assert np.array_equal(result, framed[k // 3 :, k % 3 :][:4:2, :32:2])


def test_groups() -> None:
    net = Net(1, 6, 16)
    value = net.conv(0, 6, 1, (1, 1), 1.0)
    three(net, value, 4, 6, 0.4, groups=2)
    assert len(shifted(check(net.network()))) == 1 or vectors().max_blocks < 12


def test_runs_of_channels_resume_their_sums() -> None:
    channels = 96 if COMPILED else 64
    net = two_layers(32, 32, channels, density=0.05)
    engine = KernelEngine(net.network(), 1, False, vectors=WIDE)
    (record,) = shifted(records(engine.program(True)))
    assert record[isa.SHIFTED_PRODUCT_RUNS] > 1
    x = inputs(net.network(), 1)
    assert error(engine.run(x), NumpyEngine(net.network()).run(x)) < 1e-5


@pytest.mark.parametrize("width", [8, 16, 14])
def test_residuals_take_the_place_of_others(width: int) -> None:
    """The third convolution adds the first value in its place, and the fourth reads it there."""
    net = Net(2, 8, width)
    value = net.add(ops.ReLU((net.conv(0, 4, 2, (1, 1), 1.0),)))
    inner = net.add(ops.ReLU((three(net, value, 4, 4),)))
    value = net.add(ops.ReLU((net.add(ops.Add((three(net, inner, 4, 4), value))),)))
    net.add(ops.Reduce((three(net, value, 5, 4),), "mean", (1, 2)))
    check(net.network())


@pytest.mark.parametrize("width", [16, 8, 14])
def test_whatever_lies_between_the_channels_is_cleared(width: int) -> None:
    """Each kind of layer makes a value that a shifted convolution reads; many write between its channels."""
    makers: list[Node] = [
        ops.MaxPool((1,), (3, 3), (1, 1), (1, 1), (1, 1)),
        ops.AvgPool((1,), (3, 3), (1, 1), (1, 1), (1, 1)),
        ops.Binary((1, 0.25), "maximum"),
        ops.Unary((1,), "sigmoid"),
        ops.Add((1, 1)),
        ops.Concat((1, 1)),
    ]
    for node in makers:
        net = Net(2, 8, width)
        value = net.conv(0, 4, 2, (1, 1), 1.0)
        value = net.add(node)
        value = three(net, value, 3, 8 if isinstance(node, ops.Concat) else 4)
        net.add(ops.Unary((value,), "sigmoid"))
        check(net.network())
    for density in (0.2, 1.0):
        for kernel, groups in (((1, 1), 1), ((5, 5), 1), ((3, 3), 4)):
            net = Net(2, 8, width)
            value = net.conv(0, 4, 2, (1, 1), 1.0)
            value = net.conv(value, 4, 4, kernel, density, padding=(kernel[0] // 2,) * 2, groups=groups)
            value = three(net, net.add(ops.ReLU((value,))), 3, 4)
            net.linear(net.add(ops.Flatten((value,))), 4, 3 * 8 * width)
            check(net.network())


def test_values_that_many_layers_read() -> None:
    """Parts of a concatenation are made in their places; one that a shifted convolution reads has its own."""
    net = Net(2, 8, 16)
    value = net.conv(0, 4, 2, (1, 1), 1.0)
    left = three(net, value, 3, 4)
    right = three(net, left, 5, 3)
    joined = net.add(ops.Concat((left, right)))
    net.linear(net.add(ops.Flatten((net.add(ops.Concat((three(net, joined, 3, 8), joined))),))), 6, 11 * 128)
    check(net.network())


def test_pools_follow() -> None:
    net = Net(1, 8, 16)
    value = net.conv(0, 4, 1, (1, 1), 1.0)
    value = net.add(ops.MaxPool((three(net, value, 6, 4, 0.4),), (2, 2), (2, 2)))
    net.add(ops.MaxPool((three(net, value, 6, 6, 0.4),), (2, 2), (2, 2)))
    check(net.network())


def test_each_weight_reads_its_neighbour() -> None:
    """Each of nine kernels has a single weight; nothing crosses the ends of lines or channels."""
    kernels = np.eye(9, dtype=np.float32).reshape(9, 1, 3, 3)
    kernels = np.concatenate([kernels, 0 * kernels], axis=1)  # the second channel adds nothing
    for width in (4, 8, 14, 16, 32):
        net = Net(1, 3, width)
        value = net.conv(0, 2, 1, (1, 1), 1.0)
        net.tensors["w0"] = from_dense("w0", np.array([1, 1000], np.float32).reshape(2, 1, 1, 1))
        net.tensors["b0"] = from_dense("b0", np.zeros(2, np.float32))
        three(net, value, 9, 2, 0.1)
        net.tensors["w1"] = from_dense("w1", kernels)
        net.tensors["b1"] = from_dense("b1", np.zeros(9, np.float32))
        image = np.arange(1, 3 * width + 1, dtype=np.float32).reshape(3, width)
        found = KernelEngine(net.network(), 1, False).run(image.reshape(1, -1)).reshape(9, 3, width)
        framed = np.pad(image, 1)
        for k, result in enumerate(found):
            assert np.array_equal(result, framed[k // 3 :, k % 3 :][:3, :width])


def test_planes_have_room_for_lines_and_copies() -> None:
    planes = Weights(two_layers(16, 16).network(), Room(), False, WIDE).planes
    assert (planes.step((3, 16, 16)), planes.size((3, 16, 16)), planes.lead((3, 16, 16))) == (272, 816, 16)
    assert dict(planes.copies) == {1: 0}
    planes = Weights(two_layers(7, 8).network(), Room(), False, WIDE).planes
    assert (planes.step((3, 7, 8)), planes.lead((3, 7, 8)), dict(planes.copies)) == (64, 16, {1: 1})
    planes = Weights(two_layers(14, 14).network(), Room(), False, WIDE).planes
    assert (planes.step((3, 14, 14)), planes.lead((3, 14, 14)), dict(planes.copies)) == (224, 32, {1: 2})
    assert (planes.step((3, 14, 15)), planes.lead((3, 14, 15))) == (224, 0)
    exact = Weights(two_layers(14, 14).network(), Room(), True, WIDE).planes
    assert (exact.step((3, 14, 14)), exact.lead((3, 14, 14)), dict(exact.copies)) == (208, 0, {})
