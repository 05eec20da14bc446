"""Trains the dense image networks of the study."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from dcformat_pruning.data import FlipShift, Images, TrainingData
from dcformat_pruning.study.image_networks import image_network
from dcformat_pruning.training import EpochProgress, TrainingPlan, fit

#: Convolutional networks: SGD and one cycle of the learning rate.
_CONVOLUTIONS = TrainingPlan(
    epochs=30, lr=0.1, batch=128, optimizer="sgd", weight_decay=3e-4, warmup=0.2, smoothing=0.05, bfloat16=True
)

#: Transformers: AdamW.
_TRANSFORMERS = replace(_CONVOLUTIONS, lr=2e-3, optimizer="adam", weight_decay=0.05)


def plan_of(name: str, images: Images) -> TrainingPlan:
    """Return the plan that trains a network of `image_networks.IMAGE_NETWORKS` on such images.

    Images in colour are shifted by up to 4 pixels and mirrored; grey ones, which may be of digits, are shifted by up
    to 2 pixels.
    """
    colour = images.pixels.shape[1] == 3
    plan = _TRANSFORMERS if name == "vit" else _CONVOLUTIONS
    return replace(plan, augmentation=FlipShift(4 if colour else 2, flip=colour))


def train_dense(
    name: str, data: TrainingData, seed: int, epochs: int | None = None, progress: EpochProgress | None = None
) -> nn.Module:
    """Train a dense network and return it in eval mode.

    Parameters
    ----------
    name : str
        A key of `image_networks.IMAGE_NETWORKS`.
    seed : int
        Seeds the initial weights, the order of the images and their changes.
    epochs : int, optional
        The default is that of the plan.
    progress : callable, optional
        See `dcformat_pruning.training.Progress`.

    Raises
    ------
    ValueError
        The network is unknown.
    """
    channels, size = data.train.pixels.shape[1:3]
    module = image_network(name, channels, size, seed)
    plan = plan_of(name, data.train)
    chosen = plan if epochs is None else replace(plan, epochs=epochs)
    fit(module, data.train, chosen, seed=seed, stage=name, progress=progress)
    return module
