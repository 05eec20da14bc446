"""The recipe `classic`: Deep Compression as published (Han, Mao, Dally 2016).

Magnitude pruning to the paper's density of each layer (tables 2 and 3), retraining of what is left, k-means
weight sharing with linear initialisation, and fine-tuning of the centroids with gradients summed over each
cluster. Our one addition is augmentation while training (small shifts, rotations and scales), without which
the paper's baseline error of 1.64 % is not reached by every seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from dcformat_pruning.data import Augmentation
from dcformat_pruning.masks import Masks, magnitude_masks, weight_names
from dcformat_pruning.recipes import Context, Recipe, Stage
from dcformat_pruning.sharing import SharedWeights, share
from dcformat_pruning.training import Plan, fit

_LIGHT = Augmentation(shift=1.5, rotate=8.0, scale=0.08, shear=0.08)


def _train(plan: Plan) -> Stage:
    def run(module: nn.Module, context: Context) -> None:
        fit_stage(module, context, plan)

    return Stage("train", run, plan.epochs)


def _prune(densities: Mapping[str, float]) -> Stage:
    def run(module: nn.Module, context: Context) -> None:
        Masks(module, magnitude_masks(module, densities)).apply()

    return Stage("prune", run)


def _retrain(plan: Plan) -> Stage:
    def run(module: nn.Module, context: Context) -> None:
        fit_stage(module, context, plan, Masks.from_zeros(module))

    return Stage("retrain", run, plan.epochs)


def _share(clusters: Mapping[str, int]) -> Stage:
    def run(module: nn.Module, context: Context) -> None:
        share(module, clusters, "linear")

    return Stage("share", run)


def _finetune(plan: Plan) -> Stage:
    def run(module: nn.Module, context: Context) -> None:
        fit_stage(module, context, plan, SharedWeights.from_values(module, weight_names(module)))

    return Stage("fine-tune", run, plan.epochs)


def fit_stage(module: nn.Module, context: Context, plan: Plan, *constraints: Masks | SharedWeights) -> None:
    """Run one stage's training with the context's data, seed and progress."""
    fit(
        module,
        context.data.train,
        replace(plan, epochs=context.epochs(plan.epochs)),
        seed=context.seed,
        constraints=constraints,
        stage=context.stage,
        progress=context.progress,
    )


CLASSIC: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(
            _train(Plan(epochs=16, lr=2e-3, augmentation=_LIGHT)),
            _prune({"fc1.weight": 0.08, "fc2.weight": 0.09, "fc3.weight": 0.26}),
            _retrain(Plan(epochs=16, lr=2e-3, augmentation=_LIGHT)),
            _share({"fc1.weight": 64, "fc2.weight": 64, "fc3.weight": 64}),
            _finetune(Plan(epochs=3, lr=1e-4, augmentation=_LIGHT)),
        ),
        mode="fast",
    ),
    "lenet-5": Recipe(
        stages=(
            _train(Plan(epochs=5, lr=2e-3, batch=128, augmentation=_LIGHT)),
            _prune({"conv1.weight": 0.66, "conv2.weight": 0.12, "fc1.weight": 0.08, "fc2.weight": 0.19}),
            _retrain(Plan(epochs=5, lr=1e-3, batch=128, augmentation=_LIGHT)),
            _share({"conv1.weight": 255, "conv2.weight": 255, "fc1.weight": 32, "fc2.weight": 32}),
            _finetune(Plan(epochs=1, lr=1e-4, batch=128, augmentation=_LIGHT)),
        ),
        mode="fast",
    ),
}
