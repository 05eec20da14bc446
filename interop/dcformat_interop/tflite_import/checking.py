"""The check of every import: the network against LiteRT, on random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Port, Quantize, Requantize
from dcformat.model import Model
from dcformat_interop.lowering.comparison import Run, differences
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tflite_import.litert import LiteRT, litert_version

Array = npt.NDArray[Any]

#: Largest difference of networks that compute with floats, as a part of the largest output.
TOLERANCE = 1e-4

#: What quantised networks may differ by: two inputs in a hundred may give another largest output, and the outputs are
#: apart by a step of rounding on average. A sum near the middle of two integers is rounded either way.
_OTHER, _AVERAGE = 0.02, 1.0

#: A network that multiplies every error of rounding may differ from LiteRT by this many times as much as the results of
#: LiteRT's own kernels do.
_TIMES = 8

#: Outputs this many steps below the largest count as equal to it.
_NEAR = 3

#: Steps from zero to the largest output, where outputs are floats.
_STEPS = 128

#: Numbers of random inputs, and most numbers in all of them together and in the outputs.
_INPUTS, _QUANTIZED_INPUTS, _LEAST_INPUTS = 8, 100, 2
_ELEMENTS = 1 << 26


class _Difference(NamedTuple):
    """How outputs differ.

    `largest` is a part of the largest output, and `steps` and `average` are steps of rounding. `other` tells how often
    another output is the largest.
    """

    largest: float
    steps: float
    average: float
    other: float

    def fits(self, quantized: bool, own: _Difference | None = None) -> bool:
        """Return whether outputs are the same but for rounding, of which LiteRT's own kernels make `own`."""
        least = _Difference(0, 0, 0, 0) if own is None else own
        if not quantized:
            return self.largest <= max(TOLERANCE, _TIMES * least.largest)
        return self.other <= max(_OTHER, _TIMES * least.other) and self.average <= max(_AVERAGE, _TIMES * least.average)


class LiteRTComparison(NamedTuple):
    """The result of a check.

    Attributes
    ----------
    engine : str
        What ran the model.
    inputs : int
        How many random inputs it got.
    difference : float
        The largest difference; in steps of rounding if `agreement` is not None, else as a part of the largest output.
    agreement : float or None
        For quantised networks, the share of inputs for which the same output is largest.
    """

    engine: str
    inputs: int
    difference: float
    agreement: float | None

    def describe(self) -> str:
        """Return the result in a line."""
        tried = f"checked against {self.engine} with {self.inputs} random inputs"
        if self.agreement is None:
            largest = f"{self.difference:.1e}" if self.difference else "none"
            return f"{tried}: largest difference {largest}, of the largest output"
        steps = f"{self.difference:.0f} step{'s' * (round(self.difference) != 1)} of rounding"
        return f"{tried}: largest difference {steps}, the same output largest for {self.agreement:.1%}"


def compare_with_litert(
    model: Model, path: str, data: bytes, limits: Mapping[str, int], run: Run, litert: LiteRT
) -> LiteRTComparison:  # fmt: skip
    """Compare a network with the file from which it was read; `limits` are those of inputs that choose elements.

    Raises
    ------
    UnfitError
        The results differ, or LiteRT does not run the file.
    """
    assert model.graph is not None
    quantized = any(isinstance(node, Quantize | Requantize) for node in model.graph.nodes)
    count = _count(model, _QUANTIZED_INPUTS if quantized else _INPUTS)
    inputs = {port.name: _random(port, count, limits.get(port.name)) for port in model.graph.inputs}
    expected = litert(path, data, list(inputs.values()))
    found = _outputs(model, inputs, count, run)
    apart = []
    for number, output in enumerate(model.graph.outputs):
        results, wanted = found[output.name], expected[number]
        if results.shape != wanted.shape:
            what = f"output {output.name!r}"
            raise UnfitError(path, f"shape {wanted.shape[1:]}", f"{results.shape[1:]}", what)
        difference = _difference(results, wanted)
        if not difference.fits(quantized):
            others = litert(path, data, list(inputs.values()), other_kernels=True)
            if not difference.fits(quantized, _difference(others[number], wanted)):
                raise _refused(path, output.name, quantized, difference)
        apart.append(difference)
    engine = f"LiteRT {litert_version()}"
    if not quantized:
        return LiteRTComparison(engine, count, max(difference.largest for difference in apart), None)
    agreement = 1 - max(difference.other for difference in apart)
    return LiteRTComparison(engine, count, max(difference.steps for difference in apart), agreement)


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


def _outputs(model: Model, inputs: Mapping[str, Array], count: int, run: Run) -> dict[str, Array]:
    """Return the network's outputs for each input."""
    calls = [run({name: array[number] for name, array in inputs.items()}) for number in range(count)]
    return {name: np.stack([np.asarray(call[name]) for call in calls]) for name in calls[0]}


def _difference(found: Array, wanted: Array) -> _Difference:
    """Return how much the outputs for several inputs differ."""
    apart, scale = differences(found, wanted)
    step = 1.0 if wanted.dtype.kind in "iu" else scale / _STEPS
    rows, expected = (np.asarray(array, np.float64).reshape(len(array), -1) for array in (found, wanted))
    chosen = np.take_along_axis(expected, rows.argmax(1)[:, None], 1)[:, 0]
    other = chosen < expected.max(1) - _NEAR * step
    largest = float(apart.max())
    return _Difference(largest / scale, largest / step, float(apart.mean() / step), float(other.mean()))


def _refused(path: str, name: str, quantized: bool, difference: _Difference) -> UnfitError:
    what = f"output {name!r}"
    if not quantized:
        expected = f"at most {TOLERANCE:g} of the largest number between it and that of LiteRT, on random inputs"
        return UnfitError(path, expected, f"{difference.largest:.2g}", what)
    expected = f"LiteRT's largest output for {1 - _OTHER:.0%} of random inputs, on average {_AVERAGE:g} step apart"
    return UnfitError(path, expected, f"{1 - difference.other:.1%}, and {difference.average:.2g} steps", what)
