"""The check of every import: the network against LiteRT, on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Port
from dcformat.model import Model
from dcformat_interop.lowering.comparison import (
    ROUNDING,
    TOLERANCE,
    NetworkRun,
    RoundingDifference,
    differences,
    rounding,
    rounds,
)
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tflite_import.litert import LiteRT, litert_version

Array = npt.NDArray[Any]

#: A network of floats that multiplies every error of rounding may differ from LiteRT by this many times as much as the
#: results of LiteRT's own kernels do.
_TIMES = 8

#: Numbers of random inputs, and the maximum number of elements in all of them together and in the outputs.
_INPUTS, _QUANTIZED_INPUTS, _LEAST_INPUTS = 8, 100, 2
_ELEMENTS = 1 << 26


class LiteRTComparison(NamedTuple):
    """The result of a check.

    Attributes
    ----------
    engine : str
        The engine that ran the model.
    inputs : int
        Number of random inputs.
    difference : float or None
        The largest difference of a network of floats, relative to the largest output.
    rounding : RoundingDifference or None
        The differences of a network that rounds to integers.
    """

    engine: str
    inputs: int
    difference: float | None
    rounding: RoundingDifference | None = None

    def describe(self) -> str:
        """Return the result in a line."""
        tried = f"checked against {self.engine} with {self.inputs} random inputs"
        if self.rounding is not None:
            return f"{tried}: {self.rounding.describe()}"
        largest = f"{self.difference:.1e}" if self.difference else "none"
        return f"{tried}: largest difference {largest}, of the largest output"


def compare_with_litert(
    model: Model, path: str, data: bytes, limits: Mapping[str, int], run: NetworkRun, litert: LiteRT
) -> LiteRTComparison:  # fmt: skip
    """Compare a network with the file from which it was read; `limits` are those of inputs that choose elements.

    Raises
    ------
    UnfitError
        The results differ, or LiteRT does not run the file.
    """
    assert model.graph is not None
    whole = rounds(model)
    count = _count(model, _QUANTIZED_INPUTS if whole else _INPUTS)
    inputs = {port.name: _random(port, count, limits.get(port.name)) for port in model.graph.inputs}
    expected = litert(path, data, list(inputs.values()))
    found = _outputs(model, inputs, count, run)
    pairs = [(output.name, found[output.name], expected[i]) for i, output in enumerate(model.graph.outputs)]
    for name, results, wanted in pairs:
        if results.shape != wanted.shape:
            raise UnfitError(path, f"shape {wanted.shape[1:]}", f"{results.shape[1:]}", f"output {name!r}")
    others = cache(lambda: litert(path, data, list(inputs.values()), other_kernels=True))
    engine = f"LiteRT {litert_version()}"
    if whole:
        return LiteRTComparison(engine, count, None, _check_rounding(path, pairs, others, bool(model.tensors)))
    return LiteRTComparison(engine, count, _check_floats(path, pairs, others))


def _check_rounding(
    path: str, pairs: Sequence[tuple[str, Array, Array]], others: Callable[[], Sequence[Array]], layers: bool
) -> RoundingDifference:
    """Return how the outputs of a network of integers, with `layers` or without, differ; raise if that is too much."""
    all_found = []
    for number, (name, results, wanted) in enumerate(pairs):
        found = rounding(results, wanted)
        # Kernels of lone functions multiply by numbers of 8 bits, and are a step off more often.
        exact = layers or not found.fits_function()
        if exact and not found.fits() and not found.fits(rounding(others()[number], wanted)):
            expected = f"as from LiteRT, on random inputs, {ROUNDING}"
            raise UnfitError(path, expected, found.describe(), f"output {name!r}")
        all_found.append(found)
    return RoundingDifference(max(found.share for found in all_found), max(found.steps for found in all_found))


def _check_floats(path: str, pairs: Sequence[tuple[str, Array, Array]], others: Callable[[], Sequence[Array]]) -> float:
    """Return the largest difference of the outputs of a network of floats; raise if it is too large."""
    largest = 0.0
    for number, (name, results, wanted) in enumerate(pairs):
        difference = _part(results, wanted)
        if difference > TOLERANCE and difference > _TIMES * _part(others()[number], wanted):
            expected = f"at most {TOLERANCE:g} of the largest number between it and that of LiteRT, on random inputs"
            raise UnfitError(path, expected, f"{difference:.2g}", f"output {name!r}")
        largest = max(largest, difference)
    return largest


def _part(found: Array, wanted: Array) -> float:
    """Return the largest difference, relative to the largest number."""
    apart, scale = differences(found, wanted)
    return float(apart.max(initial=0)) / scale


def _count(model: Model, wanted: int) -> int:
    """Return the number of random inputs, which is smaller for very large ones."""
    assert model.graph is not None
    shapes = model.graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    ends = [*range(len(model.graph.inputs)), *(output.value for output in model.graph.outputs)]
    elements: int = sum(prod(shapes[number]) for number in ends)
    return min(wanted, max(_ELEMENTS // elements, _LEAST_INPUTS))


def _random(port: Port, count: int, limit: int | None) -> Array:
    """Return inputs: normal numbers, or integers below a limit or of the whole range."""
    shape = port.shape if port.batch_axis is None else (1, *port.shape)
    random, dtype = np.random.default_rng(count), np.dtype(port.dtype)
    if dtype.kind == "f":
        return random.standard_normal((count, *shape)).astype(dtype)
    small = dtype.kind in "iu" and dtype.itemsize <= 2 and limit is None
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max + 1) if small else (0, limit or 2)
    return random.integers(low, high, (count, *shape)).astype(dtype)


def _outputs(model: Model, inputs: Mapping[str, Array], count: int, run: NetworkRun) -> dict[str, Array]:
    """Return the network's outputs for each input."""
    calls = [run({name: array[number] for name, array in inputs.items()}) for number in range(count)]
    return {name: np.stack([np.asarray(call[name]) for call in calls]) for name in calls[0]}
