"""`dcformat compress MODEL`: compression without training from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dcformat_cli.schemas import schema_of
from jsonschema import validate

import dcformat
from dcformat import Model
from dcformat.graph import Graph, Linear, Port, ReLU, Softmax
from tests.cli.support import Invoke, refused, save_npz

pytest.importorskip("torch")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"a": (16, 12), "ab": (16,), "b": (5, 16)}
    tensors = {n: dcformat.from_dense(n, rng.standard_normal(s).astype(np.float32)) for n, s in shapes.items()}
    nodes = (Linear((0,), "a", "ab"), ReLU((1,)), Linear((2,), "b"), Softmax((3,)))
    graph = Graph.sequential((12,), nodes)
    path = tmp_path / "network.dcf"
    dcformat.save(Model(tensors, Graph((Port((12,), "x"),), graph.nodes, graph.outputs)), path)
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "inputs.npz"
    save_npz(path, {"x": np.random.default_rng(1).standard_normal((40, 12)).astype(np.float32)})
    return path


def test_a_size(invoke: Invoke, tmp_path: Path, network: Path, inputs: Path) -> None:
    out = tmp_path / "small.dcf"
    result = invoke("compress", network, "--calibration", inputs, "--size", 250, "-o", out, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    validate(document, schema_of("compress"))
    assert document["bytes"] == out.stat().st_size <= 250
    assert document["change"] == min(trial["change"] for trial in document["trials"] if trial["bytes"] <= 250)
    assert len(result.stderr.splitlines()) == len(document["trials"])
    best = [line for line in result.stderr.splitlines() if line.endswith(": the best so far")]
    assert best[-1].startswith(f"{document['bytes']:,} bytes, change ")


def test_random_inputs(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    out = tmp_path / "small.dcf"
    result = invoke("compress", network, "--bits", 6, "--density", 0.7, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert "note: without --calibration" in result.stderr
    assert result.stdout.startswith(f"{out}: {out.stat().st_size} bytes, change 0.")
    assert "% of the classes differ, density" in result.stdout


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_both_help_options(invoke: Invoke, network: Path, option: str) -> None:
    result = invoke("compress", network, option)
    assert result.exit_code == 0, result.stderr
    assert "Compress MODEL" in result.stdout
    assert "-h, --help" in result.stdout


def test_the_help_tells_of_both_commands(invoke: Invoke, network: Path) -> None:
    assert "without training" in invoke("compress", "--help").stdout
    for arguments in ((network, "--help"), ("-o", "a.dcf", network, "--help")):
        assert "--max-change" in invoke("compress", *arguments).stdout
    assert "--recipe" in invoke("compress", "lenet-5", "-o", "a.dcf", "--help").stdout


def test_refusals(invoke: Invoke, tmp_path: Path, network: Path, inputs: Path) -> None:
    out = tmp_path / "small.dcf"
    refused(
        invoke("compress", network, "--size", 250, "--bits", 2, "-o", out), "expected one goal, found --size, --bits",
        code=2,
    )  # fmt: skip
    refused(invoke("compress", tmp_path / "none.onnx", "-o", out), "none.onnx: no such file")
    other = tmp_path / "other.npz"
    save_npz(other, {"y": np.zeros((3, 12), np.float32)})
    refused(invoke("compress", network, "--calibration", other, "-o", out), other, "inputs: expected 'x' float32")
    line = refused(invoke("compress", network, "--calibration", inputs, "--size", 20, "-o", out), "goal not reached")
    assert "expected at most 20 bytes, found" in line
    damaged = tmp_path / "damaged.dcf"
    damaged.write_bytes(network.read_bytes()[:100])
    refused(invoke("compress", damaged, "-o", out), damaged, "truncated")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.npz", b"PK\3\4", ("looks like a zip archive", "compress lenet-5 --checkpoint FILE")),
        ("a.safetensors", b"\2\0\0\0\0\0\0\0{}", ("looks like safetensors: use dcformat pack",)),
        ("lenet", b"", ("not a network (an empty file)",)),
        ("lenet.txt", b"hello", ("not a network (bytes of no known kind)", "a .dcf file with a network")),
    ],
)
def test_files_that_hold_no_network(
    invoke: Invoke, tmp_path: Path, name: str, content: bytes, parts: tuple[str, ...]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(invoke("compress", path, "-o", tmp_path / "a.dcf"), f"{path}: not a network", *parts)
    refused(invoke("compress", "-", "-o", tmp_path / "a.dcf", stdin=content), "stdin: not a network", *parts)
    refused(invoke("compress", "lenet-6", "-o", tmp_path / "a.dcf"), "Did you mean 'lenet-5'?", code=2)


def test_a_network_from_stdin(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    arguments = ("compress", "-", "--bits", 6, "-o", tmp_path / "a.dcf")
    assert invoke(*arguments, stdin=network.read_bytes()).exit_code == 0
    refused(invoke(*arguments, "-f", "--calibration", "-", stdin=b""), "MODEL or --calibration from stdin", code=2)
