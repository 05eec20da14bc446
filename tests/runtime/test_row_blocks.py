"""Dense layers with few positions run by blocks of 16 rows, whose sums are transposed at last."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from dcformat_runtime import cpu, isa
from dcformat_runtime.compile import choices
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

from dcformat.graph import Add, Flatten, MaxPool, ReLU
from tests.runtime.example_networks import Net, error, inputs

COMPILED = os.environ.get("NUMBA_DISABLE_JIT") != "1"


def _image(size: int, rows: int, stride: int = 1, density: float = 0.8) -> Net:
    """Return a 3 x 3 convolution, and a 1 x 1 convolution that adds its input."""
    net = Net(24, size, size)
    first = net.conv(0, rows, 24, (3, 3), density, padding=(1, 1), stride=(stride, stride))
    first = net.add(ReLU((first,)))
    net.add(ReLU((net.add(Add((net.conv(first, rows, rows, (1, 1), density), first))),)))
    return net


def _pooled() -> Net:
    net = Net(64, 6, 6)
    value = net.conv(0, 64, 64, (3, 3), 0.9, padding=(1, 1))
    net.linear(net.add(Flatten((net.add(MaxPool((value,), (2, 2), (2, 2))),))), 7, 576)
    return net


def _linear() -> Net:
    """Return large linear layers, the second of which reads values in another order, and the last has an odd size."""
    net = Net(512)
    value = net.add(ReLU((net.linear(0, 1000, 512, 0.2),)))
    net.linear(net.add(ReLU((net.linear(value, 529, 1000, 0.7),))), 500, 529, 1.0)
    return net


NETWORKS: dict[str, Callable[[], Net]] = {
    "one position": partial(_image, 1, 64),
    "2 x 2": partial(_image, 2, 64),
    "3 x 3, odd rows": partial(_image, 3, 61),
    "one block of rows": partial(_image, 7, 16),
    "7 x 7": partial(_image, 7, 64),
    "stride": partial(_image, 13, 32, 2),
    "14 x 14": partial(_image, 14, 64, density=0.95),
    "pool": _pooled,
    "linear": _linear,
}


def _codes(engine: KernelEngine) -> list[int]:
    """Return the opcodes of the program for one image."""
    program = engine.program(True)
    words = program.mem.view(np.int32)
    plan = program.choices[1].address + isa.PLAN_STAGES
    count, first = words[plan : plan + 2]
    return [int(words[first + isa.RECORD_WIDTH * k]) for k in range(count)]


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_rows_compute_the_same(name: str) -> None:
    network = NETWORKS[name]().network()
    x = inputs(network, 1)
    for exact in (False, True):
        engine = KernelEngine(network, 1, exact)
        assert isa.ROW_BLOCK_PRODUCT in _codes(engine)
        found, expected = engine.run(x), NumpyEngine(network, exact).run(x)
        assert np.array_equal(found, expected) if exact else error(found, expected) < 1e-5
        assert np.array_equal(KernelEngine(network, 6, exact, hand_over=0.0001).run(x), found)


@pytest.mark.parametrize("max_blocks", [1, 6, 12])
def test_registers_decide_how_many_sums_are_computed_at_a_time(max_blocks: int) -> None:
    network = _image(3, 32, density=1.0).network()
    x = inputs(network, 1)
    vectors = cpu.vectors()._replace(max_blocks=max_blocks)
    engine = KernelEngine(network, 1, True, vectors=vectors)
    assert isa.ROW_BLOCK_PRODUCT in _codes(engine)
    assert np.array_equal(engine.run(x), NumpyEngine(network, True).run(x))


@pytest.mark.parametrize(
    ("size", "density", "chosen"),
    [(3, 0.2, False), (3, 0.5, True), (7, 0.3, False), (7, 0.5, True), (14, 0.5, False), (14, 0.9, True)],
)
def test_sparse_layers_run_as_dense_ones_only_if_that_is_less_work(size: int, density: float, chosen: bool) -> None:
    net = Net(32, size, size)
    net.conv(0, 64, 32, (3, 3), density, padding=(1, 1))
    layer = net.network().layers[0]
    assert choices.has_row_blocks(layer, flat=True) == chosen
    assert not choices.has_row_blocks(layer, flat=False)


def test_images_in_lanes_groups_and_large_images_have_no_blocks_of_rows() -> None:
    for shape, groups, size in ((64, 2, 7), (64, 1, 40)):
        net = Net(shape, size, size)
        net.conv(0, 64, shape, (3, 3), 1.0, padding=(1, 1), groups=groups)
        assert not choices.has_row_blocks(net.network().layers[0], flat=True)
