"""The settings of a compression that do not depend on the network."""

from __future__ import annotations

from dataclasses import dataclass

from dcformat.codecs import Mode
from dcformat_pruning.masks import PruningError
from dcformat_pruning.training import TrainingPlan

#: Shares of a trial's epochs in which weights are pruned, and are tied to shared values; the others train these values.
_PRUNE, _SHARE = 0.7, 0.25


@dataclass(frozen=True, slots=True)
class Settings:
    """How the networks of a compression are trained and stored.

    Attributes
    ----------
    epochs : int
        Training epochs of each network that the search tries, at least 3.
    dense_epochs : int
        Epochs to train the dense network before everything else.
    trials : int
        Maximum number of networks to try.
    batch : int
        Number of samples in a batch, if the data are arrays; a loader makes its own batches.
    lr : float
        Peak learning rate of Adam while pruning. Shared values train at a quarter of it.
    weight_decay, l1 : float
        See `TrainingPlan`.
    clusters : int
        Maximum number of values that the weights of a layer share.
    rate : float
        The price of a bit when values are chosen; see `dcformat_pruning.sharing.share`.
    bits, levels : int
        Significant bits of a shared value, and steps from zero to the largest bias of a layer.
    distill : float
        Share of the distance to the dense network in the loss, 0 to 1.
    temperature : float
        Softens the classes of the dense network and of the compressed one.
    power, floor : float
        Weight of the loss's sensitivity in the ranking of all weights, and the share of its uniform part that each
        layer keeps in any case; see `GradualBalanced`.
    mode : {'fast', 'small', 'tiny'}, optional
        The mode of the file; by default, the one that is smallest.

    Raises
    ------
    PruningError
        A number is out of range.
    """

    epochs: int = 12
    dense_epochs: int = 0
    trials: int = 6
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.0
    l1: float = 0.0
    clusters: int = 16
    rate: float = 0.0
    bits: int = 7
    levels: int = 31
    distill: float = 0.5
    temperature: float = 2.0
    power: float = 0.5
    floor: float = 0.2
    mode: Mode | None = None

    def __post_init__(self) -> None:
        smallest = {"epochs": 3, "dense_epochs": 0, "trials": 1, "batch": 1, "clusters": 1, "bits": 1, "levels": 1}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise PruningError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if not self.lr > 0:
            raise PruningError(f"lr: expected a positive learning rate, found {self.lr}")
        if not 0 <= self.distill <= 1:
            raise PruningError(f"distill: expected 0 to 1, found {self.distill}")

    def dense_plan(self) -> TrainingPlan:
        """Return how the dense network trains, which has no teacher yet."""
        return self._plan(self.dense_epochs, self.lr, distill=0.0)

    def plans(self) -> tuple[TrainingPlan, TrainingPlan, TrainingPlan]:
        """Return how a network trains while weights are pruned, while they are tied, and while values settle."""
        prune = max(1, min(self.epochs - 2, round(_PRUNE * self.epochs)))
        share = max(1, min(self.epochs - prune - 1, round(_SHARE * self.epochs)))
        settle = self.epochs - prune - share
        return (
            self._plan(prune, self.lr, self.distill),
            self._plan(share, self.lr / 4, self.distill),
            self._plan(settle, self.lr / 16, self.distill),
        )

    def _plan(self, epochs: int, lr: float, distill: float) -> TrainingPlan:
        return TrainingPlan(
            epochs=epochs,
            lr=lr,
            batch=self.batch,
            weight_decay=self.weight_decay,
            l1=self.l1,
            distill=distill,
            temperature=self.temperature,
        )
