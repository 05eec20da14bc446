"""The recipe `default`: the smallest network that a few minutes on two cores can make.

The dense network trains briefly and loses all but its best hidden units. The small network is pruned gradually while it
trains at a high learning rate (`GradualBalanced`). Weights are tied to few values in portions while the others still
train, and codebooks and biases are rounded to few bits. Images come from a pool of copies, augmented beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dcformat_pruning.data import Augmentation
from dcformat_pruning.recipes.recipe import LENET_SETTINGS, Recipe, RecipeGoal
from dcformat_pruning.training import TrainingPlan
from dcformat_pruning.training_stages.stage_library import pool, train

_IMAGES = pool(Augmentation(shift=1.5, rotate=10.0, scale=0.1, shear=0.1), 12)

_SETTINGS = replace(LENET_SETTINGS, clusters=12, bits=7, levels=15)

DEFAULT: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(train(TrainingPlan(epochs=4, lr=2e-3), _IMAGES),),
        goal=RecipeGoal(7000, {"fc1": 200, "fc2": 80}, _IMAGES, replace(_SETTINGS, epochs=(60, 12, 1))),
    ),
    "lenet-5": Recipe(
        stages=(train(TrainingPlan(epochs=2, lr=2e-3, batch=128), _IMAGES),),
        goal=RecipeGoal(
            6000,
            {"conv1": 10, "conv2": 24, "fc1": 100},
            _IMAGES,
            replace(_SETTINGS, epochs=(14, 5, 1), power=0.25),
        ),
        cost=7.0,
    ),
}
