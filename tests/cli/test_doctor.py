"""`dcformat doctor` explains why a model is as large as it is, and examines the installation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import dcformat
from tests.cli.support import Invoke, refused, save_npz
from tests.interop.packing.checkpoints import INDEX, write

FOUND = {
    "zeros stored as numbers": (["w", "filled"], 1099, 4396),
    "few distinct values": (["shared", "rows"], 9216, 36864),
    "units whose weights are all zero": (["w", "filled"], 1009, 4036),
    "zeros with a sign": (["signed"], 2, 8),
    "denormal numbers": (["small"], 1, 4),
    "float64 that float32 holds exactly": (["wide"], 3, 24),
    "pruning masks beside the weights": (["lonely_mask"], 4, 4),
    "tensors equal to another one": (["tied"], 300, 1200),
    "NaN or infinite": (["odd"], 1, 4),
    "less than half of the elements are zero": (["filled"], 100, 400),
    "values with a codebook or a scale of their own": (["rows"], 8192, 32768),
    "the state of an optimizer": (["filled.exp_avg"], 2, 8),
}


def arrays() -> dict[str, Any]:
    random = np.random.default_rng(0)
    w = np.zeros((10, 101), np.float32)
    w[0, :11] = random.standard_normal(11)
    dense = random.standard_normal(300).astype(np.float32)
    filled = random.standard_normal((20, 20)).astype(np.float32)
    filled[:5] = 0
    rows = random.integers(1, 8, (64, 128)) * random.uniform(0.01, 0.02, (64, 1))
    return {
        "w": w, "shared": np.array([1, -1], np.float32)[random.integers(0, 2, 1024)],
        "signed": np.array([-0.0, -0.0, 1], np.float32), "small": np.array([1e-40, 1], np.float32),
        "wide": np.array([0.5, 1, 2]), "lonely_mask": np.array([1, 0, 1, 1], np.uint8), "dense": dense, "tied": dense,
        "odd": np.array([np.nan, 1], np.float32), "filled": filled, "rows": rows.astype(np.float32),
        "filled.exp_avg": np.array([1, 2], np.float32),
    }  # fmt: skip


def examined(invoke: Invoke, file: Path) -> dict[str, Any]:
    result = invoke("doctor", file, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    assert list(document) == [
        "schema", "file", "bytes", "tensors", "parameters", "left_out", "beside", "findings", "packed", "command",
    ]  # fmt: skip
    return document


def test_every_finding(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "a b.npz"
    save_npz(path, arrays())
    document = examined(invoke, path)
    found = {one["what"]: (one["tensors"], one["elements"], one["bytes"]) for one in document["findings"]}
    assert len(found) == len(FOUND)
    for start, expected in FOUND.items():
        (what,) = [what for what in found if what.startswith(start)]
        assert found[what] == expected, what
    assert (document["bytes"], document["tensors"], document["parameters"]) == (path.stat().st_size, 12, 11242)
    assert list(document["packed"]) == ["fast", "small", "tiny"]
    assert min(document["packed"].values()) < path.stat().st_size / 2
    assert document["command"] == f"dcformat pack '{path}' -o 'a b.new.dcf' --float32"
    assert "units whose weights are all zero" in invoke("doctor", path).stdout


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int64", "bool", "complex64"])
def test_any_dtype(invoke: Invoke, tmp_path: Path, dtype: str) -> None:
    torch.save({"a": torch.tensor([[1, 0], [0, 0]]).to(getattr(torch, dtype))}, tmp_path / "a.pt")
    document = examined(invoke, tmp_path / "a.pt")
    assert [one["elements"] for one in document["findings"]] == [3, 2]


def test_other_files(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    document = examined(invoke, dcf)
    assert document["tensors"] == 6
    assert document["command"].startswith("dcformat repack ")
    state = {"state": {0: {"exp_avg": torch.zeros(5000)}}, "param_groups": []}
    torch.save({"model": {"w": torch.ones(2, 2)}, "optimizer": state}, tmp_path / "train.pt")
    result = invoke("doctor", tmp_path / "train.pt")
    assert result.stderr == "note: the state_dict was found under 'model'; left out: 'optimizer'\n"
    size = (tmp_path / "train.pt").stat().st_size
    assert result.stdout.splitlines()[1].startswith(f"{size - 16:,} bytes are beside the tensors: headers, optimizer ")
    assert result.stdout.splitlines()[2] == "nothing unusual was found in the tensors"
    result = invoke("doctor", "-", stdin=(tmp_path / "train.pt").read_bytes())
    assert result.stdout.splitlines()[-1].endswith(": dcformat pack - -o model.dcf")
    (tmp_path / "a.txt").write_text("text")
    refused(invoke("doctor", tmp_path / "a.txt"), tmp_path / "a.txt")
    refused(invoke("doctor", tmp_path / "no.pt"), "no such file")


def test_the_installation(invoke: Invoke) -> None:
    document = json.loads(invoke("doctor", "--json").stdout)
    assert list(document) == [
        "schema", "dcformat", "executable", "machine", "vectors", "compiles", "kernels", "folder", "writable",
        "data", "packages",
    ]  # fmt: skip
    assert document["dcformat"] == dcformat.__version__
    assert document["packages"]["torch"] == torch.__version__
    assert 0 <= document["kernels"]["saved"] <= document["kernels"]["all"]
    lines = invoke("doctor").stdout.splitlines()
    assert lines[0].startswith(f"dcformat {dcformat.__version__}, Python 3.")
    assert any(line.split()[:2] == ["torch", torch.__version__] for line in lines)


def test_a_package_that_cannot_be_imported(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "optuna.py").write_text("raise RuntimeError('built for another Python')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "optuna", raising=False)
    document = json.loads(invoke("doctor", "--json").stdout)
    assert document["packages"]["optuna"] == "broken: built for another Python"


def test_a_checkpoint_in_several_files(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    everything = write(folder)
    for path in (folder, folder / INDEX):
        document = examined(invoke, path)
        assert document["bytes"] == sum(each.stat().st_size for each in folder.glob("*.safetensors"))
        assert document["tensors"] == len(everything) - len(document["left_out"])
        assert document["command"] == f"dcformat pack {path} -o {path.stem}.new.dcf"
    refused(invoke("doctor", tmp_path), "expected a directory with safetensors files", "found only in")


def test_names_that_a_file_cannot_hold(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"": np.ones(2, np.float32), "n" * 256: np.ones(2, np.float32), "w": np.ones(3, np.float32)}, path)
    document = examined(invoke, path)
    assert document["tensors"] == 1
    assert document["left_out"] == dict.fromkeys(("", "n" * 256), "a name that a .dcf file cannot hold")
