"""Chooses the network to try next: the number of weights to keep, from the trials so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dcformat_pruning.compression.goals import Goal, Trial

#: Factors between the numbers of weights of two trials, while all trials meet the goal and while none does.
_DOWN, _UP = 0.5, 2.5

#: Two numbers of weights in this ratio or a closer one are too near for another trial between them.
_CLOSE = 0.85


@dataclass(frozen=True, slots=True)
class Search:
    """A search for the number of weights to keep.

    Attributes
    ----------
    goal : Goal
    dense : float
        The metric of the dense network.
    total, least : int
        The largest and the smallest number of weights that may be kept.
    first : int
        The number of the first trial.
    """

    goal: Goal
    dense: float
    total: int
    least: int
    first: int

    def next(self, trials: Sequence[Trial]) -> int | None:
        """Return the number of weights of the next trial, or None if the search is at its end."""
        if not trials:
            return self._within(self.first)
        if self.goal.is_enough(trials[-1]):
            return None
        good = [trial.keep for trial in trials if self.goal.holds(trial, self.dense)]
        bad = [trial.keep for trial in trials if not self.goal.holds(trial, self.dense)]
        keep = self._for_size(trials) if self.goal.size is not None else self._for_drop(good, bad)
        tried = {trial.keep for trial in trials}
        return None if keep is None or self._within(keep) in tried else self._within(keep)

    def _for_drop(self, good: Sequence[int], bad: Sequence[int]) -> int | None:
        """Halve the weights while the goal holds, then close in on the smallest number with which it does.

        A network that fails with more weights than one that meets the goal was unlucky, and says nothing.
        """
        if not good:
            return round(_UP * max(bad))
        low = max((keep for keep in bad if keep < min(good)), default=0)
        if not low:
            return round(_DOWN * min(good))
        return None if low >= _CLOSE * min(good) else round(math.sqrt(low * min(good)))

    def _for_size(self, trials: Sequence[Trial]) -> int | None:
        """Aim a little below the size, along the line through the two nearest trials, or through the only one."""
        assert self.goal.size is not None
        aim = 0.98 * self.goal.size
        near = sorted(trials, key=lambda t: abs(t.size - aim))[:2]
        if len(near) == 2 and (near[0].size - near[1].size) * (near[0].keep - near[1].keep) > 0:
            slope = (near[0].size - near[1].size) / (near[0].keep - near[1].keep)
            return round(near[0].keep + (aim - near[0].size) / slope)
        return round(near[0].keep * aim / near[0].size)

    def _within(self, keep: int) -> int:
        return max(self.least, min(self.total, keep))


def parent(trials: Sequence[Trial], keep: int, goal: Goal, dense: float) -> Trial | None:
    """Return the trial whose pruned network the next one continues from: the sparsest that is denser and was good.

    None stands for the dense network.
    """
    denser = [t for t in trials if t.keep >= keep and (goal.max_drop is None or goal.holds(t, dense))]
    return min(denser, key=lambda t: t.keep, default=None)
