"""Pruning between trainings: once, or in rounds with retraining after each (Han et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dcformat_pruning.criteria import Criterion, Data
from dcformat_pruning.data import Images, Pool
from dcformat_pruning.masks import Masks, PruningError
from dcformat_pruning.selection import MaskMap, keep_globally
from dcformat_pruning.training import Constraint, EpochProgress, TrainingPlan, fit


@dataclass(frozen=True, slots=True)
class Retraining:
    """The training of a schedule's rounds.

    Attributes
    ----------
    images : Images or Pool
        The training images, on the module's device.
    plan : TrainingPlan
        The plan of each round.
    seed : int
        Seeds the order of the images and their augmentation.
    progress : callable, optional
        See `training.fit`; the stages are named ``round 1``, ``round 2`` and so on.
    """

    images: Images | Pool
    plan: TrainingPlan
    seed: int = 0
    progress: EpochProgress | None = None

    def fit(self, module: nn.Module, number: int, seed: int, *constraints: Constraint) -> None:
        """Train round `number`, counted from 1, in place."""
        fit(
            module,
            self.images,
            self.plan,
            seed=seed,
            constraints=constraints,
            stage=f"round {number}",
            progress=self.progress,
        )


def one_shot(
    module: nn.Module,
    criterion: Criterion,
    data: Data,
    keep: int,
    select: Callable[[dict[str, Tensor], int, MaskMap], MaskMap] = keep_globally,
    alive: MaskMap | None = None,
) -> Masks:
    """Score the weights once and prune to `keep` of them, in place.

    Parameters
    ----------
    data : Data
        The images that the criterion looks at.
    keep : int
        Number of weights to keep, over all layers.
    select : callable
        Takes the scores, `keep` and the current masks, and returns new masks. By default, the weights with the
        highest scores over all layers are kept.
    alive : mapping of str to Tensor, optional
        The current masks; a weight that they prune stays pruned.

    Raises
    ------
    PruningError
        See `Criterion.scores` and `select`.
    """
    masks = Masks(module, select(criterion.scores(module, data), keep, alive or {}))
    masks.apply()
    return masks


def iterative(
    module: nn.Module, criterion: Criterion, data: Data, keeps: Sequence[int], retraining: Retraining
) -> Masks:
    """Prune and retrain in turn, in place (Han et al. 2015, section 3).

    Parameters
    ----------
    data : Data
        The images that the criterion looks at.
    keeps : sequence of int
        Number of weights to keep in each round, over all layers; the numbers fall.
    retraining : Retraining
        How to train after each pruning. Round `n` uses its seed plus ``n - 1``.

    Returns
    -------
    Masks
        The masks of the last round.

    Raises
    ------
    PruningError
        `keeps` is empty or does not fall; see also `one_shot`.
    """
    if not keeps or list(keeps) != sorted(keeps, reverse=True):
        raise PruningError(f"keeps: expected falling numbers of weights, found {list(keeps)}")
    masks = one_shot(module, criterion, data, keeps[0])
    retraining.fit(module, 1, retraining.seed, masks)
    for number, keep in enumerate(keeps[1:], start=2):
        masks = one_shot(module, criterion, data, keep, alive=masks.masks)
        retraining.fit(module, number, retraining.seed + number - 1, masks)
    return masks
