"""Chooses the shared values of one tensor and the code of each of its elements, by bits and by error.

The cost of a choice is its error plus the price of its bits. The error is a quadratic form of the second derivatives of
the measure; the bits are those of a coder that knows how often each code occurs, and how dense each row and column is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat_pruning.calibration.assignment_kernel import BLOCK, assign_codes
from dcformat_pruning.calibration.elimination_kernel import eliminate

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]

#: The share of the mean second derivative that is added to each: inputs that were never seen keep their weights.
DAMPING = 0.01
#: Number of times that codes are chosen: each time with the frequencies of the codes before.
_PASSES = 3
#: Maximum number of shared values on either side of zero.
_MOST = 127
#: Neighbouring steps of the grids that are tried.
_RATIO = 1.25
#: Maximum number of columns among which weights are removed one after another.
_ELIMINATED = 256
#: The bits of a shared value in a file, beside those of the grid's step.
_VALUE_BITS, _STEP_BITS = 4.0, 48.0


class Problem(NamedTuple):
    """The elements of a tensor as a matrix, and the measure of its error.

    Attributes
    ----------
    weights : float64 ``(rows, columns)``
    hessians : float64 ``(groups, columns, columns)``
        The second derivatives for the weights of a row, for blocks of equally many rows.
    importance : float64 ``(rows,)``
        The factors of each row's second derivatives.
    allowed : bool ``(rows, columns)`` or None
        The weights that may differ from zero; None: all.
    """

    weights: Floats
    hessians: Floats
    importance: Floats
    allowed: npt.NDArray[np.bool_] | None = None

    @property
    def which(self) -> npt.NDArray[np.int64]:
        """The Hessian of each row."""
        rows, groups = len(self.weights), len(self.hessians)
        return np.repeat(np.arange(groups), rows // groups)

    def error(self, values: npt.NDArray[Any]) -> float:
        """Return half the quadratic form of the differences of `values` from the weights."""
        off = (self.weights - values).reshape(len(self.hessians), -1, self.weights.shape[1])
        products = np.einsum("grc,grc->gr", off @ self.hessians, off).reshape(-1)
        return float(products @ self.importance) / 2


@dataclass(frozen=True)
class Assigned:
    """The values of a tensor, which are multiples of a step.

    Attributes
    ----------
    values : float64 ``(rows, columns)``
    error : float
        The increase of the measure that the problem predicts.
    bits : float
        The estimated size.
    step : float or None
        None for values that are not multiples.
    """

    values: Floats
    error: float
    bits: float
    step: float | None

    def cost(self, price: float) -> float:
        """Return the error plus the price of the bits."""
        return self.error + price * self.bits


class Factors(NamedTuple):
    """The order in which the columns get their codes, and the Hessians inverted in it.

    Attributes
    ----------
    order : int64 ``(columns,)``
    upper : float64 ``(groups, columns, columns)``
        The upper Cholesky factors of the inverse Hessians.
    """

    order: npt.NDArray[np.int64]
    upper: Floats


def factorise(hessians: Floats) -> Factors:
    """Return the factors of Hessians ``(groups, columns, columns)``; they take most of the time of a large problem."""
    order = np.argsort(-np.diagonal(hessians, axis1=1, axis2=2).mean(0), kind="stable")
    damped = _damped(hessians[:, order][:, :, order])
    # The upper factor of the inverse follows from the lower factor with rows and columns in reverse order.
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1])
    return Factors(order, np.ascontiguousarray(np.linalg.inv(lower)[:, ::-1, ::-1]))


class _Factored:
    """A problem whose columns are in the order in which codes are chosen, and whose Hessians are inverted."""

    def __init__(self, problem: Problem, factors: Factors) -> None:
        self.problem = problem
        self.order, self.upper = factors
        self.pivots = np.diagonal(self.upper, axis1=1, axis2=2)[problem.which]  # (rows, columns)
        self.importance = np.maximum(problem.importance, 1e-12 * problem.importance.max(initial=0.0)) / 2
        allowed = np.ones_like(problem.weights) if problem.allowed is None else problem.allowed
        self.allowed = np.ascontiguousarray(allowed[:, self.order].T.astype(np.uint8))

    def typical_step(self, price: float) -> float:
        """Return the step of a grid on which another bit for each weight would cost as much error as it saves."""
        curvature = 2 * self.importance[:, None] / self.pivots**2
        mean = max(float(curvature.mean()), 1e-300)
        return float(np.sqrt(6 * max(price, 1e-300) / (np.log(2) * mean)))

    def choose(self, values: Floats, price: Floats, zero_price: Floats) -> Codes:
        """Return the codes ``(rows, columns)`` of `values`, the first of which is 0."""
        weights = np.ascontiguousarray(self.problem.weights[:, self.order].T)
        codes = np.empty(weights.shape, np.int32)
        assign_codes(
            weights, self.upper, self.problem.which, self.importance, self.allowed, values, price,
            np.ascontiguousarray(zero_price[:, self.order].T), codes, np.empty(BLOCK),
        )  # fmt: skip
        out = np.empty(codes.T.shape, np.int32)
        out[:, self.order] = codes.T
        return out


def _damped(hessians: Floats) -> Floats:
    """Return Hessians with a share of their mean diagonal added to it, so that they have inverses."""
    diagonals = np.diagonal(hessians, axis1=1, axis2=2)
    damping = DAMPING * np.maximum(diagonals.mean(1), 1e-30)
    return np.asarray(hessians + damping[:, None, None] * np.eye(hessians.shape[-1]))


def removal_losses(weights: Floats, hessians: Floats) -> Floats:
    """Return the loss at which each weight goes if each row loses one weight after another, ``(rows, columns)``.

    Each time, the weight goes that costs least, and the others make up for it. A weight that costs less than one
    before it has the loss of that one. Wide rows are treated in blocks of columns: in each of them, the columns of
    the others stay and make up for it too.

    Parameters
    ----------
    weights : float64 ``(rows, columns)``
    hessians : float64 ``(groups, columns, columns)``
    """
    inverses, losses = np.linalg.inv(_damped(hessians)), np.empty_like(weights)
    columns = weights.shape[1]
    for start in range(0, columns, _ELIMINATED):
        block = slice(start, min(start + _ELIMINATED, columns))
        left, inverse = weights[:, block].copy(), np.ascontiguousarray(inverses[:, block, block])
        found, count = np.empty_like(left), left.shape[1]
        eliminate(left, inverse, found, np.empty((count, count)), np.empty(count), np.empty(count, np.uint8))
        losses[:, block] = found
    return losses


def on_support(weights: Floats, hessians: Floats, allowed: npt.NDArray[np.bool_]) -> Floats:
    """Return the weights with the least error among those that differ from zero only where that is allowed.

    The weights that stay make up for those that go, in all columns at once; choosing codes column by column corrects
    later columns only.

    Parameters
    ----------
    weights : float64 ``(rows, columns)``
    hessians : float64 ``(groups, columns, columns)``
    allowed : bool ``(rows, columns)``
    """
    found = np.zeros_like(weights)
    damped, each = _damped(hessians), len(weights) // len(hessians)
    for row, there in enumerate(allowed):
        hessian, (kept,) = damped[row // each], np.nonzero(there)
        found[row, kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ weights[row])
    return found


def assign(problem: Problem, price: float, steps: Sequence[float] = (), factors: Factors | None = None) -> Assigned:
    """Return the values with the least cost on the grids that are tried.

    Parameters
    ----------
    problem : Problem
    price : float
        The error that a bit is worth.
    steps : sequence of float
        The steps of the grids to try; by default, those around the best one.
    factors : Factors, optional
        Those of the problem's Hessians, if they are known.
    """
    factored = _Factored(problem, factors or factorise(problem.hessians))
    if steps:
        return min((_on_grid(factored, step, price) for step in steps), key=lambda made: made.cost(price))
    first = factored.typical_step(price)
    found = {0: _on_grid(factored, first, price)}
    best = 0
    for direction in (1, -1):
        while (place := best + direction) not in found:
            found[place] = _on_grid(factored, first * _RATIO**place, price)
            if found[place].cost(price) < found[best].cost(price):
                best = place
    return found[best]


def _on_grid(factored: _Factored, step: float, price: float) -> Assigned:
    weights = factored.problem.weights
    largest = float(np.abs(weights).max(initial=0.0))
    step = _short(max(step, largest / _MOST))
    low = max(int(np.floor(weights.min() / step)), -_MOST)
    high = min(int(np.ceil(weights.max() / step)), _MOST)
    multiples = np.array([0, *(k for k in range(low, high + 1) if k)])
    order = np.argsort(multiples)
    nearest = np.clip(np.rint(weights / step), low, high)
    values, codes = multiples * step, order[np.searchsorted(multiples[order], nearest)].astype(np.int32)
    for _ in range(_PASSES):
        bits, zero_bits = code_bits(codes, len(values))
        codes = factored.choose(values, price * bits, price * zero_bits)
    made = values[codes]
    return Assigned(made, factored.problem.error(made), estimated_bits(codes, len(values)), step)


def _short(step: float) -> float:
    """Return a step with few bits, which a file stores in few bytes."""
    mantissa, exponent = np.frexp(step)
    return float(np.ldexp(np.rint(mantissa * 64) / 64, exponent))


def code_bits(codes: Codes, count: int) -> tuple[Floats, Floats]:
    """Return the bits of each code among the codes other than 0, and the extra bits of each 0 compared with them.

    The first array is ``(count,)``; the second is ``(rows, columns)`` and may have negative numbers.
    """
    times = np.bincount(codes.reshape(-1), minlength=count).astype(np.float64)
    entries = times[1:] + 0.5
    bits = np.concatenate(([0.0], np.log2(entries.sum()) - np.log2(entries)))
    there = codes != 0
    share = (there.sum() + 0.5) / (there.size + 1)
    rows, columns = (_odds(there.mean(axis), there.shape[axis], share) for axis in (1, 0))
    odds = np.log(share / (1 - share)) + rows[:, None] + columns[None]
    return bits, odds / np.log(2)


def _odds(shares: Floats, count: int, share: float) -> Floats:
    """Return the log odds of shares of `count` elements beyond those of all, drawn towards them."""
    strength = 4.0
    drawn = (shares * count + strength * share) / (count + strength)
    drawn = np.clip(drawn, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(drawn / (1 - drawn)) - np.log(share / (1 - share)))


def estimated_bits(codes: Codes, count: int) -> float:
    """Return the estimated size of codes with their shared values."""
    bits, zero_bits = code_bits(codes, count)
    there = codes != 0
    odds = zero_bits * np.log(2)
    positions = np.logaddexp(0, np.where(there, -odds, odds)).sum() / np.log(2)
    used = len(np.unique(codes[there]))
    return float(positions + bits[codes[there]].sum() + _VALUE_BITS * used + _STEP_BITS)
