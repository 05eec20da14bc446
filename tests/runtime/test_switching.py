"""Sessions answer by NumPy while no kernel is compiled, and switch once another process has compiled them."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
from dcformat_runtime import Session, backends, graph_session, switching
from dcformat_runtime.graph_session import GraphSession
from dcformat_runtime.kernels import interpreter

from dcformat import Model, from_dense
from dcformat.graph import Binary, Graph, Linear, ReLU, Softmax

RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((3, 7), np.float32)
TENSORS = {
    "weight": from_dense("weight", RANDOM.standard_normal((4, 7), np.float32)),
    "factors": from_dense("factors", RANDOM.standard_normal(7, np.float32)),
}
MODELS = [
    Model(TENSORS, Graph.sequential((7,), nodes))
    for nodes in (
        (Linear((0,), "weight"), ReLU((1,))),
        (Softmax((0,)), Linear((1,), "weight")),
        (Binary((0, "factors"), "mul"), Linear((1,), "weight")),
    )
]

#: Forks while another thread starts the compilation.
FORK = """
import os, threading
from dcformat.jit import background
from dcformat_runtime import switching

begun, end = threading.Event(), threading.Event()

class Slow:
    def __init__(self, kernels):
        pass

    def start(self):
        begun.set()
        return end.wait(60)

class Impossible(Slow):
    def start(self):
        return False

background.BackgroundCompilation = Slow
threading.Thread(target=switching.spend, args=(1.0,)).start()
assert begun.wait(60)
child = os.fork()
if not child:
    background.BackgroundCompilation = Impossible
    os._exit(0 if switching.spend(0.0) else 1)
end.set()
assert os.waitpid(child, 0)[1] == 0
"""

each_kind = pytest.mark.parametrize("model", MODELS, ids=["sequential", "softmax", "general"])


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let sessions find no compiled kernels, and return the answers that their calls will get about the compilation."""
    coming: list[bool] = []
    for kernel in switching.needed():
        kernel.resolve()
    for module in (backends, graph_session):
        monkeypatch.setattr(module, "choose_backend", lambda asked: ("numpy" if asked == "auto" else asked, "a test"))
    monkeypatch.setattr(switching, "possible", lambda: True)
    monkeypatch.setattr(switching, "spend", lambda seconds: coming.pop(0))
    return coming


def test_general_networks_are_among_the_kinds() -> None:
    assert [type(Session.from_model(model)) for model in MODELS] == [Session, Session, GraphSession]


@pytest.mark.needs_compiler
@each_kind
def test_a_session_switches_between_two_calls(answers: list[bool], model: Model) -> None:
    session = Session.from_model(model)
    expected = Session.from_model(model, backend="numpy")(X)
    answers += [False, True]
    found = []
    for _ in range(3):
        np.testing.assert_allclose(session(X), expected, rtol=1e-5, atol=1e-6)
        found.append(session.backend)
    assert found == ["numpy", "numba", "numba"]
    assert copy.copy(session).backend == "numpy"  # made as the original was


@each_kind
def test_a_session_stays_if_there_are_still_no_kernels(
    answers: list[bool], monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    class Missing:
        def ready(self) -> bool:
            return False

    monkeypatch.setattr(switching, "needed", lambda: (Missing(),))
    session = Session.from_model(model)
    answers.append(True)
    np.testing.assert_array_equal(session(X), session(X))  # the second call asks nothing
    assert session.backend == "numpy"


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_only_a_session_that_may_choose_waits(answers: list[bool], backend: backends.Backend) -> None:
    session = Session.from_model(MODELS[0], backend=backend)
    assert session(X).shape == (3, 4)  # `answers` is empty: another question would fail
    assert session.backend == backend


def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], env=env, check=True, timeout=600)


def test_what_a_shared_call_runs_is_compiled_beforehand() -> None:
    assert {interpreter.run, interpreter.wait} <= set(switching.needed())
