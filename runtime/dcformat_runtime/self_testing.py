"""Runs a file's golden self-test, and makes one (specification, "Self-test")."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import selftest
from dcformat.graph import Port
from dcformat.model import Model, SelfTest
from dcformat.records import replace
from dcformat_runtime.session import Session
from dcformat_runtime.weight_matrices import Floats

#: The number of seeds to try; nearly every network needs only a few.
_SEEDS = 1 << 12


def run_self_test(model: Model, session: Session | None = None) -> bool | None:
    """Run a model's self-test; return whether it passed, or None if there is none.

    It makes and runs as many inputs at a time as the session's memory allows.

    Parameters
    ----------
    model : Model
        A model with a graph.
    session : Session, optional
        A session of the model; without one, the NumPy backend runs it.

    Raises
    ------
    WorkLimitError
        All samples together are more work than the session allows.
    MemoryLimitError
        One sample takes more memory than the session's budget leaves.
    InputError
        The network does not take the test's inputs: an index exceeds its table.
    """
    test = model.self_test
    if test is None:
        return None
    session = session or Session.from_model(model, backend="numpy")
    session.check_work("self-test", test.samples)
    outputs = _outputs(model, session, test.seed, test.samples)
    return selftest.digest(selftest.winners(*part) for part in outputs) == test.digest


def with_self_test(model: Model, samples: int = 4) -> Model:
    """Return the model with a self-test of `samples` inputs whose winners rounding cannot change.

    Raises
    ------
    ValueError
        No seed gives clear winners: the network's outputs hardly depend on its inputs, or are all alike. Or every
        output has only one element, so that any network would pass.
    InputError
        The network does not take the test's inputs: an index exceeds its table.
    """
    session = Session.from_model(model, backend="numpy")
    for seed in range(_SEEDS):
        pieces = _outputs(model, session, seed, samples)
        outputs = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
        if all(output[0].size < 2 for output in outputs):
            raise ValueError("self-test: expected an output of two or more elements, found only single ones")
        if all(np.isfinite(output).all() and selftest.is_robust(output) for output in outputs):
            digest = selftest.digest([selftest.winners(*outputs)])
            return replace(model, self_test=SelfTest(seed, samples, digest))
    raise ValueError(f"self-test: expected inputs with a clear winner, found none in {_SEEDS} tries")


def _outputs(model: Model, session: Session, seed: int, samples: int) -> Iterator[list[Floats]]:
    """Yield the outputs of some samples at a time, as float32 ``(samples, *shape)``."""
    graph = model.graph
    assert graph is not None  # as the session has made sure
    beside = sum(_bytes(port, graph.preprocessing is not None) * prod(port.shape) for port in graph.inputs)
    piece = session.fitting(samples, beside)
    if any(port.batch_axis is None for port in graph.inputs):
        piece = 1  # every sample has inputs of its own, even those that a batch shares
    for first in range(0, samples, piece):
        drawn = selftest.inputs(graph, seed, min(piece, samples - first), first)
        yield session.float32_outputs({port.name: _placed(drawn[port.name], port) for port in graph.inputs})


def _bytes(port: Port, pixels: bool) -> int:
    """Return the maximum number of bytes that making one element of an input takes."""
    if pixels:
        return 1
    return 9 if port.dtype == "float32" else 9 + np.dtype(port.dtype).itemsize


def _placed(x: npt.NDArray[Any], port: Port) -> npt.NDArray[Any]:
    """Return ``(samples, *shape)`` as a caller passes it: with the batch in its place, or without one."""
    return x[0] if port.batch_axis is None else np.moveaxis(x, 0, port.batch_axis)
