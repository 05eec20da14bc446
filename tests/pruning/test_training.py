"""The training loop and its data: seeds, targets, averages, and errors that name the layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dcformat_pruning.data import Augmentation, Pool, training_data
from dcformat_pruning.training import (
    DivergenceError,
    TrainingPlan,
    evaluate,
    fit,
    memory_format,
    objective,
    resolve_device,
)
from torch import nn
from torch.nn import functional

from tests.pruning.support import small_images, small_net

MILD = Augmentation(shift=0.3, rotate=5, scale=0.05, shear=0.05)


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 2e-2), ("sgd", 0.2)])
def test_training_repeats_bit_for_bit_and_learns(optimizer: str, lr: float) -> None:
    plan = TrainingPlan(epochs=20, lr=lr, batch=16, optimizer=optimizer, augmentation=MILD, ema=0.9)
    runs = [small_net(), small_net(), small_net()]
    for module, seed in zip(runs, (1, 1, 2), strict=True):
        fit(module, small_images(), plan, seed=seed)
    first, same, other = (torch.cat([p.flatten() for p in module.parameters()]) for module in runs)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert evaluate(runs[0], small_images()) > 0.9


def test_the_average_of_the_weights_lags_behind_them() -> None:
    plain, averaged = small_net(), small_net()
    fit(plain, small_images(), TrainingPlan(epochs=1, lr=1e-2, batch=16, warmup=0), seed=0)
    fit(averaged, small_images(), TrainingPlan(epochs=1, lr=1e-2, batch=16, warmup=0, ema=0.999), seed=0)
    start = nn.utils.parameters_to_vector(small_net().parameters()).detach()
    moved = [torch.dist(start, nn.utils.parameters_to_vector(m.parameters()).detach()) for m in (plain, averaged)]
    assert 0 < moved[1] < 0.1 * moved[0]


def test_a_pool_holds_the_images_first_and_other_copies_after() -> None:
    source = small_images()
    pool = Pool.make(source, MILD, 3, seed=0)
    assert torch.equal(pool.copies[0], source.pixels)
    assert not torch.equal(pool.copies[1], pool.copies[2])
    assert torch.equal(pool.copies, Pool.make(source, MILD, 3, seed=0).copies)
    seen = list(pool.batches(16, torch.Generator().manual_seed(0), Augmentation()))
    assert len(seen) == 6
    known = pool.copies.flatten(0, 1).float() / 255
    for x, y in seen:
        for image, label in zip(x, y, strict=True):
            at = (known == image).flatten(1).all(1).nonzero().flatten()
            assert (source.labels[at % len(source)] == label).all()


def test_a_taught_pool_mixes_the_teachers_probabilities_with_the_labels() -> None:
    teacher = small_net(5).eval()
    source = small_images()
    pool = Pool.make(source, MILD, 2, seed=0)
    soft = list(pool.taught(teacher, 0.25).batches(16, torch.Generator().manual_seed(0), Augmentation()))
    hard = list(pool.batches(16, torch.Generator().manual_seed(0), Augmentation()))
    student = small_net()
    for (x, targets), (same, labels) in zip(soft, hard, strict=True):
        assert torch.equal(x, same)
        expected = 0.25 * teacher(x).softmax(1) + 0.75 * functional.one_hot(labels, 3)
        torch.testing.assert_close(targets, expected, rtol=1e-3, atol=1e-3)
        mixed = objective(student, (x, labels), TrainingPlan(1, 1e-2, distill=0.25, temperature=1.0), teacher)
        torch.testing.assert_close(
            objective(student, (x, targets), TrainingPlan(1, 1e-2), None), mixed, rtol=1e-3, atol=1e-3
        )


def test_distillation_and_l1_enter_the_loss_as_planned() -> None:
    module, teacher = small_net(), small_net(1).eval()
    x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 3
    hard = objective(module, (x, y), TrainingPlan(1, 1e-2), teacher)
    soft = 4 * functional.cross_entropy(module(x) / 2, functional.softmax(teacher(x) / 2, 1))
    mixed = objective(module, (x, y), TrainingPlan(1, 1e-2, distill=0.25, temperature=2.0), teacher)
    torch.testing.assert_close(mixed, 0.75 * hard + 0.25 * soft)
    total = sum(p.abs().sum() for p in module.parameters() if p.ndim > 1)
    torch.testing.assert_close(objective(module, (x, y), TrainingPlan(1, 1e-2, l1=0.1), None), hard + 0.1 * total)


def test_divergence_is_reported_with_stage_epoch_and_layer() -> None:
    with pytest.raises(DivergenceError, match=r"^retrain, epoch 1: 1\.weight: expected finite (gradients|values)"):
        fit(small_net(), small_images(), TrainingPlan(epochs=3, lr=1e38, batch=16, warmup=0), seed=0, stage="retrain")


def test_an_unknown_optimizer_or_device_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer: expected 'adam' or 'sgd', found 'lion'"):
        fit(small_net(), small_images(), TrainingPlan(epochs=1, lr=1e-3, optimizer="lion"), seed=0)
    with pytest.raises(ValueError, match="device: expected auto, cpu or cuda, found 'tpu'"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: expected a CUDA device for 'cuda', found none"):
            resolve_device("cuda")


def test_the_validation_images_are_the_same_for_all_seeds_and_not_trained_on(digits: Path) -> None:
    data, again = training_data(digits), training_data(digits)
    assert torch.equal(data.validation.pixels, again.validation.pixels)
    assert (len(data.train), len(data.validation)) == (512, 128)
    train = {bytes(p.numpy()) for p in data.train.pixels}
    assert not train & {bytes(p.numpy()) for p in data.validation.pixels}


def test_no_augmentation_changes_nothing_and_a_shift_moves_images() -> None:
    x = torch.zeros(50, 1, 9, 9)
    x[:, :, 4, 4] = 1
    generator = torch.Generator().manual_seed(0)
    assert Augmentation()(x, generator) is x
    moved = Augmentation(shift=3)(x, generator)
    row = torch.arange(9.0)
    centre = (moved.sum((1, 2)) * row).sum(1) / moved.sum((1, 2, 3))
    assert centre.min() < 2.5 and centre.max() > 5.5
    assert centre.min() >= 0.9 and centre.max() <= 7.1


def test_convolutions_train_channels_last_and_end_as_they_were() -> None:
    def conv() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 2), nn.Conv2d(4, 3, 2), nn.Flatten(), nn.Linear(12, 3))

    first, second = conv(), conv()
    parameters = list(first.parameters())
    for module in (first, second):
        fit(module, small_images(), TrainingPlan(epochs=3, lr=1e-2, batch=16), seed=0)
    assert memory_format(first) == torch.channels_last
    assert memory_format(small_net()) == torch.contiguous_format
    for before, after, other in zip(parameters, first.parameters(), second.parameters(), strict=True):
        assert after is before and after.is_contiguous()
        assert torch.equal(after, other)
