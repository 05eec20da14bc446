"""The comparison of pruning criteria on modern image networks.

Each criterion scores the same dense network on the same images and prunes it to the same density: once with one ranking
over all layers, once so that every output row keeps the same share of its weights, which is how Wanda was published.
The statistics of its batch norms are estimated again on the scored images, and it is then retrained briefly.
Accuracies are on the validation images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from dcformat_pruning.criteria import (
    Criterion,
    Fisher,
    Magnitude,
    Obd,
    Obs,
    Random,
    Scores,
    Taylor,
    TfIdf,
    Wanda,
    sparsegpt_layer,
    surgery,
)
from dcformat_pruning.data import Images, TrainingData
from dcformat_pruning.masks import Masks
from dcformat_pruning.selection import keep_in_layers, keep_in_rows, ranked_budget
from dcformat_pruning.study.network_training import plan_of
from dcformat_pruning.training import evaluate, fit

#: Shares of the weights to keep.
NETWORK_DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05)

#: Number of training images that criteria look at, and how many of them at a time.
SCORED_IMAGES, _AT_A_TIME = 256, 64

#: Number of validation images at a time: few enough for the activations to be reused memory.
_MEASURED_AT_A_TIME = 200

#: Name of a criterion to a function that makes it from a seed.
NETWORK_CRITERIA: Mapping[str, Callable[[int], Criterion]] = {
    "magnitude": lambda _: Magnitude(),
    "Wanda": lambda _: Wanda(),
    "TF-IDF": lambda _: TfIdf(),
    "Taylor": lambda _: Taylor(),
    "Fisher": lambda _: Fisher(),
    "OBD": lambda _: Obd(),
    "OBS": lambda _: Obs(),
    "random": Random,
}

#: How scores select weights, and the titles of these ways in tables and pictures.
SELECTION_TITLES = {"all layers": "one ranking over all layers", "rows": "the same share of every row"}
SELECTIONS = tuple(SELECTION_TITLES)

#: Peak learning rate of the retraining, as a share of that of the dense training.
_RETRAINING_RATE = 0.2


#: See `NetworkRow.key`.
NetworkRowKey = tuple[str, int, str, str, float, int]


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """A network that was pruned by one criterion.

    Attributes
    ----------
    network : str
    seed : int
    criterion : str
    selection : str
        One of `SELECTIONS`.
    density : float
        Share of the weights that was to be kept.
    weights : int
        Number of weights left, not counting biases and norms.
    dense, pruned : float
        Accuracy on the validation images, 0 to 1: before pruning and right after it.
    epochs : int
        Epochs of retraining.
    retrained : float
        Accuracy on the validation images after retraining; that right after pruning if there was none.
    """

    network: str
    seed: int
    criterion: str
    selection: str
    density: float
    weights: int
    dense: float
    pruned: float
    epochs: int
    retrained: float

    @property
    def key(self) -> NetworkRowKey:
        """The identity of the row, by which a resumed study recognises that it is done."""
        return self.network, self.seed, self.criterion, self.selection, self.density, self.epochs


def compare_network(
    name: str,
    module: nn.Module,
    seed: int,
    data: TrainingData,
    criteria: Sequence[str],
    *,
    epochs: int,
    densities: Sequence[float] = NETWORK_DENSITIES,
    done: Iterable[NetworkRowKey] = (),
) -> Iterator[NetworkRow]:
    """Prune and retrain copies of a dense network; yield a row for each criterion, selection and density.

    Parameters
    ----------
    name : str
        A key of `image_networks.IMAGE_NETWORKS`.
    module : nn.Module
        The dense network, which is not changed.
    seed : int
        Seeds the random criterion and the retraining.
    criteria : sequence of str
        Keys of `NETWORK_CRITERIA`.
    epochs : int
        Epochs of retraining; 0 for none.
    done : iterable of tuple
        Keys of rows to leave out.
    """
    skipped = set(done)
    sample = scored_batches(data.train)
    dense = evaluate(module, data.validation, _MEASURED_AT_A_TIME)
    plan = plan_of(name, data.train)
    retraining = replace(plan, epochs=epochs, lr=_RETRAINING_RATE * plan.lr, warmup=0.05)
    for criterion in criteria:
        wanted = [
            (selection, density)
            for selection in selections_of(criterion)
            for density in densities
            if (name, seed, criterion, selection, density, epochs) not in skipped
        ]
        if not wanted:
            continue
        made = NETWORK_CRITERIA[criterion](seed)
        scores = made.scores(module, sample)
        for selection, density in wanted:
            pruned = copy.deepcopy(module)
            masks = prune_network(pruned, made, scores, selection, density, sample)
            update_bn(sample, pruned)  # the statistics of the dense network no longer fit
            before = after = evaluate(pruned, data.validation, _MEASURED_AT_A_TIME)
            if epochs:
                fit(pruned, data.train, retraining, seed=seed, constraints=(masks,), stage=criterion)
                after = evaluate(pruned, data.validation, _MEASURED_AT_A_TIME)
            weights = sum(masks.alive.values())
            yield NetworkRow(name, seed, criterion, selection, density, weights, dense, before, epochs, after)


def selections_of(criterion: str) -> tuple[str, ...]:
    """Return the selections to try a criterion with; OBS moves weights layer by layer, with a budget for each."""
    return SELECTIONS[:1] if criterion == "OBS" else SELECTIONS


def scored_batches(images: Images) -> list[tuple[Tensor, Tensor]]:
    """Return the images that criteria look at; the training images are already in random order."""
    starts = range(0, min(SCORED_IMAGES, len(images)), _AT_A_TIME)
    parts = [slice(start, min(start + _AT_A_TIME, len(images))) for start in starts]
    return [(images.floats(part), images.labels[part]) for part in parts]


def prune_network(
    module: nn.Module,
    criterion: Criterion,
    scores: Scores,
    selection: str,
    density: float,
    sample: Sequence[tuple[Tensor, Tensor]],
) -> Masks:
    """Prune a network in place, and return its masks; every layer (or row) keeps at least one weight.

    Parameters
    ----------
    selection : str
        One of `SELECTIONS`.
    density : float
        Share of the weights to keep.
    sample : sequence of (Tensor, Tensor)
        The images that OBS fits the remaining weights to.
    """
    if selection == "rows":
        chosen = keep_in_rows(scores, dict.fromkeys(scores, density))
    else:
        budget = ranked_budget(scores, round(density * sum(score.numel() for score in scores.values())))
        if isinstance(criterion, Obs):
            surgery(module, sample, budget, method=sparsegpt_layer)
            return Masks.from_zeros(module, scores)
        chosen = keep_in_layers(scores, budget)
    masks = Masks(module, chosen)
    masks.apply()
    return masks
