"""Means over whole images are the same bits for any number of channels and positions, batch, and number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_runtime.kernels.simd_widths import MEAN_PLANES
from dcformat_runtime.network import Network
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

from dcformat.graph import Reduce
from tests.runtime.example_networks import Net, inputs


def _means(channels: int, size: tuple[int, int]) -> Network:
    net = Net(2, *size)
    net.add(Reduce((net.conv(0, channels, 2, (1, 1), 1.0),), "mean", (1, 2)))
    return net.network()


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2), (3, 5), (7, 9), (16, 16)])
@pytest.mark.parametrize("channels", [1, MEAN_PLANES - 1, MEAN_PLANES, 2 * MEAN_PLANES + 3])
def test_means_are_four_interleaved_sums(channels: int, size: tuple[int, int]) -> None:
    network = _means(channels, size)
    x = inputs(network, 21)
    expected = NumpyEngine(network, True).run(x)
    kernel = KernelEngine(network, 1, True)
    assert np.array_equal(kernel.run(x), expected)
    assert np.array_equal(np.concatenate([kernel.run(image[None]) for image in x]), expected)


@pytest.mark.parametrize("channels", [2, MEAN_PLANES, 3 * MEAN_PLANES + 1])
def test_threads_take_some_channels_each(channels: int) -> None:
    network = _means(channels, (5, 7))
    x = inputs(network, 1)
    three = KernelEngine(network, 3, True, hand_over=0.001)
    assert np.array_equal(three.run(x), NumpyEngine(network, True).run(x))
