"""The dense networks that the study prunes: a strong one, and one trained as in the article's code.

The article is V. Rakivnenko, "Deep Compression, 2015: How Much More Can We Squeeze in 2025?", Towards AI, 2025.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria import scored_layers
from dcformat_pruning.data import Augmentation, Pool, TrainingData
from dcformat_pruning.lenets import build
from dcformat_pruning.schedules import Penalty
from dcformat_pruning.training import EpochProgress, TrainingPlan, fit

ARCHITECTURE = "lenet-300-100"

#: The mean and standard deviation by which the article's code normalises pixels; black becomes -0.42.
_MEAN, _DEVIATION = 0.1307, 0.3081

_LIGHT = Augmentation(shift=1.5, rotate=8.0, scale=0.08, shear=0.08)


class NormalizePixels(nn.Module):
    """Normalises pixels in [0, 1] to mean 0 and standard deviation 1, as the article's code does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 in the shape of `x`."""
        return (x - _MEAN) / _DEVIATION


@dataclass(frozen=True, slots=True)
class Baseline:
    """A way to train the dense network.

    Attributes
    ----------
    name : str
    epochs : int
        Epochs of training, if nothing else is asked for.
    build : callable
        Takes the seed, and returns the network before it is trained.
    train : callable
        Takes the data, the seed, a progress callback and the epochs, and returns the trained network.
    """

    name: str
    epochs: int
    build: Callable[[int], nn.Sequential]
    train: Callable[[TrainingData, int, EpochProgress | None, int], nn.Sequential]


def article_network(seed: int) -> nn.Sequential:
    """Build the article's network, which normalises pixels first."""
    return nn.Sequential(OrderedDict([("normalize", NormalizePixels()), *build(ARCHITECTURE, seed).named_children()]))


def article_plan(epochs: int, batch: int) -> TrainingPlan:
    """Return the plan by which the article's code trains and retrains: Adam at a large constant rate."""
    return TrainingPlan(epochs=epochs, lr=1e-2, batch=batch, warmup=0.0, final=1.0)


def article_decay(module: nn.Module) -> Penalty:
    """Return the L2 penalty by which the article's code trains and retrains."""
    return Penalty(module, "l2", 1e-4)


def train_article(
    data: TrainingData, seed: int, progress: EpochProgress | None, epochs: int = 3, batch: int = 128
) -> nn.Sequential:
    """Train an undertrained network as the article's code does: a large constant rate, L2, normalised pixels."""
    module = article_network(seed)
    plan = article_plan(epochs, batch)
    fit(module, data.train, plan, seed=seed, constraints=(article_decay(module),), stage="dense", progress=progress)
    return module


def strong_network(seed: int) -> nn.Sequential:
    """Build the strong network, which takes pixels in [0, 1]."""
    return build(ARCHITECTURE, seed)


def train_strong(data: TrainingData, seed: int, progress: EpochProgress | None, epochs: int = 12) -> nn.Sequential:
    """Train a strong network: light augmentation, a cosine schedule, pixels in [0, 1]."""
    module = strong_network(seed)
    pool = Pool.make(data.train, _LIGHT, copies=3, seed=seed)
    fit(module, pool, TrainingPlan(epochs=epochs, lr=3e-3, ema=0.995), seed=seed, stage="dense", progress=progress)
    return module


BASELINES = (
    Baseline("strong", 12, strong_network, train_strong),
    Baseline("undertrained", 3, article_network, train_article),
)


@torch.no_grad()
def folded(module: nn.Sequential) -> nn.Sequential:
    """Return a copy that takes pixels in [0, 1] and computes the same: the normalisation is folded into fc1."""
    children = OrderedDict(copy.deepcopy(module).named_children())
    first = next(iter(children))
    if isinstance(children[first], NormalizePixels):
        del children[first]
        layer = next(iter(scored_layers(nn.Sequential(children)).values()))
        layer.weight.div_(_DEVIATION)
        if layer.bias is not None:
            layer.bias.sub_(_MEAN * layer.weight.sum(1))
    return nn.Sequential(children)
