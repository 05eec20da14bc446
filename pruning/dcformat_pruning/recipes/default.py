"""The recipe `default`: the smallest network that a few minutes on two cores can make.

The dense network trains briefly and loses all but its best hidden units. The small network is pruned gradually while it
trains at a high learning rate (`GradualBalanced`). Weights are tied to few values in portions while the others still
train, and codebooks and biases are rounded to few bits. Images come from a pool of copies, augmented beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcformat_pruning.data import Augmentation
from dcformat_pruning.recipes.recipe import Recipe
from dcformat_pruning.recipes.stage_library import (
    ordered,
    pool,
    prune_gradually,
    quantise_and_finetune,
    share_in_portions,
    train,
)
from dcformat_pruning.training import TrainingPlan

_IMAGES = pool(Augmentation(shift=1.5, rotate=10.0, scale=0.1, shear=0.1), 12)

DEFAULT: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(
            train(TrainingPlan(epochs=4, lr=2e-3), _IMAGES),
            prune_gradually(TrainingPlan(epochs=60, lr=8e-3), 7000, _IMAGES, {"fc1": 200, "fc2": 80}),
            share_in_portions(TrainingPlan(epochs=12, lr=2e-3), 12, _IMAGES),
            quantise_and_finetune(TrainingPlan(epochs=1, lr=5e-4), 7, 15, _IMAGES),
        ),
        mode="tiny",
        finish=ordered("fast"),
    ),
    "lenet-5": Recipe(
        stages=(
            train(TrainingPlan(epochs=2, lr=2e-3, batch=128), _IMAGES),
            prune_gradually(
                TrainingPlan(epochs=14, lr=8e-3), 6000, _IMAGES, {"conv1": 10, "conv2": 24, "fc1": 100}, power=0.25
            ),
            share_in_portions(TrainingPlan(epochs=5, lr=2e-3), 12, _IMAGES),
            quantise_and_finetune(TrainingPlan(epochs=1, lr=5e-4), 7, 15, _IMAGES),
        ),
        cost=7.0,
        mode="tiny",
        finish=ordered("fast"),
    ),
}
