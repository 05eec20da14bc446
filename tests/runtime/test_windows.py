"""Depthwise convolutions with all weights of square windows."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_runtime import isa
from dcformat_runtime.network_engine import KernelEngine

from dcformat import from_dense
from dcformat.graph import ReLU
from tests.runtime.example_networks import Net, check


def depthwise(
    kernel: int, size: tuple[int, int], stride: int, padding: int, *, density: float = 1.0, rows: int = 1
) -> Net:
    net = Net(3, *size)
    value = net.add(ReLU((net.conv(0, 6, 3, (1, 1), 1.0),)))
    weight = (kernel, kernel)
    value = net.conv(value, 6 * rows, 6, weight, density, padding=(padding,) * 2, stride=(stride,) * 2, groups=6)
    net.conv(net.add(ReLU((value,))), 4, 6 * rows, (1, 1), 1.0)
    return net


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (5, 3), (7, 7), (9, 16), (14, 14), (8, 35)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_square_windows(kernel: int, stride: int, size: tuple[int, int]) -> None:
    found = check(depthwise(kernel, size, stride, kernel // 2).network())
    (record,) = (record for record in found if record[isa.CODE] == isa.DEPTHWISE_PRODUCT)
    assert record[isa.DEPTHWISE_PRODUCT_KERNEL] == kernel


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_windows_with_less_padding_and_several_rows_for_each_channel(padding: int) -> None:
    check(depthwise(3, (9, 19), 2, padding, rows=2).network())


@pytest.mark.parametrize(("kernel", "stride", "density"), [(3, 1, 0.5), (7, 1, 1.0), (3, 3, 1.0), (2, 1, 1.0)], ids=str)
def test_other_depthwise_layers_have_no_windows(kernel: int, stride: int, density: float) -> None:
    found = check(depthwise(kernel, (13, 18), stride, kernel // 2, density=density).network())
    windows = [r for r in found if r[isa.CODE] == isa.DEPTHWISE_PRODUCT and r[isa.DEPTHWISE_PRODUCT_KERNEL]]
    assert not windows


def test_windows_see_only_their_own_channel() -> None:
    """Every second channel is infinite: none may reach another by a product with 0."""
    net = Net(1, 3, 5)
    net.conv(net.conv(0, 6, 1, (1, 1), 1.0), 6, 6, (3, 3), 1.0, padding=(1, 1), groups=6)
    net.tensors["w0"] = from_dense("w0", np.array([3e38, 1] * 3, np.float32).reshape(6, 1, 1, 1))
    x = np.full((1, 15), 4, np.float32)
    found = KernelEngine(net.network(), 1, False).run(x).reshape(6, 15)
    assert not np.isfinite(found[::2]).any() and np.isfinite(found[1::2]).all()
