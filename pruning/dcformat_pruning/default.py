"""The recipe `default`: the smallest network that a few minutes on two cores can make.

The dense network is trained briefly, narrowed to its best hidden units, and pruned gradually while the small
network trains at a high learning rate (`gradual.GradualBalanced`). Weights are tied to few values in portions while the
rest still train; codebooks and biases are rounded to few bits. Images come from a pool of copies augmented beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcformat_pruning.data import Augmentation
from dcformat_pruning.stages import Recipe, ordered, pool, prune_gradually, settle, share_in_portions, train
from dcformat_pruning.training import Plan

_AUGMENTATION = Augmentation(shift=1.5, rotate=10.0, scale=0.1, shear=0.1)

_IMAGES = pool(_AUGMENTATION, 12)


DEFAULT: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(
            train(Plan(epochs=4, lr=2e-3), _IMAGES),
            prune_gradually(Plan(epochs=60, lr=8e-3), 7000, _IMAGES, {"fc1": 200, "fc2": 80}),
            share_in_portions(Plan(epochs=12, lr=2e-3), 12, _IMAGES),
            settle(Plan(epochs=1, lr=5e-4), 7, 15, _IMAGES),
        ),
        mode="tiny",
        finish=ordered("fast"),
    ),
    "lenet-5": Recipe(
        stages=(
            train(Plan(epochs=2, lr=2e-3, batch=128), _IMAGES),
            prune_gradually(
                Plan(epochs=14, lr=8e-3), 6000, _IMAGES, {"conv1": 10, "conv2": 24, "fc1": 100}, power=0.25
            ),
            share_in_portions(Plan(epochs=5, lr=2e-3), 12, _IMAGES),
            settle(Plan(epochs=1, lr=5e-4), 7, 15, _IMAGES),
        ),
        cost=7.0,
        mode="tiny",
        finish=ordered("fast"),
    ),
}
