"""`dcformat export`: ONNX models, state_dicts and SciPy matrices."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

import dcformat
from dcformat.graph import Graph, Linear
from dcformat.model import Model
from tests.cli.support import PACK, Invoke, State, refused


def test_onnx(invoke: Invoke, tmp_path: Path, dcf: Path, state: State) -> None:
    import onnxruntime

    out = tmp_path / "lenet.onnx"
    result = invoke("export", "onnx", dcf, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: {out.stat().st_size:,} bytes\n"
    assert result.stderr.startswith("note: checked against onnxruntime ")
    session = onnxruntime.InferenceSession(out)
    x = np.random.default_rng(0).random((4, 784), np.float32)
    hidden = np.maximum(x @ state["fc1.weight"].T + state["fc1.bias"], 0)
    hidden = np.maximum(hidden @ state["fc2.weight"].T + state["fc2.bias"], 0)
    expected = hidden @ state["fc3.weight"].T + state["fc3.bias"]
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, rtol=1e-4, atol=1e-5)


def test_onnx_through_pipes(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    result = invoke("export", "onnx", "-", "-o", "-", "--sparse", "--json", stdin=dcf.read_bytes())
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stderr.split("\n", 1)[1])
    assert list(document) == ["schema", "file", "output", "format", "bytes", "check"]
    assert set(document["check"]) == {"engine", "difference"}
    assert document["bytes"] == len(result.stdout_bytes)
    assert invoke("export", "onnx", dcf, "-o", tmp_path / "dense.onnx").exit_code == 0
    assert len(result.stdout_bytes) < (tmp_path / "dense.onnx").stat().st_size / 3
    (tmp_path / "sparse.onnx").write_bytes(result.stdout_bytes)
    assert invoke(*PACK, tmp_path / "sparse.onnx", "-o", tmp_path / "again.dcf").exit_code == 0
    before, after = dcformat.load(dcf), dcformat.load(tmp_path / "again.dcf")
    assert set(after.tensors) == set(before.tensors)
    for name, tensor in before.tensors.items():
        np.testing.assert_array_equal(after.tensors[name].to_dense(), tensor.to_dense())


def test_onnx_without_a_network(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    assert invoke(*PACK, npz, "-o", tmp_path / "bag.dcf").exit_code == 0
    result = invoke("export", "onnx", tmp_path / "bag.dcf", "-o", tmp_path / "a.onnx")
    refused(result, tmp_path / "bag.dcf", "expected a file with a network, found one that holds only tensors")
    assert not (tmp_path / "a.onnx").exists()


def test_state_dict(invoke: Invoke, tmp_path: Path, dcf: Path, state: State) -> None:
    out = tmp_path / "lenet.pt"
    result = invoke("export", "state-dict", dcf, "-o", out)
    assert (result.exit_code, result.stdout) == (0, f"{out}: 6 tensors\n")
    loaded = torch.load(out, weights_only=True)
    assert list(loaded) == list(state)
    assert all(loaded[name].numpy().tobytes() == state[name].tobytes() for name in state)
    piped = invoke("export", "state-dict", "-", "-o", "-", stdin=dcf.read_bytes())
    assert list(torch.load(io.BytesIO(piped.stdout_bytes), weights_only=True)) == list(state)


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float16", "bfloat16", "float8_e4m3fn", "int8", "uint16", "int64", "uint64", "bool", "complex64"],
)
def test_state_dict_of_any_dtype(invoke: Invoke, tmp_path: Path, dtype: str) -> None:
    values = torch.tensor([[1, 0, 0], [1, 1, 0]]).to(getattr(torch, dtype))
    torch.save({"a": values}, tmp_path / "a.pt")
    assert invoke(*PACK, tmp_path / "a.pt", "-o", tmp_path / "a.dcf").exit_code == 0
    assert invoke("export", "state-dict", tmp_path / "a.dcf", "-o", tmp_path / "b.pt").exit_code == 0
    found = torch.load(tmp_path / "b.pt", weights_only=True)["a"]
    assert found.dtype == values.dtype
    assert found.tolist() == values.tolist()


def test_scaled_integers_become_floats(invoke: Invoke, tmp_path: Path) -> None:
    tensor = dcformat.from_dense("q", np.array([[1, 0, -3]], np.int8), "int8", 0.125)
    dcformat.save(Model({"q": tensor}), tmp_path / "a.dcf")
    assert invoke("export", "state-dict", tmp_path / "a.dcf", "-o", tmp_path / "a.pt").exit_code == 0
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)["q"]
    assert (loaded.dtype, loaded.tolist()) == (torch.float32, [[0.125, 0, -0.375]])
    assert invoke("export", "scipy", tmp_path / "a.dcf", "-o", tmp_path / "a.npz").exit_code == 0
    assert sparse.load_npz(tmp_path / "a.npz").toarray().tolist() == [[0.125, 0, -0.375]]


def test_scipy(invoke: Invoke, tmp_path: Path, dcf: Path, state: State) -> None:
    out = tmp_path / "fc1.npz"
    result = invoke("export", "scipy", dcf, "-o", out, "--tensor", "fc1.weight")
    entries = np.count_nonzero(state["fc1.weight"])
    assert (result.exit_code, result.stdout) == (0, f"{out}: fc1.weight, 300 x 784, {entries:,} entries\n")
    matrix = sparse.load_npz(out)
    assert (matrix.format, matrix.indices.dtype, matrix.indptr.dtype) == ("csr", np.int32, np.int32)
    np.testing.assert_array_equal(matrix.toarray(), state["fc1.weight"])


def test_scipy_takes_a_matrix(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    out = tmp_path / "a.npz"
    found = "found 3: give --tensor fc1.weight or fc2.weight or fc3.weight"
    refused(invoke("export", "scipy", dcf, "-o", out), f"{dcf}: expected a file with one tensor", found)
    refused(invoke("export", "scipy", dcf, "-o", out, "--tensor", "fc1.weigth"), "Did you mean 'fc1.weight'?")
    refused(invoke("export", "scipy", dcf, "-o", out, "--tensor", "fc1.bias"), "fc1.bias", "found (300,)")
    assert not out.exists()


def test_no_output_replaces_the_input_or_another_file(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    model = Model({"w": dcformat.from_dense("w", np.eye(2, dtype="<f4"))}, Graph.sequential((2,), (Linear((0,), "w"),)))
    dcformat.save(model, path)
    before = path.read_bytes()
    for form in ("onnx", "scipy", "state-dict"):
        refused(invoke("export", form, path, "-f", "-o", path), "found the same file", code=2)
        (tmp_path / "b").write_bytes(b"precious")
        refused(invoke("export", form, path, "-o", tmp_path / "b"), "-f replaces it", code=2)
        assert (tmp_path / "b").read_bytes() == b"precious"
        assert invoke("export", form, path, "-f", "-o", tmp_path / "b").exit_code == 0
    assert path.read_bytes() == before
