"""Running a file's golden self-test, and making one (spec, "Self-test")."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt

from dcformat import selftest
from dcformat.model import Model, SelfTest
from dcformat.records import replace
from dcformat_runtime.session import Session

#: How many seeds are tried; nearly every network passes within a few.
_SEEDS = 1 << 12


def run_self_test(model: Model, session: Session | None = None) -> bool | None:
    """Run a model's self-test; return whether it passed, or None where there is none.

    As many inputs are made and run at a time as the session's memory allows.

    Parameters
    ----------
    model : Model
        With a graph.
    session : Session, optional
        The model made ready to run; without one the NumPy backend runs it.

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
    """Return the model with a self-test of `samples` inputs whose winners no rounding can change.

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
    scaled = model.graph is None or model.graph.preprocessing is None
    features = prod(session.input_shape)
    piece = session.fitting(samples, (9 if scaled else 1) * features)
    for first in range(0, samples, piece):
        x = selftest.pixels(seed, min(piece, samples - first), session.input_shape, first)
        yield session(x.astype(np.float32) / np.float32(255) if scaled else x)
