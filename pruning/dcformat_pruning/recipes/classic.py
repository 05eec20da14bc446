"""The recipe `classic`: Deep Compression as published (Han, Mao and Dally 2016).

Weights are pruned by magnitude to the paper's density of each layer (tables 2 and 3), the remaining weights are
retrained, k-means with linear initialisation shares them, and the centroids are fine-tuned with gradients summed over
each cluster.

There are two differences. Images are augmented while training (small shifts, rotations and scales), because otherwise
not every seed reaches the paper's baseline error of 1.64 %. Convolutions have 32 clusters in place of the paper's 256,
because a larger codebook costs more bytes than the lower error is worth.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcformat_pruning.data import Augmentation
from dcformat_pruning.recipes.recipe import Recipe
from dcformat_pruning.training import TrainingPlan
from dcformat_pruning.training_stages.stage_library import finetune, pool, prune, retrain, share_each, train

_LIGHT = pool(Augmentation(shift=1.5, rotate=8.0, scale=0.08, shear=0.08), 8)


CLASSIC: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(
            train(TrainingPlan(epochs=14, lr=2e-3), _LIGHT),
            prune({"fc1.weight": 0.08, "fc2.weight": 0.09, "fc3.weight": 0.26}),
            retrain(TrainingPlan(epochs=24, lr=4e-3), _LIGHT),
            share_each({"fc1.weight": 64, "fc2.weight": 64, "fc3.weight": 64}, "linear"),
            finetune(TrainingPlan(epochs=2, lr=1e-4), _LIGHT),
        ),
        mode="fast",
    ),
    "lenet-5": Recipe(
        stages=(
            train(TrainingPlan(epochs=3, lr=2e-3, batch=128), _LIGHT),
            prune({"conv1.weight": 0.66, "conv2.weight": 0.12, "fc1.weight": 0.08, "fc2.weight": 0.19}),
            retrain(TrainingPlan(epochs=4, lr=1e-3, batch=128), _LIGHT),
            share_each({"conv1.weight": 32, "conv2.weight": 32, "fc1.weight": 32, "fc2.weight": 32}, "linear"),
            finetune(TrainingPlan(epochs=1, lr=1e-4, batch=128), _LIGHT),
        ),
        cost=7.0,
        mode="fast",
    ),
}
