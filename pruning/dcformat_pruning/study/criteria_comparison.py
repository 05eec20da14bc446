"""The comparison of pruning criteria in Rakivnenko's article of 2025, repeated with two baselines and several seeds.

The article is V. Rakivnenko, "Deep Compression, 2015: How Much More Can We Squeeze in 2025?", Towards AI, 2025.

Every criterion scores the same trained LeNet-300-100 on the same images, prunes it to the same number of parameters,
and is retrained in the same way. Each criterion selects as intended: weights are ranked over all layers together
(Wanda: within each output row), and criteria for units remove whole units. As a control, all criteria for weights are
also given the layer budgets of global magnitude, so that only the ranking within a layer differs.

Accuracies are on the validation images. Only the rows that repeat figures of the article (`study.article`) are measured
on the test images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dcformat_pruning.criteria import (
    Apoz,
    Castellano,
    Criterion,
    Data,
    Fisher,
    Lamp,
    Magnitude,
    Obd,
    Obs,
    Random,
    Scores,
    Taylor,
    TfIdf,
    Wanda,
    scored_layers,
)
from dcformat_pruning.data import TrainingData
from dcformat_pruning.selection import magnitude_budget
from dcformat_pruning.study.baselines import folded
from dcformat_pruning.study.pruned_networks import (
    are_of_units,
    first_images,
    own_budget,
    prune,
    retrain,
    weights_left,
)
from dcformat_pruning.training import evaluate

#: Parameters of the dense network divided by those left, biases included, as the article counts: one ratio, and the
#: four of the article's table.
RATIOS = (10.0, 21.57, 24.94, 30.39, 65.46)


#: See `ComparisonRow.key`.
ComparisonRowKey = tuple[str, int, str, float]


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A network that was pruned by one criterion.

    Attributes
    ----------
    baseline : str
        The name of the dense network.
    seed : int
    criterion : str
    ratio : float
        Parameters of the dense network divided by those left.
    weights : int
        Number of weights left, not counting biases.
    dense, pruned, retrained : float
        Accuracy on the validation images, 0 to 1: before pruning, right after it, and after retraining.
    budgeted : float
        Accuracy right after pruning each layer to the number of weights that global magnitude leaves it. Criteria for
        units have no such budget; for them it equals `pruned`.
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

    @property
    def key(self) -> ComparisonRowKey:
        """The identity of the row, by which a resumed study recognises that it is done."""
        return self.baseline, self.seed, self.criterion, self.ratio


@dataclass(frozen=True, slots=True)
class TfIdfOnPixels(TfIdf):
    """TF-IDF of a network that normalises pixels, scored on pixels in [0, 1]; see `baselines.folded`."""

    name: str = "TF-IDF on [0, 1]"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the scores. See `Criterion.scores`.

        Raises
        ------
        TypeError
            The module is not an nn.Sequential.
        """
        if not isinstance(module, nn.Sequential):
            raise TypeError(f"expected nn.Sequential, found {type(module).__name__}")
        return TfIdf.scores(self, folded(module), data)


#: Name of a criterion to a function that makes it from a seed. `DEFAULT_CRITERIA` are those of the published tables.
CRITERIA: Mapping[str, Callable[[int], Criterion]] = {
    "magnitude": lambda _: Magnitude(),
    "TF-IDF": lambda _: TfIdf(),
    "TF-IDF on [0, 1]": lambda _: TfIdfOnPixels(),
    "APoZ": lambda _: Apoz(),
    "Fisher": lambda _: Fisher(),
    "Taylor": lambda _: Taylor(),
    "Wanda": lambda _: Wanda(),
    "OBD": lambda _: Obd(),
    "OBS": lambda _: Obs(),
    "random": Random,
    "LAMP": lambda _: Lamp(),
    "Castellano": lambda _: Castellano(),
}
DEFAULT_CRITERIA = tuple(name for name in CRITERIA if name not in ("LAMP", "Castellano"))


def compared_criteria(seed: int, baseline: str, names: Sequence[str] = ()) -> list[Criterion]:
    """Return the criteria to compare on a baseline.

    Parameters
    ----------
    seed : int
        Seeds the random criterion.
    baseline : str
        The name of the dense network. TF-IDF on pixels in [0, 1] is left out unless the network normalises pixels.
    names : sequence of str
        Keys of `CRITERIA`; by default, `DEFAULT_CRITERIA`.

    Raises
    ------
    ValueError
        A name is unknown.
    """
    for name in names:
        if name not in CRITERIA:
            raise ValueError(f"criterion: expected one of {', '.join(CRITERIA)}, found {name!r}")
    chosen = [CRITERIA[name](seed) for name in CRITERIA if name in (names or DEFAULT_CRITERIA)]
    return [c for c in chosen if baseline == "undertrained" or not isinstance(c, TfIdfOnPixels)]


def compare(
    module: nn.Sequential,
    baseline: str,
    seed: int,
    data: TrainingData,
    criteria: Sequence[Criterion],
    *,
    epochs: int = 2,
    ratios: Sequence[float] = RATIOS,
    done: Iterable[ComparisonRowKey] = (),
) -> Iterator[ComparisonRow]:
    """Prune and retrain copies of a dense network; yield a row for each criterion and ratio.

    Parameters
    ----------
    module : nn.Sequential
        The dense network, which is not changed.
    baseline : str
        The name of the dense network.
    seed : int
        Seeds the retraining.
    criteria : sequence of Criterion
        See `compared_criteria`.
    epochs : int
        Epochs of retraining.
    ratios : sequence of float
        See `RATIOS`.
    done : iterable of tuple
        Keys of rows to leave out.

    Raises
    ------
    ValueError
        A ratio leaves fewer weights than there are layers.
    """
    sample = first_images(data.train)
    dense = evaluate(module, data.validation)
    skipped = set(done)
    for criterion in criteria:
        left = [ratio for ratio in ratios if (baseline, seed, criterion.name, ratio) not in skipped]
        scores = criterion.scores(module, sample) if left else {}
        for ratio in left:
            keep = weights_left(module, ratio)
            pruned = copy.deepcopy(module)
            prune(pruned, criterion, scores, own_budget(module, criterion, scores, keep), sample)
            before = after_budget = evaluate(pruned, data.validation)
            if not are_of_units(scores):
                budgeted = copy.deepcopy(module)
                prune(budgeted, criterion, scores, magnitude_budget(module, keep), sample)
                after_budget = evaluate(budgeted, data.validation)
            weights = sum(int((layer.weight != 0).sum()) for layer in scored_layers(pruned).values())
            pruned = folded(pruned)
            retrain(pruned, data.train, epochs, seed)
            retrained = evaluate(pruned, data.validation)
            yield ComparisonRow(baseline, seed, criterion.name, ratio, weights, dense, before, after_budget, retrained)
