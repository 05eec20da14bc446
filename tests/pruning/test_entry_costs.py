"""The bits of nonzeros, and pruning by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dcformat_pruning import from_module
from dcformat_pruning.masks import Masks
from dcformat_pruning.schedules import GradualBalanced
from dcformat_pruning.schedules.entry_costs import entry_bits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor, nn

from dcformat.writer import written_bytes


def brute_force(alive: np.ndarray, row: int, column: int) -> float:
    """Return the bits of a nonzero at a place, from counts one by one."""
    kernel = alive[0, 0].size
    flat = alive.reshape(len(alive), -1)
    rows, columns = flat.shape
    density = max(flat.sum() / flat.size, 1e-6)
    in_row = (flat[row].sum() + 20 * density) / (columns + 20)
    in_column = (flat[:, column].sum() + 10 * density) / (rows + 10)
    p = in_row * in_column / density
    if kernel > 1:
        first = column // kernel * kernel
        others = sum(int(flat[row, j]) for j in range(first, first + kernel) if j != column)
        p = (others + 6 * p) / (kernel + 5)
    p = min(max(p, 1e-4), 0.9)
    return max(0.0, math.log2((1 - p) / p)) + 2.5


@given(st.one_of([arrays(bool, array_shapes(min_dims=n, max_dims=n, max_side=6)) for n in (2, 3, 4)]))
def test_bits_are_those_of_counts(alive: np.ndarray) -> None:
    found = entry_bits(torch.from_numpy(alive))
    assert found.shape == (len(alive), alive[0].size)
    expected = [[brute_force(alive, i, j) for j in range(found.shape[1])] for i in range(len(alive))]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_literal_bits() -> None:
    # A density of 1/8 everywhere: log2(7) and 2.5 bits of the value.
    linear = torch.eye(8, dtype=torch.bool)
    assert entry_bits(linear)[0, 0] == pytest.approx(math.log2(7) + 2.5)
    # Where nearly all are nonzero, a nonzero costs its value only.
    assert entry_bits(torch.ones(8, 8, dtype=torch.bool)).unique().tolist() == [2.5]
    # Where nothing is nonzero, the probability has a lower bound.
    nothing = entry_bits(torch.zeros(8, 8, dtype=torch.bool))
    assert nothing.unique().tolist() == pytest.approx([math.log2(9999) + 2.5])


def test_a_nonzero_is_cheaper_in_a_kernel_with_others() -> None:
    alive = torch.zeros(4, 4, 3, 3, dtype=torch.bool)
    alive[1, 2, :2] = True
    bits = entry_bits(alive).view(alive.shape)
    same_row, same_column = bits[1, 1, 0, 0], bits[2, 2, 0, 0]
    assert bits[1, 2, 2, 0] < min(same_row, same_column)
    assert max(same_row, same_column) < bits[3, 3, 0, 0]


def pruned(weights: Tensor, cost_power: float) -> Tensor:
    """Prune the weights of a convolution to a tenth in 40 steps that change nothing else; return what is alive."""
    module = nn.Conv2d(16, 32, 3)
    module.weight.data = weights.clone()
    pruning = GradualBalanced(
        module, Masks.from_zeros(module, ["weight"]), 460, start=0, every=1, power=0, cost_power=cost_power
    )
    module.weight.grad = torch.ones_like(weights)
    for step in range(1, 41):
        pruning.before_step(step / 40)
        pruning.after_step(step / 40)
    return module.weight.detach() != 0


def file_size(alive: Tensor) -> int:
    """Return the bytes of a file whose only layer has the weight 1 where `alive`."""
    module = nn.Conv2d(16, 32, 3, bias=False)
    module.weight.data = alive.float()
    return len(written_bytes(from_module(module.eval(), torch.zeros(1, 16, 8, 8), verbose=False), "tiny"))


def test_pruning_by_bits_keeps_as_many_weights_in_fewer_kernels_and_fewer_bits() -> None:
    weights = torch.randn(32, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    by_size, by_bits = pruned(weights, 0.0), pruned(weights, 0.5)
    assert int(by_size.sum()) == int(by_bits.sum()) == 460
    kernels = [int(alive.flatten(2).any(2).sum()) for alive in (by_size, by_bits)]
    bits = [float(entry_bits(alive)[alive.flatten(1)].sum()) for alive in (by_size, by_bits)]
    lost = [float(weights[~alive].square().sum()) for alive in (by_size, by_bits)]
    assert kernels[1] < kernels[0]
    assert bits[1] < 0.9 * bits[0]
    assert file_size(by_bits) < 0.98 * file_size(by_size)
    # Magnitude loses the least by definition; bits must not cost much more.
    assert lost[0] < lost[1] < 1.2 * lost[0]
