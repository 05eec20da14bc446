"""The check of every import: the network against the ONNX model, on random inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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
from dcformat_interop.onnx_import.source_model import OnnxSource
from dcformat_interop.refusals import UnfitError

Array = npt.NDArray[Any]

#: Allowed differences of models that compute with float16, which round to 11 bits in each operator. The average is
#: relative to the largest output too.
_HALF_LARGEST, _HALF_AVERAGE = 1e-2, 1e-3

#: The batches that are tried if the model leaves the size open.
_BATCHES = (1, 3)

#: Number of trials for a network that rounds to integers or to float16, where an average counts.
_REPEATS = 12


class Comparison(NamedTuple):
    """The result of a check: the engine that ran the model, and the largest difference relative to the largest output.

    `rounding` has the differences of a network that rounds to integers.
    """

    engine: str
    difference: float
    batches: tuple[int, ...]
    rounding: RoundingDifference | None = None

    def describe(self) -> str:
        """Return the result in a line."""
        batches = " and ".join(map(str, self.batches))
        tried = f"{'batches' if len(self.batches) > 1 else 'a batch'} of {batches}"
        largest = f"{self.difference:.1e}" if self.difference else "none"
        found = f"largest difference {largest}, of the largest output"
        if self.rounding is not None:
            found = self.rounding.describe()
        return f"checked against {self.engine} with {tried}: {found}"


class _Results(NamedTuple):
    """The results of the network and of the model for some inputs."""

    batch: int
    inputs: Mapping[str, Array]
    found: Mapping[str, Array]
    wanted: Mapping[str, Array]


def compare(model: Model, source: OnnxSource, run: NetworkRun) -> Comparison:
    """Compare a network with the ONNX model from which it was read.

    Raises
    ------
    UnfitError
        The results differ, or the model cannot be run.
    """
    whole, batches = rounds(model), _BATCHES if source.takes_any_batch else _BATCHES[:1]
    trials = [
        (batch, seed, False)
        for seed in range(_REPEATS if whole or source.has_half_precision else 1)
        for batch in batches
    ]
    tried, largest = list[_Results](), 0.0
    for batch, seed, positive in trials:  # which may grow
        inputs = source.random_inputs(batch, positive, seed)
        wanted = source(inputs)
        results = _Results(batch, inputs, run(inputs), wanted)
        largest = max(largest, *(_largest(source, results, name, whole) for name in results.wanted))
        tried.append(results)
        # A logarithm or a root of a negative number hides everything behind it.
        if not positive and any(w.dtype.kind == "f" and np.isnan(w).any() for w in wanted.values()):
            trials.append((batch, seed, True))
    found = [_rounding(source, tried, name) for name in tried[0].wanted] if whole else []
    worst = RoundingDifference(max(r.share for r in found), max(r.steps for r in found)) if found else None
    return Comparison(source.engine, largest, batches, worst)


def _largest(source: OnnxSource, results: _Results, name: str, whole: bool) -> float:
    """Return how much an output differs, relative to its largest number; raise if that is too much.

    If `whole` is set, shapes alone are compared.
    """
    found, wanted, what = np.asarray(results.found[name]), results.wanted[name], f"output {name!r}"
    if found.shape != wanted.shape:
        raise _refused(source, results.batch, what, f"shape {wanted.shape}", f"{found.shape}")
    apart, scale = differences(found, wanted)
    difference, average = float(apart.max(initial=0)) / scale, float(apart.mean()) / scale if apart.size else 0.0
    if whole:
        return difference
    half = source.has_half_precision and wanted.dtype.kind == "f"
    allowed = _HALF_LARGEST if half else TOLERANCE if wanted.dtype.kind == "f" else 0.0
    if difference > allowed or (half and average > _HALF_AVERAGE):
        besides = f", and {_HALF_AVERAGE:g} on average," if half else ""
        expected = f"at most {allowed:g}{besides} of the largest number between it and that of {source.engine}"
        raise _refused(source, results.batch, what, expected, f"{difference:.2g}")
    return difference


def _rounding(source: OnnxSource, tried: Sequence[_Results], name: str) -> RoundingDifference:
    """Return how an output that was rounded to integers differs; raise if that is too much."""

    def joined(outputs: Iterable[Mapping[str, Array]]) -> Array:
        return np.concatenate([np.asarray(output[name]).reshape(-1) for output in outputs])

    def moved() -> RoundingDifference | None:
        inputs = [source.moved_by_a_step(results.inputs) for results in tried]
        return None if None in inputs else rounding(joined(map(source, filter(None, inputs))), wanted)

    wanted = joined(results.wanted for results in tried)
    found = rounding(joined(results.found for results in tried), wanted)
    if found.fits():
        return found
    others = [source.run_plainly(results.inputs) for results in tried]
    own = None if None in others else rounding(joined(filter(None, others)), wanted)
    if not found.fits(own) and not found.fits(own, moved()):
        expected = f"as from {source.engine}, {ROUNDING}"
        raise _refused(source, max(r.batch for r in tried), f"output {name!r}", expected, found.describe())
    return found


def _refused(source: OnnxSource, batch: int, what: str, expected: str, found: str) -> UnfitError:
    hint = f" (the inputs of a batch of {batch} depend on each other? give {source.one_input})" if batch > 1 else ""
    return UnfitError(source.path, f"{expected}, on random inputs", f"{found}{hint}{source.advice}", what)
