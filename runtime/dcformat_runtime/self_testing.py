"""Runs a file's golden self-test, and makes one (specification, "Self-test")."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt

from dcformat import selftest
from dcformat.model import Model, SelfTest
from dcformat.records import replace
from dcformat_runtime.session import Session

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
    """
    test = model.self_test
    if test is None:
        return None
    session = session or Session.from_model(model, backend="numpy")
    session.check_work("self-test", test.samples)
    outputs = _outputs(model, session, test.seed, test.samples)
    return selftest.digest(selftest.winners(part) for part in outputs) == test.digest


def with_self_test(model: Model, samples: int = 4) -> Model:
    """Return the model with a self-test of `samples` inputs whose winners rounding cannot change.

    Raises
    ------
    ValueError
        No seed gives clear winners: the network's outputs hardly depend on its inputs, or are all alike.
    """
    session = Session.from_model(model, backend="numpy")
    for seed in range(_SEEDS):
        outputs = np.concatenate(list(_outputs(model, session, seed, samples)))
        if np.isfinite(outputs).all() and selftest.is_robust(outputs):
            digest = selftest.digest([selftest.winners(outputs)])
            return replace(model, self_test=SelfTest(seed, samples, digest))
    raise ValueError(f"self-test: expected inputs with a clear winner, found none in {_SEEDS} tries")


def _outputs(model: Model, session: Session, seed: int, samples: int) -> Iterator[npt.NDArray[np.float32]]:
    assert model.graph is not None  # as the session has made sure
    (port,) = model.graph.inputs
    piece = session.fitting(samples, (9 if model.graph.preprocessing is None else 1) * prod(port.shape))
    for first in range(0, samples, piece):
        yield session(selftest.inputs(model.graph, seed, min(piece, samples - first), first)[port.name])
