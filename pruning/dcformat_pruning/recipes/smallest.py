"""The recipes `record` and `extreme`: the smallest files, which take half an hour of training or more.

They differ from `default` in two ways: a convolutional teacher gives the targets, and pruning takes longer and goes
further. docs/records.md shows what each part is worth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from dcformat_pruning.compression import Settings
from dcformat_pruning.data import Augmentation
from dcformat_pruning.feeds import Feed
from dcformat_pruning.recipes.recipe import LENET_SETTINGS, Recipe, RecipeGoal
from dcformat_pruning.training import TrainingPlan
from dcformat_pruning.training_stages.stage import Stage, StageContext
from dcformat_pruning.training_stages.stage_library import pool, train

_AUGMENTATION = Augmentation(shift=1.5, rotate=10.0, scale=0.1, shear=0.1)
_COPIES = 16
_IMAGES = pool(_AUGMENTATION, _COPIES)
_TEACHER = "teacher."


def teacher() -> nn.Sequential:
    """Build the teacher's network, which reaches an accuracy of about 99.5 % on the validation images."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(512, 128),
            relu3=nn.ReLU(),
            dropout=nn.Dropout(0.3),
            fc2=nn.Linear(128, 10),
        )
    )


def teach(plan: TrainingPlan) -> Stage:
    """Return a stage that trains the teacher and carries its weights; the network is not changed."""

    def run(module: nn.Module, context: StageContext) -> None:
        network = teacher().to(context.device)
        context.fit(network, plan, data=_IMAGES(context))
        context.carried.update({_TEACHER + name: value for name, value in network.state_dict().items()})

    return Stage("teach", run, plan.epochs, cost=10.0)


def taught(context: StageContext) -> Feed:
    """Return the augmented images with the targets of the carried teacher."""
    network = teacher().to(context.device)
    carried = context.carried.items()
    network.load_state_dict({n.removeprefix(_TEACHER): v for n, v in carried if n.startswith(_TEACHER)})
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return context.pool(_AUGMENTATION, _COPIES, network)


_SETTINGS = replace(LENET_SETTINGS, clusters=8, bits=6, levels=7)

_TEACH = teach(TrainingPlan(epochs=9, lr=2.5e-3, batch=128, ema=0.999))


def _lenet_300_100(keep: int, units: Mapping[str, int], settings: Settings) -> Recipe:
    """Return a recipe that keeps `keep` weights of LeNet-300-100."""
    return Recipe(
        stages=(train(TrainingPlan(epochs=4, lr=2e-3), _IMAGES), _TEACH),
        goal=RecipeGoal(keep, units, taught, replace(settings, epochs=(240, 45, 3))),
    )


RECORD: Mapping[str, Recipe] = {
    "lenet-300-100": _lenet_300_100(3200, {"fc1": 200, "fc2": 80}, _SETTINGS),
    "lenet-5": Recipe(
        stages=(train(TrainingPlan(epochs=2, lr=2e-3, batch=128), _IMAGES), _TEACH),
        goal=RecipeGoal(2250, {"conv1": 10, "conv2": 25, "fc1": 120}, taught, replace(_SETTINGS, epochs=(100, 24, 3))),
        cost=7.0,
    ),
}

#: The fewest bytes for an accuracy of 95.83 %, which Rakivnenko's article of 2025 (docs/study.md) reports for a network
#: with 65 times fewer parameters.
EXTREME: Mapping[str, Recipe] = {
    "lenet-300-100": _lenet_300_100(920, {"fc1": 60, "fc2": 30}, replace(_SETTINGS, clusters=6, bits=5)),
}
