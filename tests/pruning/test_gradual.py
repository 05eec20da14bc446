"""Pruning and sharing while training: the schedules, the scores, and values that end up tied."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from dcformat_pruning.masks import Masks, PrunedAwayWarning, PruningError, all_weights, weight_names
from dcformat_pruning.schedules.gradual import GradualBalanced
from dcformat_pruning.sharing.incremental import IncrementalSharing
from dcformat_pruning.training import TrainingPlan, fit
from torch import nn

from tests.pruning.support import alive, gradient, small_images, small_net


class Watch:
    """Records the number of alive weights after each step."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.counts = module, [(0.0, alive(module))]

    def before_step(self, progress: float) -> None:
        """Do nothing."""

    def after_step(self, progress: float) -> None:
        """Record the number."""
        self.counts.append((progress, alive(self.module)))


def test_the_number_of_weights_falls_between_start_and_until() -> None:
    module = small_net()
    pruning = GradualBalanced(module, Masks.from_zeros(module), 40, start=0.2, until=0.7, every=2)
    watch = Watch(module)
    fit(module, small_images(), TrainingPlan(epochs=10, lr=1e-2, batch=16), seed=0, constraints=(pruning, watch))
    counts = [count for _, count in watch.counts]
    assert counts == sorted(counts, reverse=True)
    assert all(count == 228 for progress, count in watch.counts if progress <= 0.2)
    assert all(count == 40 for progress, count in watch.counts if progress > 0.75)
    middle = [count for progress, count in watch.counts if 0.4 < progress < 0.5]
    assert middle and all(40 < count < 140 for count in middle)


def one_step(module: nn.Sequential, keep: int, power: float) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Prune after one backward pass, without a step of the optimiser; return the gradients and the masks."""
    x, y = small_images().floats(slice(0, 32)), small_images().labels[:32]
    nn.functional.cross_entropy(module(x), y).backward()
    names = weight_names(module)
    gradients = {name: gradient(module, name).clone() for name in names}
    pruning = GradualBalanced(module, Masks.from_zeros(module), keep, start=0, until=0.5, every=1, power=power)
    pruning.before_step(0.4)
    pruning.after_step(1.0)
    return gradients, {name: module.get_parameter(name) != 0 for name in names}


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_the_score_is_magnitude_times_the_factored_fisher(power: float) -> None:
    module = small_net()
    before = {name: module.get_parameter(name).detach().clone() for name in weight_names(module)}
    gradients, masks = one_step(module, 50, power)
    scores = {}
    for name, weight in before.items():
        square = gradients[name] ** 2
        factored = square.mean(1, keepdim=True) * square.mean(0, keepdim=True) / square.mean()
        scores[name] = weight.abs() * factored**power
    kept = torch.cat([scores[n][masks[n]] for n in scores])
    gone = torch.cat([scores[n][~masks[n]] for n in scores])
    assert len(kept) == 50
    assert kept.min() >= gone.max() * (1 - 1e-5)


def test_rescaling_layers_does_not_change_which_weights_obd_prunes() -> None:
    masks = {}
    for factor in (1.0, 2.0):
        module = small_net()
        with torch.no_grad():
            module.get_parameter("1.weight").mul_(factor)
            module.get_parameter("1.bias").mul_(factor)
            module.get_parameter("3.weight").div_(factor)
        masks[factor] = [one_step(copy.deepcopy(module), 150, power)[1] for power in (0.5, 0.0)]
    (obd, magnitude), (same_obd, other_magnitude) = masks[1.0], masks[2.0]
    assert all(torch.equal(obd[name], same_obd[name]) for name in obd)
    assert not all(torch.equal(magnitude[name], other_magnitude[name]) for name in obd)


def test_pruned_weights_stay_pruned_despite_momentum() -> None:
    module = small_net()
    module.get_parameter("1.weight").data[3] = 0
    pruning = GradualBalanced(module, Masks.from_zeros(module), 50)
    fit(module, small_images(), TrainingPlan(epochs=4, lr=1e-1, batch=16), seed=0, constraints=(pruning,))
    assert not module.get_parameter("1.weight")[3].any()


def test_a_layer_that_loses_all_its_weights_is_named() -> None:
    module = small_net()
    module.get_parameter("3.weight").data.mul_(1e-6)
    pruning = GradualBalanced(module, Masks.from_zeros(module), 30, power=0.0)
    plan = TrainingPlan(epochs=2, lr=1e-9, batch=16)
    with pytest.warns(PrunedAwayWarning, match=r"^3\.weight: the whole layer is pruned away$"):
        fit(module, small_images(), plan, seed=0, constraints=(pruning,))


@pytest.mark.parametrize(
    ("keep", "start", "until", "message"),
    [
        (0, 0.1, 0.6, "expected to keep 1 to 228 weights, found 0"),
        (229, 0.1, 0.6, "expected to keep 1 to 228 weights, found 229"),
        (10, 0.6, 0.6, "expected 0 <= start < until <= freeze <= 1, found 0.6, 0.6 and 0.95"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(keep: int, start: float, until: float, message: str) -> None:
    module = small_net()
    with pytest.raises(PruningError, match=message):
        GradualBalanced(module, Masks.from_zeros(module), keep, start=start, until=until)


def test_sharing_in_portions_ends_with_tied_values_and_the_same_zeros() -> None:
    module = small_net()
    module.get_parameter("1.weight").data[:, ::2] = 0
    zeros = [p == 0 for p in module.parameters()]
    distinct: list[int] = []

    class Count:
        def before_step(self, progress: float) -> None:
            """Do nothing."""

        def after_step(self, progress: float) -> None:
            distinct.append(len(torch.unique(module.get_parameter("1.weight")[module.get_parameter("1.weight") != 0])))

    sharing = IncrementalSharing(module, {"1.weight": 4, "3.weight": 3})
    fit(module, small_images(), TrainingPlan(epochs=10, lr=1e-2, batch=16), seed=0, constraints=(sharing, Count()))
    assert distinct == sorted(distinct, reverse=True)
    assert distinct[0] > 40 and distinct[-1] == 4
    assert len(torch.unique(module[3].weight)) == 3
    assert all(torch.equal(p == 0, z) for p, z in zip(module.parameters(), zeros, strict=True))
    plain = small_net()
    plain.get_parameter("1.weight").data[:, ::2] = 0
    assert not torch.equal(module.get_parameter("3.weight"), plain.get_parameter("3.weight"))


def test_sharing_errors_name_the_layer() -> None:
    with pytest.raises(PruningError, match=r"9\.weight: expected a parameter of the module"):
        IncrementalSharing(small_net(), {"9.weight": 2})
    with pytest.raises(PruningError, match=r"3\.weight: clusters: expected 1 to 36 for 36 values, found 99"):
        IncrementalSharing(small_net(), {"3.weight": 99})


def test_a_floor_keeps_weights_in_each_layer() -> None:
    for floor, first in ((0.0, 0), (0.5, 17)):
        module = small_net()
        module[1].weight.data.mul_(1e-4)  # type: ignore[operator]
        masks = Masks.from_zeros(module)
        pruning = GradualBalanced(module, masks, 40, start=0.0, until=0.5, every=1, power=0.0, floor=floor)
        constraints = (pruning,)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrunedAwayWarning)
            fit(module, small_images(), TrainingPlan(epochs=4, lr=1e-6, batch=16), seed=0, constraints=constraints)
        assert masks.alive == {"1.weight": first or 4, "3.weight": 40 - (first or 4)}


def test_pruned_weights_compete_again_when_the_cubic_begins_lower() -> None:
    module = small_net()
    Masks(module, {"1.weight": torch.arange(192).view(12, 16) < 20}).apply()
    pruning = GradualBalanced(module, all_weights(module), 40, start=0.0, until=0.5, every=1, begin=56)
    watch = Watch(module)
    fit(module, small_images(), TrainingPlan(epochs=8, lr=3e-2, batch=16), seed=0, constraints=(pruning, watch))
    assert max(count for _, count in watch.counts) <= 60
    assert watch.counts[-1][1] == 40
    assert bool((module.get_parameter("1.weight").flatten()[20:] != 0).any())
