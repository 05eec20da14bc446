"""Tests the public interface: the inputs that a session takes, refuses and survives."""

from __future__ import annotations

import logging
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dcformat_runtime
import numpy as np
import pytest
from dcformat_runtime import InputError, Session
from dcformat_runtime.backends import Backend

import dcformat
from dcformat.dense import from_dense
from dcformat.errors import FormatError, GraphError, MemoryLimitError
from dcformat.graph import Graph, Linear, Preprocessing
from dcformat.model import Model, Tensor
from dcformat.records import replace
from tests.runtime.example_networks import BACKENDS, NETS, Net, inputs, lenet, mlp


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "lenet.dcf"
    dcformat.save(lenet().model(Preprocessing((0.25,), (0.5,))), path)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_path_and_bytes_give_the_same(packed: Path, backend: Backend) -> None:
    x = inputs(lenet().network(), 3)
    expected = dcformat_runtime.load(packed, backend=backend)(x)
    assert np.array_equal(dcformat_runtime.load(str(packed), backend=backend)(x), expected)
    assert np.array_equal(dcformat_runtime.load(packed.read_bytes(), backend=backend)(x), expected)
    assert expected.shape == (3, 10) and expected.dtype == np.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_accepted_shapes(backend: Backend) -> None:
    image = Session.from_model(lenet().model(), backend=backend)
    x = inputs(lenet().network(), 4)
    expected = image(x)
    for shape in ((4, 12, 12), (4, 1, 12, 12)):
        assert np.array_equal(image(x.reshape(shape)), expected)
    vector = Session.from_model(mlp(48, 5).model(), backend=backend)
    x = inputs(mlp(48, 5).network(), 4)
    for shape in ((4, 6, 8), (4, 3, 4, 4), (4, 1, 48)):
        assert np.array_equal(vector(x.reshape(shape)), vector(x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETS)
def test_an_empty_batch(name: str, backend: Backend) -> None:
    session = Session.from_model(NETS[name]().model(), backend=backend)
    out = session(np.zeros((0, *session.input_shape), np.float32))
    assert out.shape == (0, *session.output_shape) and out.dtype == np.float32


def test_results_that_are_images_keep_their_shape() -> None:
    net = Net(2, 5, 6)
    net.conv(0, 3, 2, (2, 2))
    for backend in BACKENDS:
        session = Session.from_model(net.model(), backend=backend)
        assert session.output_shape == (3, 4, 5)
        assert session(np.ones((2, 2, 5, 6), np.float32)).shape == (2, 3, 4, 5)


def test_other_memory_layouts_are_copied() -> None:
    network, session = lenet().network(), Session.from_model(lenet().model(), backend="numba")
    x = inputs(network, 6)
    expected = session(x)
    wide = np.zeros((6, 288), np.float32)
    wide[:, ::2] = x
    assert np.array_equal(session(wide[:, ::2]), expected)
    assert np.array_equal(session(np.asfortranarray(x)), expected)
    assert np.array_equal(session(x[::-1])[::-1], expected)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert np.array_equal(session(frozen), expected)
    shifted = np.zeros(4 * x.size + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)  # not aligned
    shifted[:] = x
    assert np.array_equal(session(shifted), expected)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            np.zeros((2, 13, 12), np.float32),
            r"shape: expected \(batch, 1, 12, 12\) or \(batch, 144\), found \(2, 13, 12\)",
        ),
        (np.zeros((12, 12), np.float32), "shape: expected"),
        (np.zeros((), np.float32), "shape: expected"),
        (np.zeros((2, 3, 48), np.float32), "shape: expected"),
        (np.zeros((2, 144)), "dtype: expected float32 or uint8, found float64"),
        (np.zeros((2, 144), ">f4"), "dtype: expected float32 or uint8, found >f4"),
        (np.zeros((2, 144), np.int64), "dtype: expected float32 or uint8, found int64"),
        ([[0.0] * 144], "expected a NumPy array"),
    ],
)
def test_other_inputs_are_refused_by_name(packed: Path, x: object, words: str) -> None:
    session = dcformat_runtime.load(packed)
    with pytest.raises(InputError, match=words):
        session(x)  # type: ignore[call-overload]


def test_pixels_need_preprocessing() -> None:
    session = Session.from_model(lenet().model())
    with pytest.raises(InputError, match=r"expected float32, found uint8 \(the file has no preprocessing"):
        session(np.zeros((1, 144), np.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_are_preprocessed(packed: Path, backend: Backend) -> None:
    session = dcformat_runtime.load(packed, backend=backend)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 144)).astype(np.uint8)
    scaled = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.25)) / np.float32(0.5)
    assert np.array_equal(session(pixels), session(scaled))


def test_channels_have_their_own_preprocessing() -> None:
    net = Net(3, 4, 4)
    net.conv(0, 2, 3, (4, 4))
    rule = Preprocessing((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    session = Session.from_model(net.model(rule))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4)).astype(np.uint8)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (rule.mean, rule.std))
    assert np.array_equal(session(pixels), session((pixels.astype(np.float32) / np.float32(255) - mean) / std))


def test_several_threads_may_call_one_session() -> None:
    network, session = lenet().network(), Session.from_model(lenet().model(), backend="numba")
    batches = [inputs(network, 1 + k % 20, seed=k) for k in range(60)]
    expected = [session(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(session, batches))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_pickles_by_its_source(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(lenet().network(), 2)
    monkeypatch.chdir(packed.parent)
    for source in (packed.name, packed, packed.read_bytes(), bytearray(packed.read_bytes())):
        session = dcformat_runtime.load(source, deterministic=True, backend="numba", threads=2)
        monkeypatch.chdir("/")
        again = pickle.loads(pickle.dumps(session))  # noqa: S301 - our own
        monkeypatch.chdir(packed.parent)
        assert again.backend == "numba"
        assert np.array_equal(again(x), session(x))
    assert len(pickle.dumps(dcformat_runtime.load(packed))) < 500
    model = Session.from_model(lenet().model())
    assert np.array_equal(pickle.loads(pickle.dumps(model))(x), model(x))  # noqa: S301 - our own


@pytest.mark.parametrize("backend", BACKENDS)
def test_profile_covers_the_layers(backend: Backend) -> None:
    session = Session.from_model(lenet().model(), backend=backend)
    rows = session.profile(inputs(lenet().network(), 2))
    assert {"w0", "w2", "w6", "w8"} <= {row.name for row in rows}
    assert all(row.seconds >= 0 for row in rows)


def test_says_which_backend_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dcformat_runtime")
    assert Session.from_model(lenet().model(), backend="numpy").backend == "numpy"
    assert "backend numpy: asked for" in caplog.text
    assert Session.from_model(lenet().model(), backend="numba").backend == "numba"
    assert "backend numba: asked for" in caplog.text


WRONG_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no threads": ({"threads": 0}, ValueError, "threads: expected 1 or more, found 0"),
    "fewer than none": ({"threads": -1}, ValueError, "threads: expected 1 or more, found -1"),
    "a fraction of a thread": ({"threads": 1.5}, TypeError, "threads: expected an integer or None, found 1.5"),
    "a truth of threads": ({"threads": True}, TypeError, "threads: expected an integer or None, found True"),
    "another backend": ({"backend": "cuda"}, ValueError, "backend: expected auto, numba or numpy, found 'cuda'"),
    "no backend": ({"backend": None}, ValueError, "backend: expected auto, numba or numpy, found None"),
    "negative memory": ({"max_memory": -1}, ValueError, "max_memory: expected 0 or more, found -1"),
    "memory in words": ({"max_memory": "4G"}, TypeError, "max_memory: expected an integer or None, found '4G'"),
    "negative work": ({"max_work": -1}, ValueError, "max_work: expected 0 or more, found -1"),
    "work in fractions": ({"max_work": 1e9}, TypeError, "max_work: expected an integer or None, found 1000000000.0"),
    "a word": ({"deterministic": "no"}, TypeError, "deterministic: expected True or False, found 'no'"),
}


@pytest.mark.parametrize("what", WRONG_OPTIONS)
def test_options_are_checked(what: str, packed: Path) -> None:
    options, kind, words = WRONG_OPTIONS[what]
    with pytest.raises(kind, match=re.escape(words)):
        Session.from_model(lenet().model(), **options)
    with pytest.raises(kind, match=re.escape(words)):
        dcformat_runtime.load(packed, **options)


def test_numpy_integers_are_integers() -> None:
    options: dict[str, Any] = {"threads": np.int64(1), "max_memory": np.int64(1 << 30), "backend": "numba"}
    assert Session.from_model(lenet().model(), **options).backend == "numba"


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETS)
def test_infinite_inputs_touch_no_other_input(name: str, backend: Backend, deterministic: bool) -> None:
    """There is no warning or error, and the other inputs of the batch have the same results as alone."""
    network = NETS[name]().network()
    session = Session.from_model(NETS[name]().model(), backend=backend, deterministic=deterministic)
    for value in (np.nan, np.inf, -np.inf, np.finfo(np.float32).max):
        for batch in (1, 9, 33):
            x = inputs(network, batch)
            expected = session(x)
            x[0, ::3] = value
            found = session(x)
            assert np.allclose(found[1:], expected[1:], 1e-4, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "rule",
    [
        Preprocessing((0.0,), (1e-40,)),
        Preprocessing((3e38,), (1e-38,)),
        Preprocessing((-3e38,), (1e-45,)),
    ],
)
def test_extreme_preprocessing_does_not_warn(rule: Preprocessing, backend: Backend) -> None:
    session = Session.from_model(lenet().model(rule), backend=backend)
    assert session(np.full((3, 144), 255, np.uint8)).shape == (3, 10)


NOT_FLOAT32 = [np.nan, np.inf, -np.inf, 1e39, -1e300]


@pytest.mark.parametrize(
    "rule",
    [
        *(Preprocessing((value,), (1.0,)) for value in NOT_FLOAT32),
        *(Preprocessing((0.0,), (value,)) for value in (*NOT_FLOAT32, 0.0, -0.0, 1e-50)),
    ],
)
def test_preprocessing_that_is_not_finite_as_float32_is_refused(rule: Preprocessing) -> None:
    model = lenet().model(rule)
    with pytest.raises(GraphError, match="invalid: preprocessing: expected finite float32 values, std not 0"):
        Session.from_model(model)
    with pytest.raises(GraphError, match="invalid: preprocessing"):
        dcformat.dumps(model)


def test_weights_that_a_network_cannot_compute_with_are_refused() -> None:
    """[G14]"""
    graph = Graph.sequential((4,), [Linear((0,), "w")])
    wide = from_dense("w", np.ones((1, 4)), "float64")
    with pytest.raises(GraphError, match="float64"):
        Session.from_model(Model({"w": wide}, graph))
    with pytest.raises(GraphError, match="linear's tensor 'w': expected a tensor of float32"):
        dcformat.dumps(Model({"w": wide}, graph))
    broken = from_dense("w", np.array([[1, 2, np.inf, 3]], np.float32))
    with pytest.raises(GraphError, match="NaN or infinity"):
        Session.from_model(Model({"w": broken}, graph))
    with pytest.raises(FormatError, match="expected finite numbers in a network"):
        dcformat.dumps(Model({"w": broken}, graph))


def test_int8_weights_that_overflow_are_refused_without_a_warning() -> None:
    weight = Tensor("w", (1, 4), "int8", np.array([127, 1, -1, -128], np.int8), scale=float(np.float32(3e38)))
    with pytest.raises(GraphError, match="NaN or infinity"):
        Session.from_model(Model({"w": weight}, Graph.sequential((4,), (Linear((0,), "w"),))))
    for scale in (1e300, np.nan, np.inf, 1e-60, -1.0):
        with pytest.raises(FormatError, match="scale"):
            Session.from_model(Model({"w": replace(weight, scale=scale)}, Graph.sequential((4,), (Linear((0,), "w"),))))


def test_a_bag_of_tensors_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "bag.dcf"
    dcformat.save(Model(lenet().tensors), path)
    with pytest.raises(GraphError, match="expected a network to run"):
        dcformat_runtime.load(path)
    with pytest.raises(FormatError):
        dcformat_runtime.load(path.read_bytes()[:40])


def test_memory_is_bounded_before_anything_is_decoded(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dcformat.open(packed) as file:
        need = sum(row.bytes for row in dcformat_runtime.predict_memory(file, backend="numba", threads=2))
        decoded = file.decoded_bytes
    dcformat_runtime.load(packed, max_memory=need, backend="numba", threads=2)
    monkeypatch.setattr(dcformat.DcfFile, "model", lambda self: pytest.fail("decoded"))
    with pytest.raises(MemoryLimitError, match=f"found {need:,} bytes"):
        dcformat_runtime.load(packed, max_memory=need - 1, backend="numba", threads=2)
    assert decoded < need - 1
    with pytest.raises(MemoryLimitError):
        Session.from_model(lenet().model(), max_memory=1000)
