"""Running a file's golden self-test, and making one (spec, "Self-test")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcformat import selftest
from dcformat.model import Model, SelfTest
from dcformat.records import replace
from dcformat_runtime.session import Session

#: Seeds that are tried before it is given up; nearly every network passes within a few.
_SEEDS = 1 << 12


def run_self_test(model: Model, session: Session | None = None) -> bool | None:
    """Run a model's self-test; return whether it passed, or None where there is none.

    Parameters
    ----------
    model : Model
        With a graph.
    session : Session, optional
        The model made ready to run; without one the NumPy backend runs it.
    """
    test = model.self_test
    if test is None:
        return None
    session = session or Session.from_model(model, backend="numpy")
    return selftest.digest(_outputs(model, session, test.seed, test.samples)) == test.digest


def with_self_test(model: Model, samples: int = 4) -> Model:
    """Return the model with a self-test of so many inputs, whose winners no rounding can change.

    Raises
    ------
    ValueError
        No seed gives clear winners: the network's outputs hardly depend on its inputs, or are all alike.
    """
    session = Session.from_model(model, backend="numpy")
    for seed in range(_SEEDS):
        outputs = _outputs(model, session, seed, samples)
        if selftest.is_robust(outputs):
            return replace(model, self_test=SelfTest(seed, samples, selftest.digest(outputs)))
    raise ValueError(f"self-test: expected inputs with a clear winner, found none in {_SEEDS} tries")


def _outputs(model: Model, session: Session, seed: int, samples: int) -> npt.NDArray[np.float32]:
    pixels = selftest.pixels(seed, samples, session.input_shape)
    if model.graph is not None and model.graph.preprocessing is not None:
        return session(pixels)
    return session(pixels.astype(np.float32) / np.float32(255))
