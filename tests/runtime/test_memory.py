"""Compares predictions with the memory that is really taken, and tests the refusals before a run."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import dcformat_runtime
import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.backends import Backend
from dcformat_runtime.compile.memory_prediction import predict
from dcformat_runtime.network import lower, matrices, outline
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.weight_matrices import Matrix

import dcformat
from dcformat.dense import from_dense
from dcformat.errors import GraphError, LimitError, MemoryLimitError
from dcformat.graph import AvgPool, Conv, Graph, Linear, MaxPool, Preprocessing, Reduce, ReLU, Softmax
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import Model, Tensor
from tests.format.traced_memory import least_peak
from tests.runtime.example_networks import BACKENDS, NETS, Net, inputs, mlp

#: The kernels' Python form would take minutes.
compiled = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """Exclude the objects of other modules from collections, which would take most of a test's time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Peak:
    """The maximum number of bytes that were allocated at a time while a block ran."""

    bytes = 0


@contextmanager
def peak() -> Iterator[Peak]:
    found = Peak()
    gc.collect()
    tracemalloc.start()
    try:
        yield found
    finally:
        found.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def _skewed() -> Net:
    """Return a network whose first layer has a third of its entries in one row."""
    net = mlp(64, 100, 10, density=0.02)
    dense = net.tensors["w0"].to_dense()
    dense[17] = 1.5
    net.tensors["w0"] = dcformat.from_dense("w0", dense)
    return net


def _constant(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, "float32", np.ones(1, np.float32))


def _constants() -> Net:
    net = Net(600)
    net.tensors["w"] = _constant("w", 500, 600)
    net.add(Linear((0,), "w"))
    return net


def _shared() -> Net:
    """Return a network of eleven layers that share one weight."""
    net = mlp(400, 400, density=0.2)
    for value in range(1, 11):
        net.add(Linear((value,), "w0", "b0"))
    return net


def _rows() -> Net:
    net = Net(3, density=0.5)
    net.linear(0, 50_000, 3)
    return net


def _chain() -> Net:
    net = Net(100_000)
    for value in range(20):
        net.add(ReLU((value,)))
    return net


def _images() -> Net:
    net = Net(8, 64, 64)
    value = net.add(
        MaxPool((net.conv(0, 16, 8, (3, 3), padding=(1, 1)),), (3, 3), (2, 2), (1, 1), (1, 1), ceil_mode=True)
    )
    value = net.conv(value, 16, 16, (5, 5), stride=(2, 2), padding=(2, 2))
    value = net.add(Reduce((net.add(AvgPool((value,), (3, 3), (1, 1), (1, 1), (1, 1))),), "mean", (1, 2)))
    net.add(Softmax((net.linear(value, 10, 16),)))
    return net


LARGE: dict[str, Callable[[], Net]] = {
    "wide mlp": lambda: mlp(1500, 1000, 500, 10, density=0.1),
    "dense mlp": lambda: mlp(600, 500, 10, density=1.0),
    "many columns": lambda: mlp(200_000, 3, density=0.02),
    "many rows": _rows,
    "constants": _constants,
    "one weight": _shared,
    "chain": _chain,
    "images": _images,
}


@compiled
@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LARGE)
def test_sessions_take_no_more_than_predicted_and_not_much_less(name: str, backend: Backend, exact: bool) -> None:
    model = LARGE[name]().model()
    data = dcformat.dumps(model)
    plain = outline(model.graph, matrices(model.tensors))
    held = sum(row.bytes for row in dcformat_runtime.predict_memory(dcformat.open(data))[:1])
    predicted = predict(plain, held, 1, backend, exact, None)
    x = inputs(lower(model), 64)
    dcformat_runtime.load(data, backend=backend)(x[:1])  # this does all imports
    with peak() as one:
        session = dcformat_runtime.load(data, threads=1, backend=backend, deterministic=exact)
        session(x[:1])
    assert one.bytes <= predicted.total <= DEFAULT_MAX_MEMORY
    with peak() as many:
        session(x)
    assert many.bytes <= predicted.total + 64 * predicted.call
    most = 7 if name == "dense mlp" else 4  # a prediction does not know that no element is zero, so that none is copied
    assert predicted.total <= most * max(one.bytes, one.bytes + many.bytes - 4 * 64 * prod(session.output_shape))


@pytest.mark.parametrize("name", [*NETS, "skewed"])
def test_tables_and_arenas_are_not_larger_than_predicted(name: str) -> None:
    net = _skewed() if name == "skewed" else NETS[name]()
    rows = {row.what: row.bytes for row in predict(_outline(net.model()), 0, 1, "numba", False, None).rows}
    engine = KernelEngine(lower(net.model()), 1, False)
    for single, what in ((True, "one input"), (False, "many inputs")):
        program = engine.program(single)
        tables, arenas = rows[f"tables of the kernels for {what}"], rows[f"arenas of the kernels for {what}"]
        assert program.mem.nbytes <= tables <= 4 * program.mem.nbytes
        assert 4 * program.arena == arenas


def _outline(model: Model) -> dcformat_runtime.network.Network:
    return outline(model.graph, matrices(model.tensors))


def test_the_numpy_backend_holds_weights_dense() -> None:
    rows = {row.what: row.bytes for row in predict(_outline(mlp(64, 100, 10).model()), 0, 1, "numpy", False, None).rows}
    assert rows["weights as dense float32"] == 4 * (64 * 100 + 100 * 10)
    rows = {row.what: row.bytes for row in predict(_outline(mlp(64, 100, 10).model()), 0, 1, "numpy", True, None).rows}
    assert rows["weights as dense float32"] == 0


def test_a_dense_float32_weight_has_no_copy_and_is_not_changed() -> None:
    values = np.linspace(1, 2, 64 * 64, dtype=np.float32).reshape(64, 64)
    values[3, 5] = 1e-39  # denormal
    for weight, shared in ((values[4:], True), (values[:4], False)):
        model = Model({"w": from_dense("w", weight)}, Graph.sequential((64,), (Linear((0,), "w"),)))
        tracemalloc.start()
        found = lower(model).layers[0].weight
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert found is not None
        assert np.shares_memory(found.values, model.tensors["w"].data) == shared
        assert taken < 8000  # the weight of 60 rows takes 15,360
        assert np.array_equal(found.values, np.where(weight < 0.1, 0, weight).reshape(-1))
        assert np.array_equal(model.tensors["w"].to_dense(), weight)


def test_layers_that_share_a_weight_hold_it_once_and_have_tables_of_their_own() -> None:
    once, often = mlp(400, 400, density=0.2).model(), _shared().model()
    alone = {row.what: row.bytes for row in predict(_outline(once), 0, 1, "numba", False, None).rows}
    shared = {row.what: row.bytes for row in predict(_outline(often), 0, 1, "numba", False, None).rows}
    assert shared["weights as sparse float32 rows"] == alone["weights as sparse float32 rows"]
    tables = "tables of the kernels for many inputs"
    assert 10 * alone[tables] < shared[tables] < 12 * alone[tables]
    network = lower(often)
    assert all(layer.weight is network.layers[0].weight for layer in network.layers)
    assert all(layer.bias is network.layers[0].bias for layer in network.layers)


HUGE: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    # for one weight: the input's shape, the weight's shape, its entries
    "2^28 rows": ((1,), (1 << 28, 1), 1),
    "2^28 rows, all full": ((1,), (1 << 28, 1), 1 << 28),
    "2^40 entries": ((1 << 20,), (1 << 20, 1 << 20), 1 << 40),
    "a kernel of 2^30 columns": ((1, 1, 1 << 30), (1, 1, 1, 1 << 30), 1),
    "a kernel of 2^30 rows": ((1, 1 << 30, 1), (1, 1, 1 << 30, 1), 1),
    "2^40 outputs": ((1,), (1 << 40, 1), 0),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", HUGE)
def test_predictions_allocate_nothing(what: str, backend: Backend) -> None:
    shape, weight, entries = HUGE[what]
    node = Linear((0,), "w") if len(weight) == 2 else Conv((0,), "w")
    predict(_outline(mlp(4, 4).model()), 0, 1, backend, False, None)

    def refuse() -> None:
        network = outline(Graph.sequential(shape, (node,)), {"w": Matrix(weight, entries)})
        predicted = predict(network, 0, 1, backend, False, None)
        assert predicted.total > DEFAULT_MAX_MEMORY
        with pytest.raises(MemoryLimitError, match=f"found {predicted.total:,} bytes"):
            predict(network, 0, 1, backend, False, DEFAULT_MAX_MEMORY)

    assert least_peak(refuse) < 1 << 18


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_budget_holds_for_constants(backend: Backend) -> None:
    model = Model({"w": _constant("w", 1 << 28, 1)}, Graph.sequential((1,), (Linear((0,), "w"),)))
    with peak() as taken, pytest.raises(MemoryLimitError, match=r"at most 4,294,967,296 \(max_memory\)"):
        Session.from_model(model, backend=backend)
    assert taken.bytes < 1 << 20
    biased = Model({"w": Tensor("w", (1 << 28, 1), "float32", np.empty(0, np.float32), None, np.zeros(2, np.int64),
        np.empty(0, np.int32)), "b": _constant("b", 1 << 28)},
        Graph.sequential((1,), (Linear((0,), "w", "b"),)))  # fmt: skip
    with peak() as taken, pytest.raises(MemoryLimitError):
        Session.from_model(biased, backend=backend)
    assert taken.bytes < 1 << 20


def test_more_words_than_kernels_can_number_are_refused_whatever_the_budget() -> None:
    model = Model({"w": _constant("w", 1 << 30, 4)}, Graph.sequential((4,), (Linear((0,), "w"),)))
    with pytest.raises(LimitError, match="at most 2147483647"):
        Session.from_model(model, backend="numba", max_memory=None)


@compiled
@pytest.mark.parametrize("backend", BACKENDS)
def test_large_batches_run_in_pieces_within_the_budget(backend: Backend) -> None:
    net = Net(1, 200, 200)
    net.add(Reduce((net.conv(0, 8, 1, (3, 3), padding=(1, 1)),), "mean", (1, 2)))
    model = net.model(Preprocessing((0.5,), (0.25,)))
    limit = 5 * predict(_outline(model), 0, 1, backend, False, None).total
    session = Session.from_model(model, backend=backend, threads=1, max_memory=limit)
    pixels = np.random.default_rng(0).integers(0, 256, (180, 1, 200, 200)).astype(np.uint8)
    expected = np.concatenate([session(pixels[k : k + 1]) for k in range(0, 180, 50)])
    session(pixels[:2])
    with peak() as taken:
        found = session(pixels)
    assert taken.bytes < limit < 4 * pixels.size
    assert np.allclose(found[::50], expected, 1e-5, 1e-6)
    assert {row.name for row in session.profile(pixels)} >= {"w0"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_whose_results_exceed_the_budget_are_refused(backend: Backend) -> None:
    session = Session.from_model(mlp(2, 1000).model(), backend=backend, max_memory=4_000_000)
    assert session(np.zeros((100, 2), np.float32)).shape == (100, 1000)

    def refuse() -> None:
        with pytest.raises(MemoryLimitError, match="running 10,000 inputs"):
            session(np.zeros((10_000, 2), np.float32))

    assert least_peak(refuse) < 200_000


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_out_of_memory_is_a_memory_limit_error(backend: Backend) -> None:
    session = Session.from_model(mlp(1, 1 << 16, density=1.0).model(), backend=backend, max_memory=None)
    name = session.inputs[0].name
    # Zeros take no memory until they are read; the outputs would take 16 TiB, or the copies of the inputs 4.
    for x in (np.zeros((1 << 26, 1), np.float32), np.broadcast_to(np.zeros((1, 1), np.float32), (1 << 40, 1))):
        ways: list[tuple[Callable[[Any], Any], Any]] = [(session, x), (session, {name: x}), (session.run, {name: x})]
        for call, given in ways:
            with pytest.raises(MemoryLimitError, match=rf"running {len(x):,} inputs: .*no more memory"):
                call(given)


def test_fewer_threads_are_used_where_their_arenas_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcformat_runtime.cpu.cores", lambda: 8)
    plain = _outline(mlp(5000, 10).model())
    all_of_them = predict(plain, 0, None, "numba", False, None)
    one = predict(plain, 0, 1, "numba", False, None)
    assert all_of_them.threads == 8
    assert predict(plain, 0, None, "numba", False, one.total).threads == 1
    assert predict(plain, 0, None, "numba", False, (one.total + all_of_them.total) // 2).threads in (4, 5)
    with pytest.raises(MemoryLimitError):
        predict(plain, 0, 8, "numba", False, one.total)


def test_a_graph_without_operators_cannot_be_run(tmp_path: Path) -> None:
    model = Model(mlp(4, 4).tensors, Graph.sequential((4,), ()))
    path = tmp_path / "nothing.dcf"
    dcformat.save(model, path)
    for limit in (None, 1 << 20):
        with pytest.raises(
            GraphError, match=r"nothing\.dcf: invalid: graph: expected at least one, found no operators"
        ):
            dcformat_runtime.load(path, max_memory=limit)
    with dcformat.open(path) as file, pytest.raises(GraphError, match=r"nothing\.dcf: invalid: graph"):
        dcformat_runtime.predict_memory(file)
    with pytest.raises(GraphError, match="found no operators"):
        Session.from_model(model)


def test_a_weight_too_large_to_be_dense() -> None:
    """Seven of 10^12 elements are stored, and no array of the dense size is ever made."""
    rows = columns = 1_000_000
    indptr = np.zeros(rows + 1, np.int64)
    indptr[5:] = 7
    weight = Tensor(
        "w", (rows, columns), "float32", np.arange(1, 8, dtype=np.float32), None, indptr,
        np.arange(0, 700_000, 100_000, dtype=np.int32),
    )  # fmt: skip
    bias = Tensor("b", (rows,), "float32", np.zeros(1, np.float32))
    network = lower(Model({"w": weight, "b": bias}, Graph.sequential((columns,), (Linear((0,), "w", "b"),))))
    x = np.ones((1, columns), np.float32)
    y = KernelEngine(network, 1, False).run(x)
    assert y[0, 4] == 28 and np.count_nonzero(y) == 1
