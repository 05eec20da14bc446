"""Chooses how numbers become integers: scales of values from their ranges, and integers for weights and biases.

A value x is stored as round(x / scale) + zero, in 8 unsigned bits or in 16 bits with zero = 0. The sum of a row of
weights is an int32 in units of input scale times weight scale, and becomes a value by a multiplier of 15 bits and a
shift (`parts/fixed_numbers.c`).
"""

from __future__ import annotations

from math import frexp, isinf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import GraphError
from dcformat.graph import Graph, Quantize
from dcformat_runtime.c_export.steps import FusedStep
from dcformat_runtime.c_export.tensor_data import MAX_CODES, Values
from dcformat_runtime.weight_matrices import Floats

Ints = npt.NDArray[np.int64]

#: Sums stay below this for any input.
_MAX_SUM = (1 << 31) - (1 << 24)
#: The greatest weights: in codebooks, and in rows that have a scale each.
_MAX_SHARED, _MAX_RANGED = (1 << 15) - 1, 127
#: The multiplier of `scale_of` has 15 bits and stands for a fraction of 2^16, so a scale must be below one half.
_MAX_SCALE, _MAX_SHIFT = 0.49, 24
#: The rounding of a bias may be this fraction of a step of the result.
_BIAS_ERROR = 1 / 64


class Code(NamedTuple):
    """How numbers are stored: as ``round(x / scale) + zero``, limited to `low` and `high`."""

    scale: float
    zero: int
    low: int
    high: int

    def limits(self, least: float, greatest: float) -> tuple[int, int]:
        """Return the least and the greatest integer for numbers of this range."""
        low = self.low if isinf(least) else max(self.low, min(self.high, self.of(least)))
        high = self.high if isinf(greatest) else max(self.low, min(self.high, self.of(greatest)))
        return low, high

    def of(self, x: float) -> int:
        """Return the integer for a number, without limits."""
        return round(x / self.scale) + self.zero

    def numbers(self, stored: npt.NDArray[np.generic]) -> Floats:
        """Return the numbers that integers stand for."""
        return np.asarray((stored.astype(np.float64) - self.zero) * self.scale, np.float32)

    def integers(self, x: Floats) -> Ints:
        """Return the integers for numbers."""
        steps = np.rint(x.astype(np.float64) / self.scale) + self.zero
        return np.asarray(np.clip(steps, self.low, self.high), np.int64)


class IntegerLayer(NamedTuple):
    """A layer's integers: weights (rows, columns), the bias, and the scale of each row, or of all."""

    weight: Values
    bias: Values
    scales: tuple[int, ...]
    sum_scale: float
    """For a layer whose results are the sums themselves: the value of one unit."""


def code_of_range(low: float, high: float, bits: int) -> Code:
    """Return the code for numbers from `low` to `high` and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        return Code(max(-low, high, 1e-30) / 32767, 0, -32767, 32767)
    scale = max(high - low, 1e-30) / 255
    return Code(scale, round(-low / scale), 0, 255)


def code_of_node(node: Quantize, bits: int) -> Code | None:
    """Return the code that stores the results of a node without a further error; None if there is none."""
    if bits == 16 or node.high - node.low > 255:
        return None
    return Code(float(np.float32(node.scale)), node.zero_point - node.low, 0, node.high - node.low)


def code_of_input(graph: Graph, measured: tuple[float, float] | None, bits: int) -> Code:
    """Return the code of the network's input: pixels and 8-bit integers unchanged, if possible.

    Raises
    ------
    GraphError
        The code would have to be measured, and there are no calibration inputs.
    """
    rule, port = graph.preprocessing, graph.inputs[0]
    if bits == 8 and rule is not None and len(rule.mean) == 1 and rule.std[0] > 0 and 0 <= rule.mean[0] <= 1:
        return Code(1 / (255 * rule.std[0]), round(255 * rule.mean[0]), 0, 255)
    if bits == 8 and port.dtype in ("uint8", "int8"):
        return Code(1.0, 128 if port.dtype == "int8" else 0, 0, 255)
    return code_of_range(*_measured(measured, "the input"), bits)


def code_of_step(step: FusedStep, measured: tuple[float, float] | None, bits: int) -> Code:
    """Return the code of a step's result."""
    found = code_of_node(step.quantize, bits) if step.quantize is not None else None
    return found or code_of_range(*_measured(measured, f"node {step.number}"), bits)


def _measured(measured: tuple[float, float] | None, what: str) -> tuple[float, float]:
    if measured is None:
        raise GraphError(
            f"range of {what}", got="no calibration inputs", expected="some (--calibrate), or a quantised network"
        )
    return measured


def quantized_layer(weight: Floats, bias: Floats, source: Code, target: Code | None, name: str) -> IntegerLayer:
    """Turn a layer's weight ``(rows, columns)`` and bias ``(rows,)`` into integers.

    Parameters
    ----------
    weight, bias : ndarray
        float32.
    source : Code
        The code of the input.
    target : Code or None
        The code of the result; None if the sums are the result.
    name : str
        The weight's name, for errors.
    """
    shared = len(np.unique(weight[weight != 0])) <= MAX_CODES
    wide = weight.astype(np.float64)
    steps = max(source.high - source.zero, source.zero - source.low)
    greatest = np.abs(wide).max(axis=1)
    sums = np.abs(wide).sum(axis=1) * steps + np.abs(bias) / source.scale
    if shared:
        scale = max(greatest.max() / _MAX_SHARED, sums.max() / _MAX_SUM, 1e-30)
        scales = np.full(len(weight), scale)
    else:
        # A row of tiny weights and a large bias has fewer bits, so that its sums fit.
        least = np.maximum(sums / _MAX_SUM, 1e-30)
        scales = np.maximum(greatest / _MAX_RANGED, least)
        if target is None:
            scales[:] = scales.max()
    integers = np.rint(wide / scales[:, None]).astype(np.int64)
    units = scales * source.scale
    ratios = None if target is None else units / target.scale
    biases = _bias(bias / units, ratios)
    kept: tuple[int, ...] = ()
    if ratios is not None:
        kept = tuple(scale_of(float(r), name) for r in (ratios[:1] if shared else ratios))
    return IntegerLayer(Values(integers, 0, ranged=not shared), biases, kept, float(units[0]))


def _bias(sums: npt.NDArray[np.float64], ratios: npt.NDArray[np.float64] | None) -> Values:
    """Return biases in units of the sums, as multiples of a power of two where that fits them into 16 bits."""
    whole = np.rint(sums).astype(np.int64)
    shift = max(int(np.abs(whole).max()).bit_length() - 15, 0)
    if shift and ratios is not None and (2.0 ** (shift - 1) * ratios).max() > _BIAS_ERROR:
        return Values(whole)
    return Values(np.rint(sums / 2**shift).astype(np.int64), shift)


def scale_of(ratio: float, name: str) -> int:
    """Return multiplier + 2^16 x shift for a ratio, which is near multiplier / 2^(16 + shift)."""
    if not ratio < _MAX_SCALE:
        raise GraphError(f"scale of {name!r}", got=f"{ratio:.3g}", expected=f"below {_MAX_SCALE}; export float32")
    fraction, exponent = frexp(ratio)  # fraction is 0.5 to 1
    multiplier, shift = round(fraction * (1 << 15)), -exponent - 1
    if multiplier == 1 << 15:
        multiplier, shift = multiplier >> 1, shift - 1
    if shift > _MAX_SHIFT:
        multiplier, shift = multiplier >> min(shift - _MAX_SHIFT, 15), _MAX_SHIFT
    return multiplier | shift << 16
