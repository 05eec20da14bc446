"""Numbers at the ends of float32's range: overflow is neither an error nor a warning in any backend."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.backends import Backend
from dcformat_runtime.self_testing import with_self_test

from dcformat.errors import FormatError
from dcformat.graph import Graph, Linear, MaxPool, Preprocessing, Softmax
from dcformat.model import Model, Tensor
from dcformat.records import replace
from tests.runtime.example_networks import BACKENDS, NETS, Net, inputs, mlp

_LARGEST = np.float32(3.4e38)


def _extreme(name: str) -> Model:
    """Return a network whose weights and biases are the largest float32 numbers of both signs."""
    model = NETS[name]().model()
    tensors = {
        key: replace(tensor, data=np.copysign(_LARGEST, tensor.data)) if tensor.data.dtype == np.float32 else tensor
        for key, tensor in model.tensors.items()
    }
    return replace(model, tensors=tensors)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETS)
def test_overflowing_sums_are_no_error(name: str, backend: Backend, exact: bool) -> None:
    session = Session.from_model(_extreme(name), backend=backend, deterministic=exact)
    x = inputs(NETS[name]().network(), 3) * np.float32(1e3)
    out = session(x)
    assert out.shape == (3, *session.output_shape)
    assert not np.isfinite(out).all()
    assert session.profile(x)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_overflow_stays_with_its_own_input(backend: Backend, exact: bool) -> None:
    net = mlp(8, 5, density=1.0)
    net.add(Softmax((1,)))
    session = Session.from_model(net.model(), backend=backend, deterministic=exact)
    x = inputs(net.network(), 20)
    expected = session(x)
    x[7], x[9] = np.nan, _LARGEST
    found = session(x)
    others = [k for k in range(20) if k not in (7, 9)]
    assert np.array_equal(found[others], expected[others])
    assert not np.isfinite(found[7]).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Preprocessing((0.0,), (1e-45,)), [0.0, np.inf]),
        (Preprocessing((3e38,), (1e-40,)), [-np.inf, -np.inf]),
    ],
)
def test_extreme_preprocessing(rule: Preprocessing, expected: list[float], backend: Backend) -> None:
    net = Net(1, 1, 2)
    net.add(MaxPool((0,), (1, 1), (1, 1)))
    session = Session.from_model(net.model(rule), backend=backend)
    assert session(np.array([[[[0, 255]]]], np.uint8)).reshape(-1).tolist() == expected


UNFIT = {
    "a signalling NaN": Tensor("w", (1, 1), "float16", np.array([0x7C01], np.uint16).view(np.float16)),
    "an int8 times a large scale": Tensor("w", (1, 1), "int8", np.array([127], np.int8), scale=float(np.float32(3e38))),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", UNFIT)
def test_numbers_that_are_no_float32_are_refused(what: str) -> None:
    model = Model({"w": UNFIT[what]}, Graph.sequential((1,), (Linear((0,), "w"),)))
    with pytest.raises(FormatError, match="finite"):
        Session.from_model(model)


@pytest.mark.filterwarnings("error")
def test_no_self_test_is_made_if_results_overflow() -> None:
    with pytest.raises(ValueError, match="expected inputs with a clear winner"):
        with_self_test(_extreme("mlp"), samples=2)
