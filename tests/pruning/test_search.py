"""The search for the number of weights, on networks that are only formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from dcformat_pruning.compression.compression_settings import Settings
from dcformat_pruning.compression.goals import Goal, Trial, points
from dcformat_pruning.compression.search import Search, parent
from dcformat_pruning.masks import PruningError

#: Bytes and accuracy of a network with a number of weights.
Network = Callable[[int], tuple[int, float]]


def smooth(keep: int) -> tuple[int, float]:
    return 200 + round(0.8 * keep), 0.95 - 0.05 * math.exp(-keep / 3000)


def tried(
    goal: Goal, first: int, network: Network = smooth, *, max_trials: int = 8, dense: float = 0.95
) -> list[Trial]:
    search = Search(goal, dense, total=100_000, least=4, first=first)
    trials: list[Trial] = []
    while len(trials) < max_trials and (keep := search.next(trials)) is not None:
        trials.append(Trial(len(trials) + 1, keep, *network(keep)))
    return trials


def test_a_largest_drop_is_closed_in_on_from_both_sides() -> None:
    goal = Goal(max_drop=1.0)
    edge = 3000 * math.log(5)
    for first in (500, 40_000):
        best = goal.best(tried(goal, first), 0.95)
        assert edge <= best.keep < 1.2 * edge
    assert [t.keep for t in tried(goal, 20_000)] == [20_000, 10_000, 5000, 2500, 3536, 4205, 4585]
    assert [t.keep for t in tried(goal, 1000)] == [1000, 2500, 6250, 3953, 4971, 4433]


def test_the_numbers_stay_between_the_layers_and_all_weights() -> None:
    assert [t.keep for t in tried(Goal(max_drop=90.0), 20)] == [20, 10, 5, 4]
    assert [t.keep for t in tried(Goal(max_drop=0.0), 70_000, lambda keep: (keep, 0.1))] == [70_000, 100_000]


@pytest.mark.parametrize("first", [300, 2000, 60_000])
def test_a_size_is_filled(first: int) -> None:
    trials = tried(Goal(size=2000), first)
    assert len(trials) <= 3
    assert 0.95 * 2000 <= trials[-1].size <= 2000


def test_a_size_or_a_drop_out_of_reach_keeps_the_nearest() -> None:
    small = Goal(size=150)
    trials = tried(small, 50)
    assert trials[-1].keep == 4
    assert small.best(trials, 0.95).keep == 4
    accurate = Goal(max_drop=0.0)
    trials = tried(accurate, 50_000, lambda keep: (keep, 0.9 + keep / 1e7))
    assert accurate.best(trials, 0.95) == trials[-1] == Trial(2, 100_000, 100_000, 0.91)


def test_a_density_needs_one_network() -> None:
    assert [t.keep for t in tried(Goal(density=0.02), 2000)] == [2000]


def test_a_trial_continues_from_the_sparsest_good_network_that_is_denser() -> None:
    goal = Goal(max_drop=1.0)
    trials = [Trial(1, 4000, 3400, 0.95), Trial(2, 2000, 1800, 0.945), Trial(3, 1000, 1000, 0.9)]
    assert parent(trials, 1400, goal, 0.95) == trials[1]
    assert parent(trials, 3000, goal, 0.95) == trials[0]
    assert parent(trials[2:], 2500, goal, 0.95) is None
    assert parent(trials, 900, Goal(size=900), 0.95) == trials[2]


def test_the_epochs_of_a_trial_are_divided_among_its_stages() -> None:
    divided = {epochs: [plan.epochs for plan in Settings(epochs=epochs).plans()] for epochs in (3, 4, 12, 100)}
    assert divided == {3: [1, 1, 1], 4: [2, 1, 1], 12: [8, 3, 1], 100: [70, 25, 5]}
    own = Settings(epochs=(20, 10, 2), lr=(3e-3, 1e-3, 5e-4), bfloat16=True).plans()
    assert [(plan.epochs, plan.lr) for plan in own] == [(20, 3e-3), (10, 1e-3), (2, 5e-4)]
    assert all(plan.bfloat16 for plan in own)
    assert [plan.lr for plan in Settings(lr=1.6e-2).plans()] == pytest.approx([1.6e-2, 4e-3, 1e-3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 2}, "^epochs: expected at least 3, or at least 1 for each stage, found 2$"),
        ({"epochs": (5, 0, 1)}, r"^epochs: expected at least 3, .* found \(5, 0, 1\)$"),
        ({"lr": (1e-3, 0.0, 1e-3)}, r"^lr: expected a positive learning rate, found \(0.001, 0.0, 0.001\)$"),
        ({"epochs": (5, 1)}, r"^epochs: expected a number, or one for each of 3 stages, found \(5, 1\)$"),
        ({"distill": 1.5}, "^distill: expected 0 to 1, found 1.5$"),
        ({"clusters": 0}, "^clusters: expected at least 1, found 0$"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Settings(**settings)


def test_a_point_is_a_hundredth_of_a_share_and_a_unit_of_other_metrics() -> None:
    assert points(0.005, 0.97) == pytest.approx(0.5)
    assert points(0.5, 97.0) == 0.5
    assert points(0.25, -3.0) == 0.25
    assert Goal(max_drop=0.5).holds(Trial(1, 1, 1, 0.965), 0.97)
    assert not Goal(max_drop=0.5).holds(Trial(1, 1, 1, 0.9649), 0.97)


def test_stages_are_saved_under_the_seed_but_not_under_the_metadata() -> None:
    own = Settings(seed=3, metadata={"input": "bars"})
    assert repr(own) == repr(Settings(seed=3)) != repr(Settings())
    assert len({own, own}) == 1
