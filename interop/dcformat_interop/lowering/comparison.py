"""The comparison of an imported network with its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Quantize, Requantize
from dcformat.model import Model

Array = npt.NDArray[Any]

#: Runs a network: takes its inputs by name, and returns its outputs by name, as `dcformat_runtime.Session` does.
NetworkRun = Callable[[Mapping[str, Array]], Mapping[str, Array]]


#: Largest difference of networks that compute with floats, relative to the largest output. Another order of the same
#: sums makes about a hundredth of it.
TOLERANCE = 1e-4

#: Allowed differences of networks that round to integers: a sum midway between two integers may become either, so that
#: a small share of the results is one step apart. A function without layers may be a step off more often.
_SHARE, _STEP, _FUNCTION_SHARE = 0.01, 1.0, 0.15
#: A network that multiplies such errors may have half the share that kernels of the source's own engine have, and as
#: many steps, or this much more than the source's results move if one number of its inputs moves by a step.
_OWN, _MOVED = 0.5, 1.5

#: Steps from zero to the largest number, where the inputs or outputs of a network of integers are floats.
STEPS = 128


class Differences(NamedTuple):
    """The differences of two arrays, float64; and the largest finite number of the second, or 1 if that is 0."""

    apart: Array
    scale: float


def differences(found: Array, wanted: Array) -> Differences:
    """Compare two arrays of one shape. Equal infinities and two NaNs do not differ; others differ by infinity."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((found == wanted) | (np.isnan(found) & np.isnan(wanted)), 0, np.abs(found - wanted))
    largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)) or 1.0
    return Differences(np.nan_to_num(apart, nan=np.inf), largest)


class RoundingDifference(NamedTuple):
    """How the results of networks that round to integers differ: the share of them, and the largest number of steps."""

    share: float
    steps: float

    def fits(self, own: RoundingDifference | None = None, moved: RoundingDifference | None = None) -> bool:
        """Return whether only rounding differs.

        `own` is the difference between kernels of the source's engine; `moved` is that of the source's results if one
        of many numbers of an input moves by a step, as a sum that is rounded to the other side does.
        """
        share, steps = (0.0, 0.0) if own is None else own
        moved_share, moved_steps = (0.0, 0.0) if moved is None else moved
        most, far = max(_SHARE, _OWN * share, _MOVED * moved_share), max(_STEP, steps, _MOVED * moved_steps)
        return self.share <= most and self.steps <= far

    def fits_function(self) -> bool:
        """Return whether only rounding differs, of kernels that compute a function of each number roughly."""
        return self.share <= _FUNCTION_SHARE and self.steps <= _STEP

    def describe(self) -> str:
        """Return the differences in words."""
        if not self.share:
            return "no difference"
        steps = f"{self.steps:.0f} step{'s' * (round(self.steps) != 1)}" if self.steps >= 1 else "less than a step"
        return f"{self.share:.2%} of the numbers differ, by at most {steps} of rounding"


#: What `RoundingDifference.fits` expects, for messages.
ROUNDING = f"{1 - _SHARE:.0%} of the numbers equal, and the others a step of rounding apart"


def rounding(found: Array, wanted: Array) -> RoundingDifference:
    """Compare results of networks that round to integers. Wide integers are places or classes, which have no steps."""
    apart, scale = differences(found, wanted)
    if wanted.dtype.kind == "f":
        return RoundingDifference(
            float((apart > TOLERANCE * scale).mean()), float(apart.max(initial=0)) / scale * STEPS
        )
    wide = wanted.dtype.itemsize > 2
    return RoundingDifference(float((apart > 0).mean()), 0.0 if wide else float(apart.max(initial=0)))


def rounds(model: Model) -> bool:
    """Return whether a network rounds to integers, so that its results may differ by steps."""
    assert model.graph is not None
    return any(isinstance(node, Quantize | Requantize) for node in model.graph.nodes)
