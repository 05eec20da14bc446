"""The article's rows by name, repeated: what it published, and what its method gives here."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from dcformat_pruning.criteria import Criterion, Magnitude, Obd, TfIdf
from dcformat_pruning.data import Images, TrainingData
from dcformat_pruning.masks import Masks
from dcformat_pruning.selection import MaskMap, keep_globally, sensitivity_masks, weight_spread
from dcformat_pruning.study import first_images, folded, retrain, weights_left
from dcformat_pruning.training import evaluate


@dataclass(frozen=True, slots=True)
class Published:
    """A row of the article: times fewer parameters, accuracy (percent) right after pruning and after retraining."""

    ratio: float
    criterion: str
    pruned: float | None
    retrained: float | None


#: Accuracy (percent) of the article's dense networks: 94.5 to 95.
DENSE = 94.5

#: The article's table, as far as it gives figures.
PUBLISHED = (
    Published(21.57, "magnitude", 71.64, 96.20),
    Published(24.94, "TF-IDF", 87.45, 96.13),
    Published(30.39, "TF-IDF", 87.46, None),
    Published(65.46, "TF-IDF", None, 95.83),
)


@dataclass(frozen=True, slots=True)
class Repeated:
    """A row of the article repeated: test accuracies (0..1).

    Attributes
    ----------
    method : str
        The criterion, and how its scores choose: ``s`` times a standard deviation in each layer, or one ranking over
        all layers.
    s : float or None
        The sensitivity that gives the row's ratio here.
    ratio : float
        The ratio reached.
    at_two : float or None
        The ratio that s = 2 gives here.
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


#: Criterion, and whether its scores are ranked over all layers together.
_TRIED: tuple[tuple[Criterion, bool], ...] = (
    (Magnitude(), False),
    (TfIdf(), False),
    (TfIdf(), True),
    (Obd(), True),
)

#: Epochs of the dense network: long enough for L2 to empty it as the article's must have been.
DENSE_EPOCHS = 8


def repeat(module: nn.Sequential, seed: int, data: TrainingData, test: Images, epochs: int) -> Iterator[Repeated]:
    """Repeat the article's rows on a network trained as the article's: magnitude, TF-IDF, and OBD beside them.

    The test images are read only here, and nothing is chosen by them.
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
            yield Repeated(
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
    """Count the rows that `repeat` yields for one network."""
    return len(PUBLISHED) * len(_TRIED)


def solve_sensitivity(
    module: nn.Module, scores: MaskMap, spread: dict[str, float] | None, ratio: float, steps: int = 30
) -> float:
    """Return the s at which `sensitivity_masks` leaves about `ratio` times fewer parameters."""
    wanted = weights_left(module, ratio)
    low, high = 0.0, 64.0
    for _ in range(steps):
        middle = (low + high) / 2
        masks = _quietly(scores, middle, spread)
        left = sum(int(mask.sum()) for mask in masks.values())
        low, high = (middle, high) if left > wanted else (low, middle)
    return low


def _quietly(scores: MaskMap, s: float, spread: dict[str, float] | None) -> MaskMap:
    """Try a sensitivity that may well prune a layer away."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sensitivity_masks(scores, s, spread=spread)


def _ratio(module: nn.Module, masks: MaskMap) -> float:
    """Return parameters over those left, biases counted."""
    total = sum(p.numel() for p in module.parameters())
    gone = sum(int((~mask).sum()) for mask in masks.values())
    return total / (total - gone)
