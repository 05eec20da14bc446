"""The rows of the article's table, repeated: the published figures, and the results of the same methods here.

The article is V. Rakivnenko, "Deep Compression, 2015: How Much More Can We Squeeze in 2025?", Towards AI, 2025.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from dcformat_pruning.criteria import Criterion, Magnitude, Obd, TfIdf
from dcformat_pruning.data import Images, TrainingData
from dcformat_pruning.masks import Masks
from dcformat_pruning.selection import MaskMap, keep_globally, sensitivity_masks, weight_spread
from dcformat_pruning.study.baselines import folded
from dcformat_pruning.study.pruned_networks import first_images, retrain, weights_left
from dcformat_pruning.training import evaluate


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A row of the article's table.

    Attributes
    ----------
    ratio : float
        Number of parameters of the dense network, divided by the number left.
    criterion : str
    pruned, retrained : float or None
        Accuracy on the test images in percent, right after pruning and after retraining; None where none is given.
    """

    ratio: float
    criterion: str
    pruned: float | None
    retrained: float | None


#: Accuracy of the article's dense networks in percent; the article gives 94.5 to 95.
DENSE = 94.5

#: The figures of the article's table.
PUBLISHED = (
    PublishedRow(21.57, "magnitude", 71.64, 96.20),
    PublishedRow(24.94, "TF-IDF", 87.45, 96.13),
    PublishedRow(30.39, "TF-IDF", 87.46, None),
    PublishedRow(65.46, "TF-IDF", None, 95.83),
)


@dataclass(frozen=True, slots=True)
class RepeatedRow:
    """A row of the article's table, repeated here.

    Attributes
    ----------
    published : float
        The ratio of the published row.
    seed : int
    method : str
        The criterion, and how its scores select: ``s`` times a standard deviation in each layer, or one ranking over
        all layers.
    s : float or None
        The sensitivity that gives the published ratio here; None for one ranking over all layers.
    ratio : float
        The ratio that was reached.
    at_two : float or None
        The ratio that ``s = 2`` gives here; None for one ranking over all layers.
    dense, pruned, retrained : float
        Accuracy on the test images, 0 to 1: before pruning, right after it, and after retraining.
    """

    published: float
    seed: int
    method: str
    s: float | None
    ratio: float
    at_two: float | None
    dense: float
    pruned: float
    retrained: float


#: Criteria, and whether their scores are ranked over all layers together.
_TRIED: tuple[tuple[Criterion, bool], ...] = (
    (Magnitude(), False),
    (TfIdf(), False),
    (TfIdf(), True),
    (Obd(), True),
)

#: Epochs of the dense network, enough for L2 to leave as few large weights as the article's networks must have had.
DENSE_EPOCHS = 8


def repeat(module: nn.Sequential, seed: int, data: TrainingData, test: Images, epochs: int) -> Iterator[RepeatedRow]:
    """Repeat the article's rows with magnitude and TF-IDF, and with OBD for comparison.

    The test images are read only here, and nothing is chosen by them.

    Parameters
    ----------
    module : nn.Sequential
        A network trained by `baselines.train_article`; it is not changed.
    seed : int
        Seeds the retraining.
    test : Images
        The test images.
    epochs : int
        Epochs of retraining.
    """
    sample = first_images(data.train)
    dense = evaluate(module, test)
    for criterion, globally in _TRIED:
        scores = criterion.scores(module, sample)
        spread = weight_spread(module) if isinstance(criterion, Magnitude) else None
        at_two = None if globally else _ratio(module, _quietly(scores, 2.0, spread))
        for published in PUBLISHED:
            s = None if globally else solve_sensitivity(module, scores, spread, published.ratio)
            if s is None:
                chosen = keep_globally(scores, weights_left(module, published.ratio))
            else:
                chosen = sensitivity_masks(scores, s, spread=spread)
            pruned = copy.deepcopy(module)
            Masks(pruned, chosen).apply()
            before = evaluate(pruned, test)
            pruned = folded(pruned)
            retrain(pruned, data.train, epochs, seed)
            yield RepeatedRow(
                published.ratio,
                seed,
                f"{criterion.name}, {'all layers' if globally else 's in each layer'}",
                s,
                _ratio(module, chosen),
                at_two,
                dense,
                before,
                evaluate(pruned, test),
            )


def rows_of_one() -> int:
    """Return the number of rows that `repeat` yields for a network."""
    return len(PUBLISHED) * len(_TRIED)


def solve_sensitivity(
    module: nn.Module, scores: MaskMap, spread: dict[str, float] | None, ratio: float, steps: int = 30
) -> float:
    """Return the sensitivity s at which `sensitivity_masks` leaves about `ratio` times fewer parameters.

    Parameters
    ----------
    spread : dict of str to float or None
        See `sensitivity_masks`.
    steps : int
        Number of times that the interval from 0 to 64 is halved.
    """
    wanted = weights_left(module, ratio)
    low, high = 0.0, 64.0
    for _ in range(steps):
        middle = (low + high) / 2
        masks = _quietly(scores, middle, spread)
        left = sum(int(mask.sum()) for mask in masks.values())
        low, high = (middle, high) if left > wanted else (low, middle)
    return low


def _quietly(scores: MaskMap, s: float, spread: dict[str, float] | None) -> MaskMap:
    """Return the masks of a sensitivity without warnings, because it may prune a whole layer away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sensitivity_masks(scores, s, spread=spread)


def _ratio(module: nn.Module, masks: MaskMap) -> float:
    """Return the number of parameters divided by the number left, biases included."""
    total = sum(p.numel() for p in module.parameters())
    gone = sum(int((~mask).sum()) for mask in masks.values())
    return total / (total - gone)
