"""The recipe `record`: the smallest file, for half an hour of training and more.

As `default`, and a convolutional teacher gives the targets, pruning is slower and goes further, and weights are tied
to few values in portions while the rest still train. What each part is worth is in docs/records.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from dcformat_pruning.data import Augmentation, Images, Pool
from dcformat_pruning.stages import (
    Context,
    Recipe,
    Stage,
    ordered,
    pool,
    prune_gradually,
    settle,
    share_in_portions,
    train,
)
from dcformat_pruning.training import Plan

_AUGMENTATION = Augmentation(shift=1.5, rotate=10.0, scale=0.1, shear=0.1)
_COPIES = 16
_IMAGES = pool(_AUGMENTATION, _COPIES)
_TEACHER = "teacher."


def teacher() -> nn.Sequential:
    """Build the network that is learnt from: about 99.5 % right on the validation images."""
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


def teach(plan: Plan) -> Stage:
    """Train the teacher and carry its weights; the network stays as it is."""

    def run(module: nn.Sequential, context: Context) -> None:
        # Dropout draws from the global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.stage_seed)
            network = teacher().to(context.data.train.pixels.device)
            context.fit(network, plan, images=_IMAGES(context))
        context.carried.update({_TEACHER + name: value for name, value in network.state_dict().items()})

    return Stage("teach", run, plan.epochs, cost=10.0)


def taught(context: Context) -> Images | Pool:
    """Return the augmented images with the carried teacher's targets."""
    network = teacher().to(context.data.train.pixels.device)
    carried = context.carried.items()
    network.load_state_dict({n.removeprefix(_TEACHER): v for n, v in carried if n.startswith(_TEACHER)})
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return context.pool(_AUGMENTATION, _COPIES, network)


RECORD: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(
            train(Plan(epochs=4, lr=2e-3), _IMAGES),
            teach(Plan(epochs=9, lr=2.5e-3, batch=128, ema=0.999)),
            prune_gradually(Plan(epochs=240, lr=8e-3), 3200, taught, {"fc1": 200, "fc2": 80}),
            share_in_portions(Plan(epochs=45, lr=2e-3), 8, taught),
            settle(Plan(epochs=3, lr=5e-4), 6, 7, taught),
        ),
        mode="tiny",
        finish=ordered("fast"),
    ),
    "lenet-5": Recipe(
        stages=(
            train(Plan(epochs=2, lr=2e-3, batch=128), _IMAGES),
            teach(Plan(epochs=9, lr=2.5e-3, batch=128, ema=0.999)),
            prune_gradually(Plan(epochs=100, lr=8e-3), 2250, taught, {"conv1": 10, "conv2": 25, "fc1": 120}),
            share_in_portions(Plan(epochs=24, lr=2e-3), 8, taught),
            settle(Plan(epochs=3, lr=5e-4), 6, 7, taught),
        ),
        cost=7.0,
        mode="tiny",
        finish=ordered("fast"),
    ),
}

#: As few bytes as keep 95.83 % right: the accuracy at which the 2025 article has 65 times fewer weights.
EXTREME: Mapping[str, Recipe] = {
    "lenet-300-100": Recipe(
        stages=(
            train(Plan(epochs=4, lr=2e-3), _IMAGES),
            teach(Plan(epochs=9, lr=2.5e-3, batch=128, ema=0.999)),
            prune_gradually(Plan(epochs=240, lr=8e-3), 920, taught, {"fc1": 60, "fc2": 30}),
            share_in_portions(Plan(epochs=45, lr=2e-3), 6, taught),
            settle(Plan(epochs=3, lr=5e-4), 5, 7, taught),
        ),
        mode="tiny",
        finish=ordered("fast"),
    )
}
