"""Sparse rows are taken four at a time: their columns are sorted by which of the rows have an entry there."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from dcformat_runtime import cpu, isa
from dcformat_runtime.compile import choices
from dcformat_runtime.compile.constants import Room
from dcformat_runtime.compile.program import lay_out
from dcformat_runtime.compile.weights import Weights
from dcformat_runtime.kernels.quad_layout import lay_out_quads
from dcformat_runtime.kernels.simd_widths import BLOCK
from dcformat_runtime.network import lower, matrices, outline
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

from dcformat.graph import Add, MaxPool, ReLU
from tests.runtime.example_networks import Net, error, inputs, records

COMPILED = os.environ.get("NUMBA_DISABLE_JIT") != "1"
#: What a core with AVX-512 can do, on whatever machine the tests run.
WIDE = cpu.Vectors(max_blocks=12, permutes=False, half_vectors=False)

# Rows of the columns (0, 2), (0, 3), (), (0, 2, 3) and (1), with the values 10 r + c.
INDPTR = np.array([0, 2, 4, 4, 7, 8], np.int64)
COLUMNS = np.array([0, 2, 0, 3, 0, 2, 3, 1], np.int32)
VALUES = np.array([0, 2, 10, 13, 30, 32, 33, 41], np.float32)


def _lay_out(places: list[int], bounds: list[int]) -> tuple[list[int], list[int], list[int], list[float]]:
    """Return the ends, the starts, and the indices and values that are used."""
    runs = len(bounds) - 1
    ends, starts = np.full(2 * runs * 15 + 1, -5, np.int32), np.full(2 * runs, -5, np.int32)
    indices, kept = np.full(8, -5, np.int32), np.full(8, -5, np.float32)
    lay_out_quads(
        INDPTR, COLUMNS, VALUES, np.array(places, np.int32), np.array(bounds, np.int64), np.empty(5, np.int64),
        np.zeros(4, np.uint8), np.empty(32, np.int64), ends, starts, indices, kept,
    )  # fmt: skip
    return ends.tolist(), starts.tolist(), indices[: ends[-1]].tolist(), kept[kept >= 0].tolist()


def test_columns_are_sorted_by_mask() -> None:
    """Column 0 has the mask 1011 (11), column 2 1001 (9), column 3 1010 (10); the last quad has one row."""
    ends, starts, indices, kept = _lay_out([0, 10, 20, 30], [0, 5])
    assert ends == [0] + 8 * [0] + [1, 2] + 5 * [3] + 15 * [4]
    assert indices == [20, 30, 0, 10]
    assert (starts, kept) == ([0, 7], [2, 32, 13, 33, 0, 10, 30, 41])


def test_quads_of_each_run_follow_one_another() -> None:
    ends, starts, indices, kept = _lay_out([0, 10, 20, 30], [0, 2, 5])
    assert ends[15::15] == [1, 2, 4, 4]
    assert indices == [0, 10, 20, 30]
    assert (starts, kept) == ([0, 3, 4, 8], [0, 10, 30, 41, 2, 32, 13, 33])


def test_columns_that_read_only_padding_are_dropped() -> None:
    ends, starts, indices, kept = _lay_out([-1, 10, -1, 30], [0, 5])
    assert ends[15::15] == [1, 2]
    assert (starts, indices, kept) == ([0, 2], [30, 10], [13, 33, 41])


def _image(size: int, rows: int, stride: int = 1, density: float = 0.5) -> Net:
    """Return a 3 x 3 convolution, and a 1 x 1 convolution that adds its input."""
    net = Net(24, size, size)
    first = net.add(ReLU((net.conv(0, rows, 24, (3, 3), density, padding=(1, 1), stride=(stride, stride)),)))
    net.add(ReLU((net.add(Add((net.conv(first, rows, rows, (1, 1), density), first))),)))
    return net


def _pooled() -> Net:
    net = Net(64, 14, 14)
    net.add(MaxPool((net.conv(0, 64, 64, (3, 3), 0.5, padding=(1, 1)),), (2, 2), (2, 2)))
    return net


def _many_channels() -> Net:
    """Return 1 x 1 convolutions of so many channels that they are cut into runs."""
    net = Net(1000, 16, 16)
    first = net.conv(0, 101, 1000, (1, 1), 0.4)
    net.add(Add((net.conv(0, 101, 1000, (1, 1), 0.4), first)))
    return net


def _long_lines() -> Net:
    """Return 1 x 1 convolutions of many positions, the second of which adds the result of the first."""
    net = Net(64, 56, 56)
    first = net.conv(0, 61, 64, (1, 1), 0.5)
    net.add(Add((net.conv(0, 61, 64, (1, 1), 0.5), first)))
    return net


NETWORKS: dict[str, Callable[[], Net]] = {
    "7 x 7": partial(_image, 7, 64),
    "14 x 14, odd rows": partial(_image, 14, 61),
    "five rows": partial(_image, 28, 5),
    "lines of two blocks": partial(_image, 30, 16),
    "56 x 56": partial(_image, 56, 8),
    "stride": partial(_image, 27, 32, 2),
    "many weights": partial(_image, 20, 64, density=0.7),
    "pool": _pooled,
    "runs": _many_channels,
    "long lines": _long_lines,
}


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("name", NETWORKS)
def test_quads_compute_the_same(name: str) -> None:
    network = NETWORKS[name]().network()
    x = inputs(network, 1)
    engine = KernelEngine(network, 1, False, vectors=WIDE)
    quads = [record for record in records(engine.program(True)) if record[isa.CODE] == isa.QUAD_PRODUCT]
    assert quads
    if name == "runs":
        assert all(record[isa.QUAD_PRODUCT_RUNS] > 1 for record in quads)
    if name == "long lines":  # three threads share each product by blocks
        assert {record[isa.QUAD_PRODUCT_LINE_BLOCKS] for record in quads} == {56 * 56 // BLOCK}
    found = engine.run(x)
    assert error(found, NumpyEngine(network, False).run(x)) < 1e-5
    assert error(KernelEngine(network, 3, False, vectors=WIDE, hand_over=0.0001).run(x), found) < 1e-6


def test_the_python_form_computes_the_same() -> None:
    net = Net(96, 16, 16)
    net.add(Add((net.conv(0, 31, 96, (1, 1), 0.7), net.conv(0, 31, 96, (1, 1), 0.7))))
    network = net.network()
    engine = KernelEngine(network, 1, False, vectors=WIDE)
    assert isa.QUAD_PRODUCT in [record[isa.CODE] for record in records(engine.program(True))]
    x = inputs(network, 1)
    assert error(engine.run(x), NumpyEngine(network, False).run(x)) < 1e-5


def test_quads_take_at_most_the_predicted_room() -> None:
    model = _image(14, 61).model()
    sizes = []
    for network in (lower(model), outline(model.graph, matrices(model.tensors))):
        room = Room()
        lay_out(network, Weights(network, room, False, WIDE), True)
        sizes.append(room.size)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("size", "density", "product"),
    [(14, 0.1, "rows"), (14, 0.5, "quads"), (56, 0.3, "quads"), (56, 0.9, "dense"), (14, 1.0, "row blocks"),
     (56, 1.0, "dense")],
)  # fmt: skip
def test_the_share_of_entries_decides(size: int, density: float, product: str) -> None:
    net = Net(64, size, size)
    net.conv(0, 64, 64, (3, 3), density, padding=(1, 1))
    layer = net.network().layers[0]
    assert choices.conv_product(layer, True, False, WIDE) == product
    assert choices.conv_product(layer, True, True, WIDE) != "quads"
    assert choices.conv_product(layer, False, False, WIDE) != "quads"
    assert choices.conv_product(layer, True, False, WIDE._replace(max_blocks=6)) != "quads"


@pytest.mark.parametrize(
    ("size", "channels", "density", "product"),
    [(56, 64, 0.2, "shifted"), (56, 64, 0.3, "shifted"), (56, 64, 0.5, "quads"), (28, 128, 0.3, "quads"),
     (32, 16, 0.3, "shifted"), (32, 16, 0.4, "shifted"), (16, 128, 0.2, "shifted"), (16, 128, 0.4, "quads"),
     (7, 512, 0.2, "shifted"), (7, 512, 0.5, "quads")],
)  # fmt: skip
def test_quads_take_the_place_of_shifted_sums_where_enough_entries_share_loads(
    size: int, channels: int, density: float, product: str
) -> None:
    net = Net(channels, size, size)
    value = net.conv(0, channels, channels, (1, 1), 1.0, groups=channels)
    net.conv(value, channels, channels, (3, 3), density, padding=(1, 1))
    layer = net.network().layers[-1]
    assert choices.conv_product(layer, True, False, WIDE) == product
