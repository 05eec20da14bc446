"""The runtime treats denormal numbers as zeros, and leaves the caller's own arithmetic unchanged."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.backends import Backend
from dcformat_runtime.kernels import interpreter
from dcformat_runtime.network import lower
from dcformat_runtime.network_engine import KernelEngine

from dcformat.denormals import denormals
from dcformat.dense import from_dense
from dcformat.graph import Conv, Graph, Linear, Preprocessing, ReLU
from dcformat.model import Model, Tensor
from tests.runtime.example_networks import BACKENDS

TINY = np.float32(1e-39)
LEAST_NORMAL = np.float32(2.0**-126)


def _compiled() -> bool:
    interpreter.run.resolve()
    return interpreter.run.state != "python"


def _scaling(factor: float, features: int = 32) -> Model:
    """Return a network that multiplies each feature by `factor`."""
    weight = np.diag(np.full(features, factor, np.float32))
    return Model({"w": from_dense("w", weight)}, Graph.sequential((features,), (Linear((0,), "w"),)))


def test_denormals_are_counted_as_the_runtime_sees_them() -> None:
    values = np.array([[0.0, -0.0, 1e-39, -1e-39], [LEAST_NORMAL, 1.0, 1e-45, -LEAST_NORMAL]], np.float32)
    assert denormals(values, "float32") == 3
    assert denormals(values.T, "float32") == 3
    assert denormals(np.array([0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x3F80], np.uint16), "bfloat16") == 2
    assert denormals(np.array([6e-8, 1.0], np.float16), "float16") == 0
    assert denormals(np.array([0, 1, -1], np.int8), "int8") == 0
    assert denormals(np.empty(0, np.float32), "float32") == 0


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_denormal_weights_and_biases_are_zeros(backend: Backend, deterministic: bool) -> None:
    weight = np.zeros((4, 5), np.float32)
    weight[0, :], weight[1, :], weight[2, :] = TINY, -TINY, LEAST_NORMAL
    bias = np.array([1e-40, -1e-40, 0, 3], np.float32)
    model = Model(
        {"w": from_dense("w", weight), "b": from_dense("b", bias)}, Graph.sequential((5,), (Linear((0,), "w", "b"),))
    )
    session = Session.from_model(model, backend=backend, deterministic=deterministic)
    for batch in (1, 20):
        found = session(np.full((batch, 5), 2.0**100, np.float32))
        assert np.array_equal(found, np.tile(np.array([0, 0, 5 * 2.0**-26, 3], np.float32), (batch, 1)))
    assert weight[0, 0] == TINY  # the model is unchanged
    assert np.array_equal(model.tensors["w"].to_dense(), weight)


def test_every_dtype_becomes_float32_without_denormals() -> None:
    half = Tensor("w", (1, 2), "float16", np.array([6e-8, 1.0], np.float16))
    brain = Tensor("w", (1, 2), "bfloat16", np.array([0x0001, 0x3F80], np.uint16))
    byte = Tensor("w", (1, 2), "int8", np.array([1, 127], np.int8), scale=float(np.float32(1e-39)))
    for tensor, expected in ((half, [np.float16(6e-8), 1]), (brain, [0, 1]), (byte, [0, 127 * np.float32(1e-39)])):
        (layer,) = lower(Model({"w": tensor}, Graph.sequential((2,), (Linear((0,), "w"),)))).layers
        assert layer.weight is not None
        assert np.array_equal(layer.weight.values, np.array(expected, np.float32))


@pytest.mark.skipif(not _compiled(), reason="Python leaves the processor as it is")
def test_denormal_inputs_and_results_are_zeros() -> None:
    for deterministic in (False, True):
        session = Session.from_model(_scaling(2.0**-60), backend="numba", threads=1, deterministic=deterministic)
        for batch in (1, 8, 70):
            for value in (1e-40, 2.0**-80):
                assert not session(np.full((batch, 32), value, np.float32)).any()
            assert np.array_equal(session(np.full((batch, 32), 2.0**-60, np.float32)), np.full((batch, 32), 2.0**-120))


@pytest.mark.skipif(not _compiled(), reason="Python leaves the processor as it is")
def test_denormals_between_layers_are_zeros() -> None:
    weight = from_dense("w", np.full((1, 1, 1, 1), 2.0**-70, np.float32))
    back = from_dense("v", np.full((1, 1, 1, 1), 2.0**100, np.float32))
    layers = (Conv((0,), "w"), ReLU((1,)), Conv((2,), "v"))
    session = Session.from_model(Model({"w": weight, "v": back}, Graph.sequential((1, 9, 9), layers)), backend="numba")
    for batch in (1, 20):
        assert not session(np.full((batch, 1, 9, 9), 2.0**-70, np.float32)).any()


@pytest.mark.skipif(not _compiled(), reason="Python leaves the processor as it is")
def test_worker_threads_treat_denormals_as_zeros() -> None:
    engine = KernelEngine(lower(_scaling(1.0)), 3, False, hand_over=1.0)
    x = np.full((2000, 32), 1e-40, np.float32)
    for _ in range(20):
        assert not engine.run(x).any()


def _arithmetic() -> tuple[int, bool]:
    """Return the rounding mode, and whether denormals still count as numbers."""
    rounding = ctypes.CDLL(ctypes.util.find_library("m")).fegetround()
    tiny = np.full(64, 1e-40, np.float32)
    return rounding, bool(((tiny * np.float32(0.5)) != 0).all() and ((tiny + tiny) > tiny).all())


@pytest.mark.skipif(ctypes.util.find_library("m") is None, reason="no library of mathematics")
def test_the_callers_arithmetic_is_left_as_it_was() -> None:
    session = Session.from_model(_scaling(1.0), backend="numba", threads=2)
    library = ctypes.CDLL(ctypes.util.find_library("m"))

    def run() -> None:
        before = _arithmetic()
        assert before[1]
        for batch in (1, 64, 3000):
            session(np.full((batch, 32), 1e-40, np.float32))
            assert _arithmetic() == before
        session.profile(np.ones((3, 32), np.float32))
        assert _arithmetic() == before

    run()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()
    towards_zero = {"x86_64": 0xC00, "aarch64": 0xC00000}.get(platform.machine())
    if towards_zero is not None:
        library.fesetround(towards_zero)
        try:
            run()
        finally:
            library.fesetround(0)


def test_pixels_that_become_denormal_are_zeros() -> None:
    rule = Preprocessing((0.0,), (1e38,))
    session = Session.from_model(Model(_scaling(1.0).tensors, Graph.sequential((32,), (Linear((0,), "w"),), rule)))
    assert np.abs(session(np.full((2, 32), 3, np.uint8))).max() < 1e-38
