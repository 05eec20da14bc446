"""Sharing while training: few values in each step, latent weights that add small steps up, and the price of bits."""

from __future__ import annotations

import pytest
import torch
from dcformat_pruning.masks import PruningError
from dcformat_pruning.sharing.straight_through import StraightThroughSharing, _intervals
from dcformat_pruning.training import TrainingPlan, fit
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.pruning.support import small_images, small_net


def distinct(weight: Tensor) -> int:
    return len(torch.unique(weight[weight != 0]))


def test_the_network_has_few_values_in_each_step_and_the_same_zeros() -> None:
    module = small_net()
    module.get_parameter("1.weight").data[:, ::2] = 0
    zeros = [p == 0 for p in module.parameters()]
    counts: list[int] = []

    class Watch:
        def before_step(self, progress: float) -> None:
            """Count the values with which the gradients of this step were computed."""
            counts.append(distinct(module.get_parameter("1.weight")))

        def after_step(self, progress: float) -> None:
            """Do nothing."""

    sharing = StraightThroughSharing(module, {"1.weight": 4, "3.weight": 3})
    fit(module, small_images(), TrainingPlan(epochs=10, lr=1e-2, batch=16), seed=0, constraints=(sharing, Watch()))
    assert max(counts) <= 4 < distinct(small_net().get_parameter("1.weight"))
    assert distinct(module.get_parameter("1.weight")) == 4
    assert distinct(module.get_parameter("3.weight")) == 3
    assert all(torch.equal(p == 0, z) for p, z in zip(module.parameters(), zeros, strict=True))


def stepped(sharing: StraightThroughSharing, weight: Tensor, index: int, step: float, progress: float) -> list[float]:
    """Move one weight as an optimiser would, and return all weights after the constraint."""
    sharing.before_step(progress)
    weight.flatten()[index] += step
    sharing.after_step(progress)
    return [round(value, 4) for value in weight.flatten().tolist()]


def test_small_steps_add_up_until_a_weight_changes_its_cluster() -> None:
    module = nn.Linear(5, 1, bias=False)
    weight = module.weight.data
    weight.copy_(torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]]))
    sharing = StraightThroughSharing(module, {"weight": 2})
    assert weight.tolist() == [[-1.5, -1.5, 0.0, 1.5, 1.5]]
    # The latent weight falls from 1 to 0.5, and the centroid is the mean of it and 2.
    assert stepped(sharing, weight, 3, -0.5, 0.1) == [-1.5, -1.5, 0, 1.25, 1.25]
    # At -0.2 it is below the middle of -1.5 and 1.25, and joins the other cluster.
    assert stepped(sharing, weight, 3, -0.7, 0.2) == [-1.0667, -1.0667, 0, -1.0667, 2]


def test_clusters_move_as_a_whole_towards_the_end() -> None:
    module = nn.Linear(5, 1, bias=False)
    weight = module.weight.data
    weight.copy_(torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]]))
    sharing = StraightThroughSharing(module, {"weight": 2}, until=0.5)
    assert stepped(sharing, weight, 3, -2.0, 0.5) == [-1.5, -1.5, 0, -0.5, -0.5]


def test_a_price_on_bits_leaves_fewer_clusters() -> None:
    def left(rate: float) -> int:
        torch.manual_seed(0)
        module = nn.Linear(100, 100)
        sharing = StraightThroughSharing(module, {"weight": 32}, rate)
        for _ in range(5):
            sharing.after_step(0.1)
        return distinct(module.weight)

    assert left(0.0) == 32
    assert 2 <= left(0.05) < left(0.01) < 32


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 40)), min_size=1, max_size=12),
    st.lists(st.integers(-120, 120), min_size=1, max_size=20),
)
def test_intervals_give_each_value_the_cheapest_centroid(table: list[tuple[int, int]], values: list[int]) -> None:
    centroids, prices = [c / 4 for c, _ in table], [p / 8 for _, p in table]
    chosen, edges = _intervals(centroids, prices)
    assert edges == sorted(edges) and len(edges) == len(chosen) - 1
    for value in (v / 8 for v in values):
        costs = [(value - c) ** 2 + p for c, p in zip(centroids, prices, strict=True)]
        found = chosen[int(torch.bucketize(torch.tensor(value), torch.tensor(edges)))]
        assert costs[found] == pytest.approx(min(costs), abs=1e-3)


def test_sharing_errors_name_the_layer() -> None:
    with pytest.raises(PruningError, match=r"9\.weight: expected a parameter of the module"):
        StraightThroughSharing(small_net(), {"9.weight": 2})
    with pytest.raises(PruningError, match=r"3\.weight: clusters: expected 1 to 36 for 36 values, found 99"):
        StraightThroughSharing(small_net(), {"3.weight": 99})
