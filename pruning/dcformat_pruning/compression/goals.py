"""The goals of a compression: a size, a largest drop of the metric, or a density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dcformat_pruning.masks import PruningError

#: The search does not try to fill a file further that is within this share of the requested size.
_FULL = 0.95


@dataclass(frozen=True, slots=True)
class Trial:
    """A network that a search tried.

    Attributes
    ----------
    number : int
        The number of the trial, from 1.
    keep : int
        Number of weights that pruning kept.
    size : int
        Number of bytes of the file.
    metric : float
        The metric of the packed file on the validation data.
    """

    number: int
    keep: int
    size: int
    metric: float


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a compression; give exactly one of the three.

    Attributes
    ----------
    max_drop : float or None
        The smallest file whose metric is at most this many points below the dense network's. A point is a hundredth if
        the dense network's metric is between 0 and 1, as an accuracy is, and one unit of the metric otherwise.
    size : int or None
        The network with the best metric in a file of at most this many bytes.
    density : float or None
        A network with this share of its weights, above 0 and at most 1.

    Raises
    ------
    PruningError
        None or several are given, or a number is out of range.
    """

    max_drop: float | None = None
    size: int | None = None
    density: float | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise PruningError(f"goal: expected one of max_drop, size and density, found {found}")
        if self.max_drop is not None and not (self.max_drop >= 0 and math.isfinite(self.max_drop)):
            raise PruningError(f"max_drop: expected at least 0 points, found {self.max_drop}")
        if self.size is not None and self.size < 1:
            raise PruningError(f"size: expected at least 1 byte, found {self.size}")
        if self.density is not None and not 0 < self.density <= 1:
            raise PruningError(f"density: expected above 0 and at most 1, found {self.density}")

    def holds(self, trial: Trial, dense: float) -> bool:
        """Return whether a network reaches the goal; `dense` is the metric of the dense network."""
        if self.max_drop is not None:
            return points(dense - trial.metric, dense) <= self.max_drop + 1e-9
        return self.size is None or trial.size <= self.size

    def best(self, trials: Sequence[Trial], dense: float) -> Trial:
        """Return the best network: of those that meet the goal if any does, otherwise the one nearest to it."""
        good = [trial for trial in trials if self.holds(trial, dense)]
        if self.size is not None:
            return max(good, key=lambda t: (t.metric, -t.size)) if good else min(trials, key=lambda t: t.size)
        if good:
            return min(good, key=lambda t: (t.size, -t.metric))
        return max(trials, key=lambda t: (t.metric, -t.size))

    def is_enough(self, trial: Trial) -> bool:
        """Return whether no better network is worth a further trial."""
        return self.density is not None or (self.size is not None and _FULL * self.size <= trial.size <= self.size)

    def describe(self) -> str:
        """Return the goal in words."""
        if self.max_drop is not None:
            return f"a drop of at most {self.max_drop:g} points"
        return f"at most {self.size:,} bytes" if self.size is not None else f"a density of {self.density:g}"


def points(difference: float, dense: float) -> float:
    """Return a difference of two metrics in points; see `Goal.max_drop`."""
    return 100 * difference if 0 <= dense <= 1 else difference
