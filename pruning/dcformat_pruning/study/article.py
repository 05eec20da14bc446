"""The rows of the article's table, repeated: the published figures, and the results of the same methods here.

The article is V. Rakivnenko, "Deep Compression, 2015: How Much More Can We Squeeze in 2025?", Towards AI, 2025.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from dcformat_pruning.criteria import Criterion, Magnitude, Obd, TfIdf
from dcformat_pruning.data import Images, TrainingData
from dcformat_pruning.masks import Masks
from dcformat_pruning.selection import MaskMap, keep_globally, sensitivity_masks, weight_spread
from dcformat_pruning.shrinking import shrink
from dcformat_pruning.study.baselines import NormalizePixels, article_decay, article_plan
from dcformat_pruning.study.pruned_networks import first_images, weights_left
from dcformat_pruning.training import evaluate, fit


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A row of the article's table.

    Attributes
    ----------
    ratio : float
        Number of parameters of the dense network, divided by the number left.
    criterion : str
    pruned, retrained : float or None
        Accuracy on the test images in percent, right after pruning and after retraining; None if not published.
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


#: See `RepeatedRow.key`.
ArticleRowKey = tuple[float, int, str]


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

    @property
    def key(self) -> ArticleRowKey:
        """The identity of the row, by which a resumed study recognises that it is done."""
        return self.published, self.seed, self.method


#: Criteria, and whether their scores are ranked over all layers together. The first two are the article's own.
_TRIED: tuple[tuple[Criterion, bool], ...] = (
    (Magnitude(), False),
    (TfIdf(), False),
    (TfIdf(), True),
    (Obd(), True),
)

#: Epochs of the dense network and of retraining, and the number of images in a batch, as in the article's code.
EPOCHS, BATCH = 100, 50


def repeat(
    module: nn.Sequential, seed: int, data: TrainingData, test: Images, epochs: int, done: Iterable[ArticleRowKey] = ()
) -> Iterator[RepeatedRow]:
    """Repeat the article's rows with magnitude and TF-IDF, and with OBD for comparison; the article's own come first.

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
    done : iterable of tuple
        Keys of rows to leave out.
    """
    sample = first_images(data.train)
    scores = [criterion.scores(module, sample) for criterion, _ in _TRIED]
    dense = evaluate(module, test)
    skipped = set(done)
    for published, number in _in_order():
        criterion, globally = _TRIED[number]
        method = f"{criterion.name}, {'all layers' if globally else 's in each layer'}"
        if (published.ratio, seed, method) in skipped:
            continue
        spread = weight_spread(module) if isinstance(criterion, Magnitude) else None
        s = at_two = None
        if globally:
            chosen = keep_globally(scores[number], weights_left(module, published.ratio))
        else:
            s = solve_sensitivity(module, scores[number], spread, published.ratio)
            at_two = _ratio(module, _quietly(scores[number], 2.0, spread))
            chosen = _quietly(scores[number], s, spread)
        pruned = copy.deepcopy(module)
        Masks(pruned, chosen).apply()
        before, ratio = evaluate(pruned, test), _ratio(module, chosen)
        retrain_as_article(pruned, data.train, epochs, seed)
        yield RepeatedRow(published.ratio, seed, method, s, ratio, at_two, dense, before, evaluate(pruned, test))


def rows_of_one() -> int:
    """Return the number of rows that `repeat` yields for a network."""
    return len(PUBLISHED) * len(_TRIED)


def _in_order() -> list[tuple[PublishedRow, int]]:
    """Return the published rows with the places of the criteria in `_TRIED`.

    The article's own criterion comes first for each row. The others begin with the largest ratio, where they differ
    most.
    """

    def place(pair: tuple[PublishedRow, int]) -> float:
        criterion, globally = _TRIED[pair[1]]
        own = pair[0].criterion == criterion.name and not globally
        return -math.inf if own else -pair[0].ratio

    return sorted(itertools.product(PUBLISHED, range(len(_TRIED))), key=place)


def retrain_as_article(module: nn.Sequential, images: Images, epochs: int, seed: int) -> None:
    """Train the remaining weights as the article's code does, in place.

    Pixels and units that are dead are left out of the training.

    Parameters
    ----------
    module : nn.Sequential
        A network of `baselines.train_article`: it normalises pixels first.
    """
    layers = nn.Sequential(OrderedDict((name, child) for name, child in module.named_children() if name != "normalize"))
    small = shrink(layers)
    network = nn.Sequential(NormalizePixels(), small.module)
    constraints = (article_decay(network), Masks.from_zeros(network))
    fit(network, images, article_plan(epochs, BATCH), seed=seed, constraints=constraints, stage="retrain")
    small.expand(layers)


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
