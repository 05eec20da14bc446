"""The check of every import: the network against the ONNX model, on random inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Quantize, Requantize
from dcformat.model import Model
from dcformat_interop.lowering.comparison import Run, differences
from dcformat_interop.onnx_import.source import Source
from dcformat_interop.refusals import UnfitError

Array = npt.NDArray[Any]

#: Largest allowed difference, as a part of the largest output. Rounding to integers or to float16 makes it larger,
#: because another order of the same sums may round to the next number.
TOLERANCE, HALF_TOLERANCE, QUANTIZED_TOLERANCE = 1e-4, 1e-2, 5e-2

#: The batches that are tried if the model leaves the size open.
_BATCHES = (1, 3)


class Comparison(NamedTuple):
    """The result of a check: what ran the model, and the largest difference as a part of the largest output."""

    engine: str
    difference: float
    batches: tuple[int, ...]

    def describe(self) -> str:
        """Return the result in a line."""
        batches = " and ".join(map(str, self.batches))
        tried = f"{'batches' if len(self.batches) > 1 else 'a batch'} of {batches}"
        largest = f"{self.difference:.1e}" if self.difference else "none"
        return f"checked against {self.engine} with {tried}: largest difference {largest}, of the largest output"


def compare(model: Model, source: Source, run: Run) -> Comparison:
    """Compare a network with the ONNX model from which it was read.

    Raises
    ------
    UnfitError
        The results differ, or the model cannot be run.
    """
    largest = 0.0
    batches = _BATCHES if source.takes_any_batch else _BATCHES[:1]
    trials = [(batch, False) for batch in batches]
    for batch, positive in trials:  # which may grow
        inputs = source.random_inputs(batch, positive)
        expected, found = source(inputs), run(inputs)
        for name, wanted in expected.items():
            largest = max(largest, _difference(model, source, batch, name, np.asarray(found[name]), wanted))
        # A logarithm or a root of a negative number hides everything behind it.
        if not positive and any(wanted.dtype.kind == "f" and np.isnan(wanted).any() for wanted in expected.values()):
            trials.append((batch, True))
    return Comparison(source.engine, largest, batches)


def _difference(model: Model, source: Source, batch: int, name: str, found: Array, wanted: Array) -> float:
    """Return how much an output differs, as a part of its largest number; raise if that is too much."""
    what = f"output {name!r}"
    if found.shape != wanted.shape:
        raise _refused(source, batch, what, f"shape {wanted.shape}", f"{found.shape}")
    apart, scale = differences(found, wanted)
    difference = float(apart.max(initial=0)) / scale
    allowed = _tolerance(model, wanted.dtype, source)
    if difference > allowed:
        expected = f"at most {allowed:g} of the largest number between it and that of {source.engine}"
        raise _refused(source, batch, what, expected, f"{difference:.2g}")
    return difference


def _tolerance(model: Model, dtype: np.dtype[Any], source: Source) -> float:
    assert model.graph is not None
    if any(isinstance(node, Quantize | Requantize) for node in model.graph.nodes):
        return QUANTIZED_TOLERANCE
    if dtype.kind != "f":
        return 0.0
    return HALF_TOLERANCE if source.has_half_precision else TOLERANCE


def _refused(source: Source, batch: int, what: str, expected: str, found: str) -> UnfitError:
    hint = f" (the inputs of a batch of {batch} depend on each other? give {source.one_input})" if batch > 1 else ""
    return UnfitError(source.path, f"{expected}, on random inputs", f"{found}{hint}{source.advice}", what)
