"""Converts the contents of a file to float32: the values of tensors, and pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.denormals import is_denormal
from dcformat.errors import GraphError
from dcformat.floats import finite
from dcformat.graph import Graph
from dcformat.layout import DTYPES, KERNEL_DTYPES
from dcformat.model import Tensor

Floats = npt.NDArray[np.float32]


def to_float32(tensor: Tensor, values: npt.NDArray[Any], *, infinite: bool = False) -> Floats:
    """Return values as float32; denormals, which slow processors down a hundredfold, become zeros.

    Infinities and NaN are refused unless `infinite` is set. Values that need no change are returned without a copy,
    except for arrays that kernels cannot take: read-only, unaligned or not contiguous ones.
    """
    if tensor.dtype not in DTYPES[:KERNEL_DTYPES]:
        raise GraphError(f"tensor {tensor.name!r}", got=tensor.dtype, expected=", ".join(DTYPES[:KERNEL_DTYPES]))
    if tensor.dtype == "bfloat16":
        out = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif tensor.dtype == "int8":
        with np.errstate(over="ignore"):  # an infinity is refused below
            out = values.astype(np.float32) * np.float32(tensor.scale)
    else:
        with np.errstate(invalid="ignore"):  # so is a signalling NaN
            out = np.require(values, np.float32, ("C", "A", "W"))
    if not infinite and not finite(out, "float32"):
        raise GraphError(f"values of {tensor.name!r}", got="NaN or infinity", expected="finite numbers")
    denormal = is_denormal(out)
    return np.where(denormal, np.float32(0), out) if denormal.any() else out


def pixel_table(graph: Graph) -> Floats | None:
    """Tabulate the preprocessing, with the operations in the order of its definition."""
    rule = graph.preprocessing
    if rule is None:
        return None
    pixel = np.arange(256, dtype=np.float32) / np.float32(255)
    with np.errstate(all="ignore"):  # tiny deviations give infinities
        mean, std = (np.array(v, np.float32)[:, None] for v in (rule.mean, rule.std))
        return np.asarray((pixel - mean) / std, np.float32)
