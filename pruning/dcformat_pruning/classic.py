"""The recipe `classic`: Deep Compression as published (Han, Mao, Dally 2016).

Magnitude pruning to the paper's density of each layer (tables 2 and 3), retraining of what is left, k-means
weight sharing with linear initialisation, and fine-tuning of the centroids with gradients summed over each
cluster. Our one addition is augmentation while training (small shifts, rotations and scales), without which
the paper's baseline error of 1.64 % is not reached by every seed. Convolutions have 32 clusters, not the paper's 256:
a larger codebook costs more bytes than it saves error.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dcformat_pruning.data import Augmentation
from dcformat_pruning.masks import Masks, magnitude_masks
from dcformat_pruning.stages import Context, Recipe, Stage, finetune, pool, share_each, train
from dcformat_pruning.training import Plan

_LIGHT = pool(Augmentation(shift=1.5, rotate=8.0, scale=0.08, shear=0.08), 8)


def prune(densities: Mapping[str, float]) -> Stage:
    """Keep the largest weights of each layer, once."""

    def run(module: nn.Sequential, context: Context) -> None:
        Masks(module, magnitude_masks(module, densities)).apply()

    return Stage("prune", run)


def retrain(plan: Plan) -> Stage:
    """Train the weights that are left."""

    def run(module: nn.Sequential, context: Context) -> None:
        context.fit(module, plan, Masks.from_zeros(module), images=_LIGHT(context))

    return Stage("retrain", run, plan.epochs)


CLASSIC: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(
            train(Plan(epochs=14, lr=2e-3), _LIGHT),
            prune({"fc1.weight": 0.08, "fc2.weight": 0.09, "fc3.weight": 0.26}),
            retrain(Plan(epochs=24, lr=4e-3)),
            share_each({"fc1.weight": 64, "fc2.weight": 64, "fc3.weight": 64}, "linear"),
            finetune(Plan(epochs=2, lr=1e-4), _LIGHT),
        ),
        mode="fast",
    ),
    "lenet-5": Recipe(
        stages=(
            train(Plan(epochs=3, lr=2e-3, batch=128), _LIGHT),
            prune({"conv1.weight": 0.66, "conv2.weight": 0.12, "fc1.weight": 0.08, "fc2.weight": 0.19}),
            retrain(Plan(epochs=4, lr=1e-3, batch=128)),
            share_each({"conv1.weight": 32, "conv2.weight": 32, "fc1.weight": 32, "fc2.weight": 32}, "linear"),
            finetune(Plan(epochs=1, lr=1e-4, batch=128), _LIGHT),
        ),
        cost=7.0,
        mode="fast",
    ),
}
