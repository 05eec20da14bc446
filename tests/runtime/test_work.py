"""The work of one input is counted by arithmetic and bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dcformat_runtime
import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.compile.work_prediction import making_steps, steps
from dcformat_runtime.network import outline
from dcformat_runtime.self_testing import run_self_test, with_self_test
from dcformat_runtime.weight_matrices import Matrix

import dcformat
from dcformat.errors import WorkLimitError
from dcformat.graph import Add, Conv, Graph, Linear, MaxPool, ReLU, Softmax
from dcformat.layout import DEFAULT_MAX_WORK
from dcformat.model import Model
from dcformat.records import replace
from tests.runtime.example_networks import mlp

CALL = 4096  # steps of a call of NumPy

GRAPHS: dict[str, tuple[Graph, Matrix, int, int]] = {
    # the graph, its weight, and the steps in kernels and in NumPy
    "linear": (Graph.sequential((6,), (Linear((0,), "w"),)), Matrix((4, 6), 5), 6 + 4 + 4 + 5, 6 + 4 + 4 + CALL + 24),
    "convolution": (
        Graph.sequential((1, 5, 5), (Conv((0,), "w"),)), Matrix((2, 1, 3, 3), 4),
        25 + 18 + 18 + 4 * 9 + 3 * 5 * 3, 25 + 18 + 18 + CALL + 18 * 9 + 3 * 9 * 3,
    ),
    "pool": (
        Graph.sequential((1, 4, 4), (MaxPool((0,), (2, 2), (2, 2)),)), Matrix((1, 1), 0),
        16 + 4 + 4 + 4 * 4, 16 + 4 + 4 + CALL + 4 * 4,
    ),
    "sum and softmax": (
        Graph.sequential((8,), (ReLU((0,)), Add((0, 1)), Softmax((2,)))), Matrix((1, 1), 0),
        8 + 8 + 16 + 24 + 33 * 8, 8 + 8 + 16 + 24 + 33 * 8 + 3 * CALL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_steps_of_small_networks(name: str) -> None:
    graph, weight, kernels, numpy = GRAPHS[name]
    network = outline(graph, {"w": weight})
    assert steps(network, "numba", False) == kernels
    assert steps(network, "numpy", False) == numpy


def _load(path: Path, **options: Any) -> Session:
    return dcformat_runtime.load(path, backend="numba", **options)


def _make(path: Path, **options: Any) -> Session:
    return Session.from_model(dcformat.load(path), backend="numba", **options)


@pytest.mark.parametrize("make", [_load, _make])
def test_work_is_bounded(make: Callable[..., Session], tmp_path: Path) -> None:
    path, model = tmp_path / "net.dcf", mlp(64, 50, 10, density=0.5).model()
    dcformat.save(model, path)
    need = 64 + 10 + 50 + 10 + model.tensors["w0"].nnz + model.tensors["w2"].nnz
    make(path, max_work=need + 10_000_000)
    with pytest.raises(
        WorkLimitError,
        match=f"needs more work than allowed: running one input: expected at most 600 .*, found {need:,} steps",
    ):
        Session.from_model(model, backend="numba", max_work=600)
    with pytest.raises(WorkLimitError, match="E16"):
        make(path, max_work=600)


def test_small_files_that_would_run_for_hours_are_refused_by_default() -> None:
    """One convolution after another of a large image names the same weight of 81 entries."""
    layers = tuple(Conv((k,), "w", padding=(4, 4), padding_end=(4, 4)) for k in range(200))
    network = outline(Graph.sequential((1, 8192, 8192), layers), {"w": Matrix((1, 1, 9, 9), 81)})
    assert steps(network, "numba", False) > DEFAULT_MAX_WORK


def test_making_a_network_ready_is_work_too() -> None:
    """Each layer has its own tables, although all name one tensor."""
    model = mlp(30, 30, density=0.5).model()
    layers = tuple(Linear((k,), "w0") for k in range(40))
    entries = model.tensors["w0"].nnz
    network = outline(Graph.sequential((30,), layers), {"w0": Matrix((30, 30), entries)})
    need = 40 * ((1 << 19) + 64 * entries)
    assert making_steps(network) == need
    many = Model(model.tensors, Graph.sequential((30,), layers))
    with pytest.raises(WorkLimitError, match=f"making the network ready: expected .*, found {need:,} steps"):
        Session.from_model(many, max_work=need - 1)
    Session.from_model(many, max_work=need)


def test_a_self_test_counts_all_its_samples() -> None:
    model = with_self_test(mlp(20, 10, density=1.0).model(), samples=7)
    assert np.prod(model.tensors["w0"].shape) == 200 and model.self_test is not None
    assert run_self_test(model, Session.from_model(model, backend="numba")) is True
    often = replace(model, self_test=replace(model.self_test, samples=1 << 20))
    need = (1 << 20) * (20 + 10 + 10 + 200)
    with pytest.raises(WorkLimitError, match=f"self-test: expected at most {need - 1:,} .*, found {need:,} steps"):
        run_self_test(often, Session.from_model(often, backend="numba", max_work=need - 1))
