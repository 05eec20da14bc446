"""The goals of compression without training, and the search for the price of a bit that reaches one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp, isfinite, log
from typing import NamedTuple, Protocol

#: The quantities that a goal may limit: the bytes of the file, or the distance of outputs from the dense network's.
KINDS = ("size", "change", "drop")
#: Maximum number of prices that are tried, and the ratio of two prices that are close enough.
_MOST, _CLOSE = 12, 1.12
#: The step from one price to the next until the goal lies between two of them.
_LEAP = 4.0


class GoalError(ValueError):
    """No price reaches the goal; the message gives the nearest result."""


class CalibrationGoal(NamedTuple):
    """An upper limit of the file's size in bytes, of the change of the outputs, or of the drop in agreement.

    Attributes
    ----------
    kind : {'size', 'change', 'drop'}
        The bytes of the file; the measure (`Measure`); or the percentage of outputs whose class is another one.
    limit : float
    """

    kind: str
    limit: float

    def check(self) -> None:
        """Raise `ValueError` for a meaningless goal."""
        if self.kind not in KINDS:
            raise ValueError(f"goal: expected {', '.join(KINDS)}, found {self.kind!r}")
        if not isfinite(self.limit) or self.limit < 0 or (self.limit == 0 and self.kind != "drop"):
            raise ValueError(f"{self.kind}: expected a number above 0, found {self.limit:g}")

    def describe(self, value: float) -> str:
        """Return a value of the goal's kind in words."""
        return {
            "size": f"{value:,.0f} bytes",
            "change": f"a change of {value:.3g}",
            "drop": f"a drop of {value:.2f} %",
        }[self.kind]


class Figures(Protocol):
    """The results of a trial that the search uses."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    @property
    def change(self) -> float:
        """The measure."""

    @property
    def drop(self) -> float | None:
        """The percentage of outputs whose class is another one."""


def search(goal: CalibrationGoal, first: float, attempt: Callable[[float], Figures]) -> Iterator[tuple[Figures, bool]]:
    """Yield each trial, and whether it is the best so far of those within the goal.

    The best within a size is the one with the least change; within a change or a drop, the smallest.

    Parameters
    ----------
    goal : CalibrationGoal
    first : float
        The first price to try.
    attempt : callable
        Compresses at a price.

    Raises
    ------
    GoalError
        No trial is within the goal.
    """
    best: Figures | None = None
    nearest = float("inf")
    low = high = None  # prices that are too low and too high
    price = first
    for _ in range(_MOST):
        made = attempt(price)
        value = float(getattr(made, goal.kind))
        fits = value <= goal.limit
        nearest = min(nearest, value)
        better = fits and (best is None or _better(goal, made, best))
        if better:
            best = made
        yield made, better
        if fits == (goal.kind == "size"):
            high = price
        else:
            low = price
        if low is not None and high is not None:
            if high / low < _CLOSE:
                break
            price = exp((log(low) + log(high)) / 2)
        else:
            price = price * _LEAP if high is None else price / _LEAP
    if best is None:
        reached, wanted = goal.describe(nearest), goal.describe(goal.limit)
        raise GoalError(f"goal not reached: expected at most {wanted}, found {reached} at best")


def _better(goal: CalibrationGoal, made: Figures, best: Figures) -> bool:
    return made.change < best.change if goal.kind == "size" else made.size < best.size
