"""Denormal numbers: so close to zero that most processors compute with them a hundred times more slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def denormals(values: npt.NDArray[Any], dtype: str) -> int:
    """Return how many values are denormal as float32; the runtime treats these as zero.

    Parameters
    ----------
    values : ndarray
        An array of any shape, as a tensor stores it (`dcformat.model.STORAGE`).
    dtype : {'float32', 'float16', 'bfloat16', 'int8'}
        Neither a float16 nor an int8 is ever denormal as float32.
    """
    if dtype == "float32":
        return int(np.count_nonzero(is_denormal(np.ascontiguousarray(values))))
    if dtype == "bfloat16":
        return int(np.count_nonzero(_between(values, 0x7F80, 0x7FFF)))
    return 0


def is_denormal(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return whether each float32 is denormal. Zeros are not."""
    return _between(values.view(np.uint32), 0x7F80_0000, 0x7FFF_FFFF)


def _between(bits: npt.NDArray[Any], exponent: int, magnitude: int) -> npt.NDArray[np.bool_]:
    """Return whether each pattern has a zero exponent and a nonzero mantissa."""
    kind = bits.dtype.type
    return np.asarray(((bits & kind(exponent)) == 0) & ((bits & kind(magnitude)) != 0))
