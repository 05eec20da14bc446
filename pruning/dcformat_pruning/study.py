"""The 2025 article's comparison of pruning criteria, done over: LeNet-300-100, two baselines, several seeds.

Every criterion scores the same trained network on the same images, prunes it to the same number of
parameters, and is retrained alike. Each chooses as it would be used: weights ranked over all layers together
(Wanda: within each output row), whole units for the criteria of units. As a control all criteria of weights
are also given the layer budgets of global magnitude, so that only the ranking within a layer differs.

Accuracies are on the validation images; only the rows that repeat a figure of the article
(`dcformat_pruning.article`) are measured on the test images.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dcformat_pruning.compact import Compact
from dcformat_pruning.criteria import (
    Apoz,
    Criterion,
    Data,
    Fisher,
    Magnitude,
    Obd,
    Obs,
    Random,
    Scores,
    Taylor,
    TfIdf,
    Wanda,
    scored_layers,
    sparsegpt_layer,
    surgery,
)
from dcformat_pruning.data import Augmentation, Images, Pool, TrainingData
from dcformat_pruning.masks import Masks
from dcformat_pruning.networks import build
from dcformat_pruning.schedules import Penalty
from dcformat_pruning.selection import (
    best_units,
    keep_in_layers,
    keep_in_rows,
    magnitude_budget,
    ranked_budget,
    uniform_budget,
    unit_masks,
)
from dcformat_pruning.training import Plan, Progress, evaluate, fit

ARCHITECTURE = "lenet-300-100"

#: Parameters of the dense network over parameters left, biases counted, as the article counts: its four rows, and one
#: below them.
RATIOS = (10.0, 21.57, 24.94, 30.39, 65.46)

#: Training images that criteria look at.
SCORED_IMAGES = 3000

#: The mean and deviation that the article's code normalises pixels by, and which make black -0.42.
_MEAN, _DEVIATION = 0.1307, 0.3081

_LIGHT = Augmentation(shift=1.5, rotate=8.0, scale=0.08, shear=0.08)


class Normalize(nn.Module):
    """Pixels in [0, 1] to mean 0 and deviation 1, as the article's code feeds its networks."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 of the same shape."""
        return (x - _MEAN) / _DEVIATION


@dataclass(frozen=True, slots=True)
class Baseline:
    """A way to train the dense network."""

    name: str
    train: Callable[[TrainingData, int, Progress | None], nn.Sequential]


@dataclass(frozen=True, slots=True)
class Row:
    """One network pruned by one criterion: accuracies (0..1) on the validation images.

    Attributes
    ----------
    ratio : float
        Parameters of the dense network over those left.
    weights : int
        Weights left, biases not counted.
    dense, pruned, retrained : float
        Accuracy before pruning, right after it, and after retraining.
    budgeted : float
        Accuracy right after pruning each layer to the number of weights that global magnitude would leave it
        (units: the same as `pruned`).
    """

    baseline: str
    seed: int
    criterion: str
    ratio: float
    weights: int
    dense: float
    pruned: float
    budgeted: float
    retrained: float


def train_article(data: TrainingData, seed: int, progress: Progress | None, epochs: int = 3) -> nn.Sequential:
    """Train as the article's code does, and about as badly: a large constant rate, L2, normalised pixels."""
    layers = OrderedDict([("normalize", Normalize()), *build(ARCHITECTURE, seed).named_children()])
    module = nn.Sequential(layers)
    plan = Plan(epochs=epochs, lr=1e-2, batch=128, warmup=0.0, final=1.0)
    decay = Penalty(module, "l2", 1e-4)
    fit(module, data.train, plan, seed=seed, constraints=(decay,), stage="dense", progress=progress)
    return module


def train_strong(data: TrainingData, seed: int, progress: Progress | None, epochs: int = 12) -> nn.Sequential:
    """Train a strong baseline: light augmentation, a cosine schedule, pixels in [0, 1]."""
    module = build(ARCHITECTURE, seed)
    pool = Pool.make(data.train, _LIGHT, copies=3, seed=seed)
    fit(module, pool, Plan(epochs=epochs, lr=3e-3, ema=0.995), seed=seed, stage="dense", progress=progress)
    return module


BASELINES = (Baseline("strong", train_strong), Baseline("undertrained", train_article))


@dataclass(frozen=True, slots=True)
class TfIdfOnPixels(TfIdf):
    """TF-IDF on pixels in [0, 1] of a network that normalises them: the normalisation is folded into fc1 first."""

    name: str = "TF-IDF on [0, 1]"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the scores of the weights as they are. See `Criterion.scores`."""
        if not isinstance(module, nn.Sequential):
            raise TypeError(f"expected nn.Sequential, found {type(module).__name__}")
        return TfIdf.scores(self, folded(module), data)


@torch.no_grad()
def folded(module: nn.Sequential) -> nn.Sequential:
    """Return a copy that takes pixels in [0, 1] as they are and computes the same."""
    children = OrderedDict(copy.deepcopy(module).named_children())
    first = next(iter(children))
    if isinstance(children[first], Normalize):
        del children[first]
        layer = next(iter(scored_layers(nn.Sequential(children)).values()))
        layer.weight.div_(_DEVIATION)
        if layer.bias is not None:
            layer.bias.sub_(_MEAN * layer.weight.sum(1))
    return nn.Sequential(children)


def criteria(seed: int, baseline: str) -> list[Criterion]:
    """Return the criteria to compare."""
    extra: list[Criterion] = [TfIdfOnPixels()] if baseline == "undertrained" else []
    return [
        Magnitude(),
        TfIdf(),
        *extra,
        Apoz(),
        Fisher(),
        Taylor(),
        Wanda(),
        Obd(),
        Obs(),
        Random(seed),
    ]


def compare(
    module: nn.Sequential,
    baseline: str,
    seed: int,
    data: TrainingData,
    *,
    epochs: int = 2,
    ratios: Sequence[float] = RATIOS,
) -> Iterator[Row]:
    """Prune and retrain copies of a dense network: yield a row for each criterion and ratio.

    Parameters
    ----------
    baseline : str
        The name of what trained it.
    epochs : int
        Of retraining.

    Raises
    ------
    ValueError
        A ratio that leaves no weight for each layer.
    """
    sample = first_images(data.train)
    dense = evaluate(module, data.validation)
    for criterion in criteria(seed, baseline):
        scores = criterion.scores(module, sample)
        for ratio in ratios:
            pruned, budgeted, retrained, weights = _tried(module, criterion, scores, ratio, data, epochs, seed)
            yield Row(baseline, seed, criterion.name, ratio, weights, dense, pruned, budgeted, retrained)


def rows_of(baseline: str) -> int:
    """Count the rows that `compare` yields for one network."""
    return len(criteria(0, baseline)) * len(RATIOS)


def first_images(images: Images) -> Images:
    """Return the images that criteria look at: the train part is in random order already."""
    return Images(images.pixels[:SCORED_IMAGES], images.labels[:SCORED_IMAGES])


def weights_left(module: nn.Module, ratio: float) -> int:
    """Return how many weights stay so that all parameters are `ratio` times fewer; biases stay and count.

    Raises
    ------
    ValueError
        Fewer than a weight for each layer, or a ratio below 1.
    """
    total = sum(p.numel() for p in module.parameters())
    weights = sum(layer.weight.numel() for layer in scored_layers(module).values())
    left = round(total / ratio) - (total - weights) if ratio >= 1 else 0
    if left < len(scored_layers(module)):
        raise ValueError(f"ratio: expected 1 to {total / (total - weights + 3):.0f} times fewer, found {ratio}")
    return left


def _tried(
    module: nn.Sequential,
    criterion: Criterion,
    scores: Scores,
    ratio: float,
    data: TrainingData,
    epochs: int,
    seed: int,
) -> tuple[float, float, float, int]:
    """Return the accuracies `pruned`, `budgeted` and `retrained` of a `Row`, and its weights."""
    keep = weights_left(module, ratio)
    sample = first_images(data.train)
    pruned = copy.deepcopy(module)
    prune(pruned, criterion, scores, own_budget(module, criterion, scores, keep), sample)
    before = after_budget = evaluate(pruned, data.validation)
    if not _of_units(scores):
        budgeted = copy.deepcopy(module)
        prune(budgeted, criterion, scores, magnitude_budget(module, keep), sample)
        after_budget = evaluate(budgeted, data.validation)
    weights = sum(int((layer.weight != 0).sum()) for layer in scored_layers(pruned).values())
    pruned = folded(pruned)
    retrain(pruned, data.train, epochs, seed)
    return before, after_budget, evaluate(pruned, data.validation), weights


def retrain(module: nn.Sequential, images: Images, epochs: int, seed: int) -> None:
    """Train what is left of a network, in place, without the pixels and units that are dead; one plan for all.

    The network takes pixels in [0, 1]: see `folded`.
    """
    small = Compact.of(module)
    masks = Masks.from_zeros(small.module)
    plan = Plan(epochs=epochs, lr=2e-3, batch=128)
    fit(small.module, images, plan, seed=seed, constraints=(masks,), stage="retrain")
    small.expand(module)


def own_budget(module: nn.Module, criterion: Criterion, scores: Scores, keep: int) -> dict[str, int]:
    """Return how many weights (or units) of each layer a criterion keeps of `keep` weights.

    Scores are ranked over all layers together. Wanda's cannot be: every row of every layer keeps the same
    share, as published.
    """
    if _of_units(scores):
        return unit_counts(module, keep)
    if isinstance(criterion, Wanda):
        return uniform_budget(module, keep / sum(score.numel() for score in scores.values()))
    return ranked_budget(scores, keep)


def prune(module: nn.Module, criterion: Criterion, scores: Scores, budget: Mapping[str, int], sample: Images) -> None:
    """Prune each layer to its budget, in place: weights, for Wanda of each row, or units.

    OBS moves the weights that are left as well, as SparseGPT does.
    """
    if isinstance(criterion, Obs):
        surgery(module, sample, budget, method=sparsegpt_layer)
    elif _of_units(scores):
        Masks(module, unit_masks(module, best_units(scores, budget))).apply()
    elif isinstance(criterion, Wanda):
        densities = {name: number / scores[name].numel() for name, number in budget.items()}
        Masks(module, keep_in_rows(scores, densities)).apply()
    else:
        Masks(module, keep_in_layers(scores, budget)).apply()


def _of_units(scores: Scores) -> bool:
    return next(iter(scores.values())).ndim == 1


def unit_counts(module: nn.Module, keep: int) -> dict[str, int]:
    """Return how many units of each hidden layer stay, the same share of each, with at most `keep` weights left."""
    layers = scored_layers(module)
    names = list(layers)
    inputs = next(iter(layers.values())).weight.shape[1]
    sizes = [layer.weight.shape[0] for layer in layers.values()]
    best = dict.fromkeys(names[:-1], 1)
    for step in range(1, 1001):
        counts = [max(1, size * step // 1000) for size in sizes[:-1]] + [sizes[-1]]
        total = sum(a * b for a, b in zip([inputs, *counts[:-1]], counts, strict=True))
        if total > keep:
            break
        best = dict(zip(names[:-1], counts[:-1], strict=True))
    return best


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A layer pruned alone by magnitude, without retraining: validation accuracy (0..1) at each density."""

    layer: str
    weights: int
    accuracies: Mapping[float, float]

    def needed(self, dense: float, loss: float = 0.01) -> float:
        """Return the smallest of the densities that costs at most `loss`, nothing denser costing more; 1 if none."""
        best = 1.0
        for density in sorted(self.accuracies, reverse=True):
            if self.accuracies[density] < dense - loss:
                break
            best = density
        return best


#: Densities at which layers are pruned alone.
DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)


def layers_study(module: nn.Module, validation: Images) -> tuple[float, list[Sensitivity]]:
    """Prune each layer alone; return the dense accuracy and the layers, the most sensitive first.

    The order is by the density a layer needs to lose at most a percentage point, then by its mean accuracy.
    """
    dense = evaluate(module, validation)
    found = []
    for name, layer in scored_layers(module).items():
        accuracies = {}
        for density in DENSITIES:
            pruned = copy.deepcopy(module)
            keep = {name: max(1, round(density * layer.weight.numel()))}
            Masks(pruned, keep_in_layers(Magnitude().scores(pruned), keep)).apply()
            accuracies[density] = evaluate(pruned, validation)
        found.append(Sensitivity(name, layer.weight.numel(), accuracies))
    order = sorted(found, key=lambda s: (-s.needed(dense), sum(s.accuracies.values())))
    return dense, order


def test_images(data: Path | str | None) -> Images:
    """Load the test images, for the rows that repeat the article's figures."""
    from dcformat.datasets import load_split

    split = load_split("test", data)
    labels = torch.from_numpy(split.labels.astype("int64"))
    return Images(torch.from_numpy(split.images[:, None].copy()), labels)
