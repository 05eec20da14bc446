"""Selection: exact numbers, thresholds, rows, budgets, units and pixels, and requests that are refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from dcformat_pruning.criteria import Lamp, Magnitude
from dcformat_pruning.masks import PrunedAwayWarning, PruningError
from dcformat_pruning.selection import (
    best_units,
    dead_inputs,
    keep_globally,
    keep_in_layers,
    keep_in_rows,
    magnitude_budget,
    percentile_masks,
    ranked_budget,
    sensitivity_masks,
    structured_first,
    uniform_budget,
    unit_masks,
    weight_spread,
)
from dcformat_pruning.tracing import UnsupportedModuleError
from dcformat_pruning.unit_readers import unit_readers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


class Residual(nn.Module):
    """Two paths that meet in a sum, with functions between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.outer(torch.relu(self.inner(x)))
        x = nn.functional.max_pool2d(torch.relu(x), 2)
        return self.head(x.view(x.size(0), -1))


def scores(*lists: list[float]) -> dict[str, torch.Tensor]:
    return {f"layer{i}.weight": torch.tensor(values).view(2, -1) for i, values in enumerate(lists)}


@given(st.integers(1, 20), st.integers(0, 10**6))
def test_global_selection_keeps_the_given_number_of_the_best(keep: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    found = {n: torch.randint(5, (2, 5), generator=g).float() for n in ("a", "b")}  # many scores are equal
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrunedAwayWarning)
        masks = keep_globally(found, keep)
    kept = torch.cat([found[n][masks[n]] for n in found])
    gone = torch.cat([found[n][~masks[n]] for n in found])
    assert len(kept) == keep
    assert not len(gone) or kept.min() >= gone.max()


def test_pruned_weights_never_come_back() -> None:
    found = scores([9, 8, 7, 1], [6, 5, 4, 3])
    alive = {"layer0.weight": torch.tensor([[False, True], [True, True]])}
    masks = keep_globally(found, 3, alive)
    assert masks["layer0.weight"].tolist() == [[False, True], [True, False]]
    assert masks["layer1.weight"].tolist() == [[True, False], [False, False]]
    with pytest.raises(PruningError, match="expected to keep 1 to 7 weights, found 8"):
        keep_globally(found, 8, alive)
    with pytest.raises(PruningError, match=r"layer0.weight: expected to keep 1 to 3 weights, found 4"):
        keep_in_layers(found, {"layer0.weight": 4}, alive)


def test_a_layer_pruned_to_nothing_warns_and_is_named() -> None:
    with pytest.warns(PrunedAwayWarning, match=r"layer1.weight: the whole layer is pruned away"):
        keep_globally(scores([9, 8, 7, 6], [1, 2, 3, 4]), 4)


def test_rows_keep_the_same_number_of_weights() -> None:
    masks = keep_in_rows(scores([1, 2, 3, 4, 40, 30, 20, 10]), {"layer0.weight": 0.5})
    assert masks["layer0.weight"].tolist() == [[False, False, True, True], [True, True, False, False]]


@pytest.mark.parametrize("density", [1.5, 0.0, -0.1, float("nan")])
def test_densities_outside_their_range_name_the_layer(density: float) -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(PruningError, match=r"0.weight: expected a density above 0 and at most 1, found"):
        keep_in_rows(Magnitude().scores(net), {"0.weight": density})
    with pytest.raises(PruningError, match=r"0.weight: expected a density"):
        uniform_budget(net, density)
    with pytest.raises(PruningError, match=r"nope: expected a layer with scores"):
        keep_in_rows(Magnitude().scores(net), {"nope": 0.5})


def test_percentile_is_numpys_over_all_alive_or_layer_by_layer() -> None:
    g = np.random.default_rng(0)
    values = [g.random(30), g.random(20) * 1.5]
    found = {n: torch.tensor(v).view(2, -1) for n, v in zip(("a", "b"), values, strict=True)}
    limit = np.percentile(np.concatenate(values), 70)
    together = percentile_masks(found, 70)
    for name, value in zip(found, values, strict=True):
        assert together[name].flatten().tolist() == (value >= limit).tolist()
        alone = percentile_masks(found, 70, layerwise=True)[name]
        assert alone.flatten().tolist() == (value >= np.percentile(value, 70)).tolist()
    with pytest.raises(PruningError, match="percentile: expected at least 0 and below 100"):
        percentile_masks(found, 100)


def test_sensitivity_thresholds_as_han_and_as_the_article() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 20))
    weight = net.get_parameter("0.weight").detach().numpy()
    found = Magnitude().scores(net)
    han = sensitivity_masks(found, 1.2, spread=weight_spread(net))["0.weight"].numpy()
    np.testing.assert_array_equal(han, np.abs(weight) >= 1.2 * weight.astype(np.float64).std())
    article = sensitivity_masks(found, 1.2)["0.weight"].numpy()
    np.testing.assert_array_equal(article, np.abs(weight) >= 1.2 * np.abs(weight).astype(np.float64).std())
    with pytest.warns(PrunedAwayWarning, match=r"0.weight"):
        sensitivity_masks(found, 99)
    with pytest.raises(PruningError, match="sensitivity: expected a number of at least 0"):
        sensitivity_masks(found, -1)


def test_budgets_add_up_and_starve_no_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 5))
    net.get_parameter("2.weight").data.mul_(1e-3)
    assert magnitude_budget(net, 100) == {"0.weight": 99, "2.weight": 1}
    lamp = ranked_budget(Lamp().scores(net), 100)
    assert sum(lamp.values()) == 100 and lamp["2.weight"] > 1  # LAMP does not depend on a layer's scale
    squares = net.get_parameter("2.weight").detach().double().square().flatten()
    by_hand = {i: float(s / squares[squares >= s].sum()) for i, s in enumerate(squares)}
    first = net.get_parameter("0.weight").detach().double().square().flatten()
    ours = sorted([*by_hand.values(), *(float(s / first[first >= s].sum()) for s in first)])[-100:]
    assert sum(v >= ours[0] for v in by_hand.values()) == lamp["2.weight"]


def test_readers_of_units_are_found_and_sums_left_alone() -> None:
    found = unit_readers(Residual())
    assert found.readers == {"inner": ("outer",)}
    assert found.first == ("stem",)
    chain = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2))
    assert unit_readers(chain).readers == {"1": ("5",)}
    assert unit_readers(chain).first == ("1",)


def test_units_go_with_their_readers_weights() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    masks = unit_masks(net, {"0.weight": torch.tensor([True, False, True])})
    assert masks["0.weight"].any((1, 2, 3)).tolist() == [True, False, True]
    assert masks["4.weight"].tolist() == [[True] * 4 + [False] * 4 + [True] * 4] * 2
    # Masking a unit gives the same function as a unit whose output is zero.
    for name, mask in masks.items():
        dict(net.named_parameters())[name].data.mul_(mask)
    x = torch.rand(3, 1, 6, 6)
    before = net(x)
    net.get_parameter("0.bias").data[1] = 99.0
    torch.testing.assert_close(net(x), before)


def test_units_of_a_residual_sum_are_refused_by_name() -> None:
    with pytest.raises(PruningError, match=r"stem.weight: expected a layer whose units only"):
        unit_masks(Residual(), {"stem.weight": torch.ones(4, dtype=torch.bool)})
    with pytest.raises(PruningError, match=r"inner\.weight: expected 6 booleans, found \(4,\)"):
        unit_masks(Residual(), {"inner.weight": torch.ones(4, dtype=torch.bool)})
    with pytest.warns(PrunedAwayWarning):
        unit_masks(Residual(), {"inner.weight": torch.zeros(6, dtype=torch.bool)})


def test_a_forward_pass_that_branches_is_named() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedModuleError, match=r"Branching\): expected a forward pass that torch\.fx can trace"):
        unit_readers(Branching())


def test_dead_pixels_and_units_before_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(20, 1, 3, 3)
    x[:, :, 0, 1] = 0
    x[:, :, 2] = 0.01
    data = [(x[:9], torch.zeros(9)), (x[9:], torch.zeros(11))]
    assert dead_inputs(net, data)["1.weight"].all(0).tolist() == [i != 1 for i in range(9)]
    assert dead_inputs(net, data, threshold=0.01)["1.weight"].all(0).tolist() == [
        i not in (1, 6, 7, 8) for i in range(9)
    ]
    units = best_units({"1.weight": torch.tensor([0.1, 0.4, 0.3, 0.2])}, {"1.weight": 2})
    assert units["1.weight"].tolist() == [False, True, True, False]
    found = structured_first(net, data, Magnitude().scores(net), 10, units)
    assert sum(int(m.sum()) for m in found.values()) == 10
    assert not found["1.weight"][[0, 3]].any() and not found["1.weight"][:, 1].any()
    assert not found["3.weight"][:, [0, 3]].any()


def test_dead_channels_of_a_convolution() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    x = torch.rand(4, 3, 5, 5)
    x[:, 1] = 0
    found = dead_inputs(net, [(x, torch.zeros(4))])["0.weight"]
    assert found.all((0, 2, 3)).tolist() == [True, False, True]
