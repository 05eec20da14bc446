"""Schedules: constraints of the training loop, and loops around it."""

from __future__ import annotations

import math

import pytest
import torch
from dcformat_pruning.criteria import Magnitude, Taylor
from dcformat_pruning.export.folding import fold_batch_norm
from dcformat_pruning.masks import Masks, PruningError, fold_torch_prune
from dcformat_pruning.schedules import (
    DropAndGrow,
    GradualPruning,
    Penalty,
    Retraining,
    Rewind,
    iterative,
    lottery_ticket,
    one_shot,
)
from dcformat_pruning.tracing import UnsupportedModuleError
from dcformat_pruning.training import DivergenceError, TrainingPlan, fit
from torch import nn

from tests.pruning.support import alive, small_images, small_net

PLAN = TrainingPlan(epochs=2, lr=1e-2, batch=16)


def test_one_shot_and_iterative_keep_the_given_number_of_weights() -> None:
    module = small_net()
    assert one_shot(module, Taylor(), small_images(64), 100).alive == {
        "1.weight": int((module.get_parameter("1.weight") != 0).sum()),
        "3.weight": int((module.get_parameter("3.weight") != 0).sum()),
    }
    assert alive(module) == 100
    module = small_net()
    seen: list[tuple[str, int]] = []
    retraining = Retraining(small_images(64), PLAN, progress=lambda stage, *_: seen.append((stage, alive(module))))
    masks = iterative(module, Magnitude(), (), [120, 60, 30], retraining)
    assert list(dict.fromkeys(seen)) == [("round 1", 120), ("round 2", 60), ("round 3", 30)]
    assert sum(masks.alive.values()) == 30
    with pytest.raises(PruningError, match="expected falling numbers"):
        iterative(module, Magnitude(), (), [10, 20], retraining)


def test_gradual_pruning_follows_the_cubic_and_never_revives() -> None:
    module = small_net()
    masks = Masks(module, {n: torch.ones_like(p, dtype=torch.bool) for n, p in module.named_parameters() if p.ndim > 1})
    gradual = GradualPruning(module, masks, Magnitude(), (), 28, until=0.8, events=8)
    counts, before = [], {n: m.clone() for n, m in masks.masks.items()}
    for step in range(1, 21):
        gradual.after_step(step / 20)
        counts.append(alive(module))
        assert all(not bool((m & ~before[n]).any()) for n, m in masks.masks.items())
        before = {n: m.clone() for n, m in masks.masks.items()}
    total = 16 * 12 + 12 * 3
    by_hand = [round(28 + (total - 28) * max(0.0, 1 - (step // 2) / 8) ** 3) for step in range(1, 21)]
    assert counts == by_hand
    with pytest.raises(PruningError, match=f"expected to keep 1 to 28 weights, found {total}"):
        GradualPruning(module, masks, Magnitude(), (), total)


def test_drop_and_grow_swaps_the_smallest_for_the_largest_gradients() -> None:
    module = nn.Sequential(nn.Linear(4, 2, bias=False))
    module[0].weight.data = torch.tensor([[0.1, 0.0, 3.0, 0.0], [2.0, 0.2, 0.0, 0.0]])
    masks = Masks.from_zeros(module)
    rigl = DropAndGrow(module, masks, fraction=0.5, every=2, until=0.75)
    module[0].weight.grad = torch.tensor([[9.0, -1.0, 9.0, 5.0], [9.0, 9.0, -6.0, 0.5]])
    rigl.before_step(0.0)
    assert masks.masks["0.weight"].tolist() == [[True, False, True, False], [True, True, False, False]]
    assert module[0].weight.grad.tolist() == [[9, 0, 9, 0], [9, 9, 0, 0]]
    module[0].weight.grad = torch.tensor([[9.0, -1.0, 9.0, 5.0], [9.0, 9.0, -6.0, 0.5]])
    rigl.before_step(0.0)
    assert masks.masks["0.weight"].tolist() == [[False, False, True, True], [True, False, True, False]]
    assert module.get_parameter("0.weight").tolist() == [[0, 0, 3, 0], [2, 0, 0, 0]]
    assert module[0].weight.grad.tolist() == [[0, 0, 9, 5], [9, 0, -6, 0]]
    with pytest.raises(PruningError, match="fraction"):
        DropAndGrow(module, masks, fraction=1.0)


def test_drop_and_grow_keeps_each_layers_number_while_training() -> None:
    module = small_net()
    start = one_shot(module, Magnitude(), (), 60)
    numbers, first = start.alive, {n: m.clone() for n, m in start.masks.items()}
    fit(module, small_images(64), PLAN, seed=0, constraints=(DropAndGrow(module, start, every=2),))
    assert start.alive == numbers
    assert any(not torch.equal(m, first[n]) for n, m in start.masks.items())
    assert all(bool((dict(module.named_parameters())[n][~m] == 0).all()) for n, m in start.masks.items())


@pytest.mark.parametrize("kind", ["l1", "l2", "hoyer-square"])
def test_penalties_add_the_gradient_of_their_formula(kind: str) -> None:
    module = nn.Sequential(nn.Linear(5, 4))
    weight = module.get_parameter("0.weight")
    value = {
        "l1": lambda w: w.abs().sum(),
        "l2": lambda w: (w**2).sum() / 2,
        "hoyer-square": lambda w: w.abs().sum() ** 2 / (w**2).sum(),
    }[kind](weight)
    by_hand = torch.autograd.grad(value, weight)[0]
    weight.grad = torch.ones_like(weight)
    Penalty(module, kind, 0.3).before_step(0.5)
    torch.testing.assert_close(weight.grad, 1 + 0.3 * by_hand)


def test_an_unknown_penalty_is_refused() -> None:
    with pytest.raises(PruningError, match="penalty: expected l1, l2 or hoyer-square, found 'l0'"):
        Penalty(small_net(), "l0", 1.0)


def test_hoyer_square_gives_sparser_weights() -> None:
    with_penalty, without = small_net(), small_net()
    plan = TrainingPlan(epochs=10, lr=1e-2, batch=16)
    fit(with_penalty, small_images(64), plan, seed=0, constraints=(Penalty(with_penalty, "hoyer-square", 0.02),))
    fit(without, small_images(64), plan, seed=0)

    def measure(module: nn.Sequential) -> float:
        w = module.get_parameter("1.weight").detach()
        return float(w.abs().sum() ** 2 / (w**2).sum())

    assert measure(with_penalty) < 0.8 * measure(without)


def test_lottery_ticket_rewinds_survivors_to_their_early_values() -> None:
    module = small_net()
    initial = module.get_parameter("1.weight").detach().clone()

    def progress(stage: str, done: float, *_: object) -> None:
        if done == int(done):
            stages.append(stage)

    stages: list[str] = []
    masks = lottery_ticket(module, Retraining(small_images(64), PLAN, progress=progress), keep=100, rate=0.4)
    assert sum(masks.alive.values()) == 100 and alive(module) == 100
    assert stages == ["round 1"] * 2 + ["round 2"] * 2 + ["round 3"] * 2  # 228, 137, 100 weights
    # Nothing is learnt at a learning rate of 0, so the remaining weights are exactly the initial values.
    still = small_net()
    masks = lottery_ticket(still, Retraining(small_images(64), TrainingPlan(epochs=1, lr=0.0, batch=16)), keep=150)
    assert torch.equal(still.get_parameter("1.weight").detach(), initial * masks.masks["1.weight"])


def test_rewind_remembers_the_values_of_its_moment() -> None:
    module = small_net()
    kept = Rewind(module, 0.5)
    for progress in (0.25, 0.5, 0.75):
        module.get_parameter("1.weight").data.fill_(progress)
        kept.after_step(progress)
    kept.restore()
    assert bool((module.get_parameter("1.weight") == 0.5).all())
    with pytest.raises(PruningError, match="rate"):
        lottery_ticket(module, Retraining(small_images(64), PLAN), keep=10, rate=1.0)
    with pytest.raises(PruningError, match="expected to keep 1 to 228 weights, found 0"):
        lottery_ticket(module, Retraining(small_images(64), PLAN), keep=0)


def test_nan_gradients_in_training_name_the_layer() -> None:
    module = small_net()
    module.get_parameter("3.weight").data[0, 0] = math.nan
    with pytest.raises(DivergenceError, match=r"weight.*NaN"):
        fit(module, small_images(64), PLAN, seed=0)


def test_fold_batch_norm_keeps_outputs_zeros_and_parameters() -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, bias=False)
            self.norm = nn.BatchNorm2d(3)
            self.early = nn.BatchNorm2d(2)
            self.fc = nn.Linear(12, 4)
            self.last = nn.BatchNorm1d(4, affine=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.fc(torch.relu(self.norm(self.conv(self.early(x)))).flatten(1)))

    module = Net()
    for _ in range(3):
        module(torch.randn(8, 2, 4, 4) * 2 + 1)
    with torch.no_grad():
        module.norm.weight.uniform_(-1, 1)
        module.norm.bias.uniform_(-1, 1)
        module.conv.weight[0, 0] = 0
    module.eval()
    x = torch.randn(5, 2, 4, 4)
    before, weight = module(x), module.conv.weight
    assert fold_batch_norm(module) == ["norm", "last"]
    torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-5)
    assert module.conv.weight is weight and bool((weight[0, 0] == 0).all())
    assert isinstance(module.norm, nn.Identity) and isinstance(module.early, nn.BatchNorm2d)
    bad = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))
    with pytest.raises(
        UnsupportedModuleError, match=r"1 \(BatchNorm2d\): expected a batch norm with running statistics"
    ):
        fold_batch_norm(bad)


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, groups=2, bias=False), nn.BatchNorm1d(6), (4, 9)),
        (nn.Conv1d(4, 4, 3, padding=1, groups=4), nn.BatchNorm1d(4), (4, 9)),
        (nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), (4, 5, 5)),
        (nn.ConvTranspose1d(4, 6, 3, stride=3, groups=2), nn.BatchNorm1d(6), (4, 5)),
        (nn.ConvTranspose2d(4, 4, 3, stride=2, groups=4, output_padding=1, bias=False), nn.BatchNorm2d(4), (4, 5, 5)),
        (nn.ConvTranspose2d(4, 6, (2, 3), stride=2, dilation=2), nn.BatchNorm2d(6, affine=False), (4, 5, 5)),
    ],
)  # fmt: skip
def test_norms_are_folded_into_convolutions_of_all_kinds(
    layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(layer, norm, nn.ReLU())
    for _ in range(3):
        module(torch.randn(8, *shape) + 1)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(-1, 1)
    module.eval()
    x = torch.randn(5, *shape)
    before = module(x)
    assert fold_batch_norm(module) == ["1"]
    torch.testing.assert_close(module(x), before, rtol=0, atol=1e-5)
    assert isinstance(module[1], nn.Identity)


def test_a_norm_of_another_axis_is_not_folded() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(3)).eval()
    x = torch.randn(5, 3, 4)
    before = module(x)
    assert fold_batch_norm(module) == []
    assert torch.equal(module(x), before)


def test_masks_of_torch_prune_are_folded_and_then_train_on() -> None:
    module = small_net()
    nn.utils.prune.l1_unstructured(module[1], "weight", amount=0.75)
    nn.utils.prune.random_unstructured(module[3], "weight", amount=0.5)
    x = small_images(64).floats(slice(0, 8))
    before = module(x)
    parameters = [module[1].weight_orig, module[3].weight_orig]
    assert sorted(fold_torch_prune(module)) == ["1.weight", "3.weight"]
    torch.testing.assert_close(module(x), before)
    assert module[1].weight is parameters[0] and module[3].weight is parameters[1]
    masks = Masks.from_zeros(module)
    fit(module, small_images(64), PLAN, seed=0, constraints=(masks,))
    assert alive(module) == 48 + 18


def test_folding_leaves_no_negative_zeros() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.BatchNorm2d(2)).eval()
    with torch.no_grad():
        module.get_parameter("0.weight").copy_(torch.tensor([0.0, 1.0, 0.0, 2.0, -1.0, 0.0, 0.0, 1.0]).view(2, 1, 2, 2))
        module.get_parameter("1.weight").fill_(-1.0)
    nn.utils.prune.l1_unstructured(module[0], "weight", amount=2)
    fold_torch_prune(module)
    fold_batch_norm(module)
    weight = module.get_parameter("0.weight").detach()
    assert not bool(torch.signbit(weight[weight == 0]).any()) and int((weight == 0).sum()) >= 4
