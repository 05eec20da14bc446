"""What comparing an imported network with its source takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Runs a network: takes its inputs by name, and returns its outputs by name, as `dcformat_runtime.Session` does.
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Differences(NamedTuple):
    """The differences of two arrays, float64; and the largest finite number of the second, or 1 if that is 0."""

    apart: Array
    scale: float


def differences(found: Array, wanted: Array) -> Differences:
    """Compare two arrays of one shape. Equal infinities and two NaN do not differ; others differ by infinity."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((found == wanted) | (np.isnan(found) & np.isnan(wanted)), 0, np.abs(found - wanted))
    largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)) or 1.0
    return Differences(np.nan_to_num(apart, nan=np.inf), largest)
