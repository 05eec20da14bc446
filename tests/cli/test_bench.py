"""`dcformat bench`, its peers, and the ONNX files that they read. No test measures speed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dcformat_cli.bench import other_runtimes, timing
from dcformat_interop.onnx_export import dense, to_onnx

import dcformat
from dcformat import Model, from_dense
from dcformat.graph import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Gather,
    Graph,
    Linear,
    MaxPool,
    Node,
    Output,
    Port,
    Reduce,
    ReLU,
    Softmax,
    Unary,
)
from tests.cli.support import Invoke, refused


def network(*, plain: bool) -> Model:
    """Return a network with every operator, or if `plain` is set, only with those that the matrix peers accept."""
    random = np.random.default_rng(5)
    shapes = {
        "x": (6, 3, 3, 3), "x.b": (6,), "groups": (6, 2, 3, 3), "one": (6, 6, 1, 1), "fc": (5, 12), "fc.b": (5,),
        "last": (4, 150),
    }  # fmt: skip
    tensors = {
        name: from_dense(name, np.where(random.random(shape) < 0.5, random.normal(size=shape), 0).astype(np.float32))
        for name, shape in shapes.items()
    }
    first = (
        Conv((0,), "x", "x.b", (2, 1), (1, 2), (1, 2))
        if plain
        else Conv((0,), "x", "x.b", (2, 1), (1, 4), (1, 4), (1, 2))
    )
    second = Conv((2,), "one") if plain else Conv((2,), "groups", padding=(1, 1), padding_end=(1, 1), groups=3)
    edges = ((0, 0), (0, 0)) if plain else ((1, 1), (1, 1))
    nodes = (
        first, ReLU((1,)), second, Add((2, 3, 2)),
        MaxPool((4,), (2, 3), (2, 2), *edges, not plain), AvgPool((4,), (2, 3), (2, 2), *edges, not plain, plain),
        Concat((5, 6)), Reduce((7,), "mean", (1, 2)), Reduce((7,), "max", (1, 2)), Linear((8,), "fc", "fc.b"),
        Linear((9,), "fc"), Add((10, 11)), Softmax((12,)),
    )  # fmt: skip
    return Model(tensors, Graph.sequential((3, 9, 8), nodes))


@pytest.mark.parametrize("plain", [True, False])
def test_onnx_means_the_same(plain: bool) -> None:
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    checker = pytest.importorskip("onnx.checker")
    model = network(plain=plain)
    made = to_onnx(model)
    checker.check_model(made, full_check=True)
    x = np.random.default_rng(1).normal(size=(3, 3, 9, 8)).astype(np.float32)
    (y,) = evaluator(made).run(None, {"input": x})
    assert timing.relative_error(y, other_runtimes.reference(model, x)) < 1e-5


@pytest.mark.parametrize("name", ["torch", "scipy csr", "numpy dense", "onnxruntime", "openvino f32"])
def test_peers_agree(name: str) -> None:
    model = network(plain=True)
    x = np.random.default_rng(2).normal(size=(3, 3, 9, 8)).astype(np.float32)
    try:
        run = other_runtimes.RUNTIMES[name](model, 1)
    except ImportError:
        pytest.skip(f"{name} is not installed")
    assert timing.relative_error(run(x), other_runtimes.reference(model, x)) < 1e-5


def test_matrix_peers_refuse_unsupported_operators() -> None:
    for make in (other_runtimes.numpy_dense, other_runtimes.scipy_csr):
        with pytest.raises(other_runtimes.UnsupportedError, match="groups or dilation"):
            make(network(plain=False), 1)


@pytest.mark.parametrize(
    "node",
    [
        Unary((0,), "neg"), Add((0, 1.0)), Reduce((0,), "sum", (1, 2)), Reduce((0,), "max", (0,)),
        MaxPool((0,), (2, 2), (1, 1), (0, 0), (1, 1)), AvgPool((0,), (2, 2), (1, 1), (1, 0), (0, 0)),
    ],
    ids=lambda node: node.kind,
)  # fmt: skip
def test_peers_refuse_operators_in_a_form_that_they_do_not_know(node: Node) -> None:
    model = Model({}, Graph.sequential((3, 9, 8), (node,)))
    for make in (other_runtimes.numpy_dense, other_runtimes.scipy_csr, other_runtimes.torch):
        with pytest.raises(other_runtimes.UnsupportedError, match=f"{node.kind} in this form"):
            make(model, 1)


def test_weights_of_every_dtype_become_float32() -> None:
    values = np.array([[0.5, 0, -2], [0, 0, 1]], np.float32)
    halves = from_dense("a", values.astype(np.float16), "float16")
    bfloat = from_dense("a", (values.view(np.uint32) >> 16).astype("<u2"), "bfloat16")
    scaled = from_dense("a", (2 * values).astype(np.int8), "int8", 0.5)
    for tensor in (from_dense("a", values), halves, bfloat, scaled):
        assert dense(tensor).dtype == np.float32
        np.testing.assert_array_equal(dense(tensor), values)


def test_every_runtime_gets_its_turns_and_its_error() -> None:
    calls: list[str] = []

    def runtime(name: str, offset: float) -> timing.TimedCall:
        def run(x: timing.Floats) -> timing.Floats:
            calls.append(name)
            return 2 * x + np.float32(offset)

        return run

    inputs = [np.full((1, 4), n + 1, np.float32) for n in range(3)]
    found = timing.interleave({"a": runtime("a", 0), "b": runtime("b", 0.5)}, inputs, 2 * inputs[0], rounds=2)
    assert (found["a"].error, found["b"].error) == (0.0, 0.25)
    turns = [name for i, name in enumerate(calls[2:]) if i == 0 or calls[2:][i - 1] != name]
    assert turns == ["a", "b", "a"]  # the second round starts with b, which has just run
    assert len(found["a"].calls) >= 2 * timing.MIN_CALLS
    assert timing.relative_error(np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32)) == float("inf")
    assert timing.relative_error(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == 0


def test_errors_of_several_outputs_and_of_numbers_that_are_not_finite() -> None:
    one = np.ones((1, 2), np.float32)
    assert timing.relative_error({"a": one, "b": 2 * one}, {"a": one, "b": 4 * one}) == 0.5
    assert timing.relative_error(np.array([True, False]), np.array([True, True])) == 1
    assert timing.relative_error(np.array([np.nan, 1]), np.array([np.nan, 1])) == 0
    assert timing.relative_error(np.array([np.inf, 1]), np.array([np.inf, 2])) == float("inf")
    assert timing.relative_error(np.array([np.nan, 1]), np.array([0, 1])) == float("inf")


def recurrent(*, batched: bool = True) -> Model:
    """Return a network of tokens and a state."""
    axis = 0 if batched else None
    ports = Port((4,), "tokens", "int64", axis), Port((3,), "state", "float64", axis)
    nodes = Gather(("table", 0)), Reduce((2,), "sum", (0,)), Add((1, 3))
    outputs = Output(4, "next", "float64", axis), Output(4, "rounded", "int8", axis)
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    return Model({"table": from_dense("table", table)}, Graph(ports, nodes, outputs))


def test_inputs_by_name() -> None:
    graph = recurrent().graph
    assert graph is not None
    for given in timing.named_batches(graph, 5):
        assert {name: (x.shape, x.dtype.name) for name, x in given.items()} == {
            "tokens": ((5, 4), "int64"), "state": ((5, 3), "float64"),
        }  # fmt: skip
        assert {0, 1} == set(given["tokens"].flat)


@pytest.mark.needs_compiler
@pytest.mark.parametrize("batched", [True, False])
def test_a_network_with_several_inputs(invoke: Invoke, tmp_path: Path, batched: bool) -> None:
    path = tmp_path / "a.dcf"
    dcformat.save(recurrent(batched=batched), path)
    (answer,) = json.loads(invoke("bench", path, "--rounds", 1, "--batch", "2,3", "--json").stdout)["threads"]
    assert set(answer["missing"]) == set(other_runtimes.RUNTIMES) - {"dcformat"}
    assert [result["batch"] for result in answer["results"]] == ([2, 3] if batched else [1])
    assert [result["runtimes"]["dcformat"]["error"] for result in answer["results"]] == ([0, 0] if batched else [0])
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.int64))
    refused(invoke("bench", path, "--input", tmp_path / "x.npy"), "a.dcf: expected one input and one output", "--input")


def test_inputs_come_from_the_array() -> None:
    source = np.arange(12, dtype=np.float32).reshape(6, 2)
    for x in timing.batches(source, (2,), 3):
        assert x.shape == (3, 2)
        assert {tuple(row) for row in x} <= {tuple(row) for row in source}
    first, second = timing.batches(None, (1, 4, 4), 2), timing.batches(None, (1, 4, 4), 2)
    assert all((a == b).all() and a.dtype == np.float32 for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_the_command(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((5, 784), np.float32))
    options = ["--rounds", 1, "--batch", "1,3", "--threads", "1,2", "--peer", "numpy dense", "--peer", "scipy csr"]
    result = invoke("bench", dcf, *options, "--input", tmp_path / "x.npy", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [answer["threads"] for answer in report["threads"]] == [1, 2]
    for answer in report["threads"]:
        assert answer["missing"] == {}
        assert [entry["batch"] for entry in answer["results"]] == [1, 3]
        for entry in answer["results"]:
            assert list(entry["runtimes"]) == ["dcformat", "scipy csr", "numpy dense"]
            for row in entry["runtimes"].values():
                assert row["error"] < 1e-5
                assert row["calls"] >= timing.MIN_CALLS
                assert 0 < row["median_us"] <= row["p99_us"]
    text = invoke("bench", dcf, "--rounds", 1, "--batch", 2, "--peer", "numpy dense").stdout
    assert "batch 2, 1 thread" in text
    assert "peer / ours" in text


def test_misuse(invoke: Invoke, dcf: Path, npz: Path, tmp_path: Path) -> None:
    assert invoke("bench", dcf, "--batch", "0").exit_code == 2
    assert invoke("bench", dcf, "--batch", "1,x").exit_code == 2
    assert invoke("bench", dcf, "--peer", "abacus").exit_code == 2
    refused(invoke("bench", "-", "--input", "-"), "expected FILE or --input from stdin, found both", code=2)
    bag = tmp_path / "bag.dcf"
    dcformat.save(Model({"a": from_dense("a", np.ones(3, np.float32))}), bag)
    refused(invoke("bench", bag), "bag.dcf: expected a network, found only tensors")


def test_a_file_that_cannot_run_is_refused_by_its_own_error(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    refused(invoke("bench", dcf, "--max-memory", "4096"), f"{dcf}: needs more memory than --max-memory allows", "[E07]")
    damaged = bytearray(dcf.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    altered = tmp_path / "altered.dcf"
    altered.write_bytes(damaged)
    refused(invoke("bench", altered), f"{altered}: damaged: CRC-32C", "[E05]")
    refused(invoke("bench", "-", stdin=b"\x1c\0\0\0TFL3" + bytes(20)), "stdin: not a .dcf file (looks like TFLite: use")
