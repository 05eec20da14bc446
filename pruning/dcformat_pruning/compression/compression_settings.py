"""The settings of a compression that do not depend on the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dcformat.codecs import Mode
from dcformat_pruning.masks import PruningError
from dcformat_pruning.training import TrainingPlan
from dcformat_pruning.training_stages.stage_library import SHARING_METHODS, SharingMethod

#: Shares of a trial's epochs in which weights are pruned, and are tied to shared values; the others train these values.
_PRUNE, _SHARE = 0.7, 0.25

#: Learning rates while weights are tied to shared values, and while these settle, as shares of the rate of pruning.
_SHARE_RATE, _SETTLE_RATE = 1 / 4, 1 / 16


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings by which the networks of a compression are trained and stored.

    Attributes
    ----------
    epochs : int or tuple of int
        Training epochs of each network that the search tries: for its three stages (prune, share and settle), or for
        all of them together, at least 3.
    dense_epochs : int
        Epochs to train the dense network before everything else.
    trials : int
        Maximum number of networks to try.
    batch : int
        Number of samples in a batch, if the data are arrays; a loader makes its own batches.
    lr : float or tuple of float
        Peak learning rates of Adam in the three stages, or that of pruning, of which sharing takes a quarter and
        settling a sixteenth. The dense network trains at that of pruning.
    weight_decay, l1 : float
        See `TrainingPlan`.
    clusters : int
        Maximum number of values that the weights of a layer share.
    rate : float
        The price of a bit when values are chosen; see `dcformat_pruning.sharing.share`.
    sharing : {'straight-through', 'portions'}
        How weights come to share values: `StraightThroughSharing`, or `IncrementalSharing`, which is better for a
        few thousand weights.
    bits, levels : int
        Significant bits of a shared value, and steps from zero to the largest bias of a layer.
    distill : float
        Share of the distance to the teacher in the loss, 0 to 1.
    temperature : float
        Softens the classes of the teacher and of the compressed network.
    units : float
        Share of the hidden units (or channels) of each layer that is kept at first, above 0 and at most 1; the others
        are pruned as a whole.
    power, cost_power, floor : float
        Weights of the loss's sensitivity and of the bits of a nonzero in the ranking of all weights, and the share of
        its uniform part that each layer keeps at least; see `GradualBalanced`.
    bfloat16 : bool
        See `TrainingPlan`.
    mode : {'fast', 'small', 'tiny'}, optional
        The mode of the file; by default, the one that is smallest.
    seed : int
        Seeds the order of arrays, and PyTorch's generator for loaders and dropout in each stage.
    metadata : mapping of str to str
        Further metadata of the file. They may differ when a run is resumed, so `repr` leaves them out.

    Raises
    ------
    PruningError
        A number is out of range.
    """

    epochs: int | tuple[int, int, int] = 12
    dense_epochs: int = 0
    trials: int = 6
    batch: int = 128
    lr: float | tuple[float, float, float] = 2e-3
    weight_decay: float = 0.0
    l1: float = 0.0
    clusters: int = 16
    rate: float = 0.0
    sharing: SharingMethod = "straight-through"
    bits: int = 8
    levels: int = 31
    distill: float = 0.5
    temperature: float = 2.0
    units: float = 1.0
    power: float = 0.5
    cost_power: float = 0.0
    floor: float = 0.2
    bfloat16: bool = False
    mode: Mode | None = None
    seed: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        smallest = {"dense_epochs": 0, "trials": 1, "batch": 1, "clusters": 1, "bits": 1, "levels": 1}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise PruningError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        for name in ("epochs", "lr"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != 3:
                raise PruningError(f"{name}: expected a number, or one for each of 3 stages, found {given}")
        if min(self._stage_epochs()) < 1:
            raise PruningError(f"epochs: expected at least 3, or at least 1 for each stage, found {self.epochs}")
        if not min(self._rates()) > 0:
            raise PruningError(f"lr: expected a positive learning rate, found {self.lr}")
        if self.sharing not in SHARING_METHODS:
            raise PruningError(f"sharing: expected {' or '.join(SHARING_METHODS)}, found {self.sharing!r}")
        if not 0 < self.units <= 1:
            raise PruningError(f"units: expected above 0 and at most 1, found {self.units}")
        if not 0 <= self.distill <= 1:
            raise PruningError(f"distill: expected 0 to 1, found {self.distill}")

    def dense_plan(self) -> TrainingPlan:
        """Return how the dense network trains, which has no teacher yet."""
        return self._plan(self.dense_epochs, self._rates()[0], distill=0.0)

    def plans(self) -> tuple[TrainingPlan, TrainingPlan, TrainingPlan]:
        """Return how a network trains while weights are pruned, while they are tied, and while values settle."""
        stages = zip(self._stage_epochs(), self._rates(), strict=True)
        prune, share, settle = (self._plan(epochs, lr, self.distill) for epochs, lr in stages)
        return prune, share, settle

    def _stage_epochs(self) -> tuple[int, int, int]:
        if isinstance(self.epochs, tuple):
            return self.epochs
        prune = max(1, min(self.epochs - 2, round(_PRUNE * self.epochs)))
        share = max(1, min(self.epochs - prune - 1, round(_SHARE * self.epochs)))
        return prune, share, self.epochs - prune - share

    def _rates(self) -> tuple[float, float, float]:
        return self.lr if isinstance(self.lr, tuple) else (self.lr, _SHARE_RATE * self.lr, _SETTLE_RATE * self.lr)

    def _plan(self, epochs: int, lr: float, distill: float) -> TrainingPlan:
        return TrainingPlan(
            epochs=epochs,
            lr=lr,
            batch=self.batch,
            weight_decay=self.weight_decay,
            l1=self.l1,
            distill=distill,
            temperature=self.temperature,
            bfloat16=self.bfloat16,
        )
