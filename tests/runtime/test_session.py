"""The public face: what a session takes, refuses, and survives."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dcformat_runtime
import numpy as np
import pytest
from dcformat_runtime import InputError, Session
from dcformat_runtime import engine as engines

import dcformat
from dcformat.errors import FormatError, GraphError, MemoryLimitError
from dcformat.graph import Preprocessing
from dcformat.model import Model
from tests.runtime.nets import NETS, Net, error, inputs, lenet, mlp

BACKENDS = ("numba", "numpy")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "lenet.dcf"
    dcformat.save(lenet().model(Preprocessing((0.25,), (0.5,))), path)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_path_and_bytes_give_the_same(packed: Path, backend: str) -> None:
    x = inputs(lenet().network(), 3)
    expected = dcformat_runtime.load(packed, backend=backend)(x)
    assert np.array_equal(dcformat_runtime.load(str(packed), backend=backend)(x), expected)
    assert np.array_equal(dcformat_runtime.load(packed.read_bytes(), backend=backend)(x), expected)
    assert expected.shape == (3, 10) and expected.dtype == np.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_that_are_taken(backend: str) -> None:
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
def test_an_empty_batch(name: str, backend: str) -> None:
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
        session(x)  # type: ignore[arg-type]


def test_pixels_need_preprocessing() -> None:
    session = Session.from_model(lenet().model())
    with pytest.raises(InputError, match=r"expected float32, found uint8 \(the file has no preprocessing"):
        session(np.zeros((1, 144), np.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_are_preprocessed(packed: Path, backend: str) -> None:
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


def test_batches_are_split_over_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_HAND_OVER", 1.0)
    network = lenet().network()
    one = Session.from_model(lenet().model(), backend="numba", threads=1)
    three = Session.from_model(lenet().model(), backend="numba", threads=3)
    for batch in (16, 33, 200):
        x = inputs(network, batch)
        assert error(three(x), one(x)) < 1e-6


@pytest.mark.parametrize("name", NETS)
def test_one_input_is_shared_by_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_HAND_OVER", 0.001)
    network, model = NETS[name]().network(), NETS[name]().model()
    one = Session.from_model(model, backend="numba", threads=1)
    three = Session.from_model(model, backend="numba", threads=3)
    for seed in range(5):
        x = inputs(network, 1, seed)
        assert np.array_equal(three(x), one(x))


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


def _child(session: Session, x: np.ndarray, out: object) -> None:
    out.send(session(x))  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_survives_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_HAND_OVER", 1.0)
    network = lenet().network()
    session = Session.from_model(lenet().model(), backend="numba", threads=2)
    x = inputs(network, 64)
    expected = session(x)  # the parent's threads are running now
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(session, x, send))
    child.start()
    assert receive.poll(60)
    assert np.array_equal(receive.recv(), expected)
    child.join()


@pytest.mark.parametrize("backend", BACKENDS)
def test_profile_covers_the_layers(backend: str) -> None:
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


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="threads: expected 1 or more, found 0"):
        Session.from_model(lenet().model(), threads=0)
    with pytest.raises(ValueError, match="backend: expected auto, numba or numpy, found 'cuda'"):
        Session.from_model(lenet().model(), backend="cuda")  # type: ignore[arg-type]


def test_a_bag_of_tensors_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "bag.dcf"
    dcformat.save(Model(lenet().tensors), path)
    with pytest.raises(GraphError, match="expected a network to run"):
        dcformat_runtime.load(path)
    with pytest.raises(FormatError):
        dcformat_runtime.load(path.read_bytes()[:40])


def test_memory_is_bounded_before_anything_is_decoded(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dcformat.open(packed) as file:
        need = sum(row.bytes for row in dcformat_runtime.predict_memory(file, backend="numba"))
        decoded = file.decoded_bytes
    dcformat_runtime.load(packed, max_memory=need, backend="numba")
    monkeypatch.setattr(dcformat.DcfFile, "model", lambda self: pytest.fail("decoded"))
    with pytest.raises(MemoryLimitError, match=f"found {need} bytes"):
        dcformat_runtime.load(packed, max_memory=need - 1, backend="numba")
    assert decoded < need - 1
    with pytest.raises(MemoryLimitError):
        Session.from_model(lenet().model(), max_memory=1000)
