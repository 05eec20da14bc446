"""`dcformat diff` reports what two files have in common, and what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dcformat
from dcformat.graph import Graph, Linear, ReLU
from dcformat.model import Model
from tests.cli.support import Invoke, refused


def saved(path: Path, graph: Graph | None = None, **arrays: Any) -> Path:
    tensors = {name: dcformat.from_dense(name, array, array.dtype.name) for name, array in arrays.items()}
    dcformat.save(Model(tensors, graph), path)
    return path


def array(values: Any) -> Any:
    return np.array(values, np.float32)


def document(invoke: Invoke, *files: Path) -> dict[str, Any]:
    result = invoke("diff", *files, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert list(found) == [
        "schema", "files", "bytes", "identical", "added", "removed", "changed", "unchanged", "network", "labels",
        "metadata", "outputs",
    ]  # fmt: skip
    return found


def test_equal_contents(invoke: Invoke, dcf: Path) -> None:
    found = document(invoke, dcf, dcf)
    assert (found["identical"], found["changed"], found["unchanged"], found["network"]) == (True, [], 6, "same")
    assert found["outputs"] == [{"name": "output", "difference": 0, "largest": found["outputs"][0]["largest"]}]
    assert invoke("diff", dcf, dcf).stdout.splitlines()[-1] == "the contents are identical"


def test_tensors(invoke: Invoke, tmp_path: Path) -> None:
    same = np.arange(6, dtype=np.float32)
    a = saved(tmp_path / "a.dcf", same=same, gone=same, w=array([[1, 0, -2], [0, 0, 4]]), kind=same)
    b = saved(tmp_path / "b.dcf", same=same, new=same, w=array([[1, 0, -2.5], [3, 0, 0]]), kind=same.astype(np.float64))
    found = document(invoke, a, b)
    assert (found["added"], found["removed"], found["unchanged"]) == (["new"], ["gone"], 1)
    assert found["changed"] == [
        {"name": "w", "shape": None, "dtype": None, "elements": 3, "mask": 2, "largest": 4.0, "codebook": [0, 0]},
        {
            "name": "kind", "shape": [[6], [6]], "dtype": ["float32", "float64"], "elements": None, "mask": None,
            "largest": None, "codebook": [0, 0],
        },
    ]  # fmt: skip
    assert (found["network"], found["outputs"]) == ("none", None)
    lines = invoke("diff", a, b).stdout.splitlines()
    assert lines[1:3] == ["added: new", "removed: gone"]
    assert any(line.split() == ["w", "3", "2", "4", "0"] for line in lines)
    assert any("float32 6 -> float64 6" in line for line in lines)
    assert lines[-2:] == ["unchanged: 1 tensor", "network: none"]


@pytest.mark.parametrize("dtype", ["float16", "int8", "bool", "uint64", "complex64"])
def test_a_difference_in_any_dtype(invoke: Invoke, tmp_path: Path, dtype: str) -> None:
    one, two = np.array([1, 0, 1], dtype), np.array([1, 1, 1], dtype)
    found = document(invoke, saved(tmp_path / "a.dcf", w=one), saved(tmp_path / "b.dcf", w=two))
    (changed,) = found["changed"]
    assert (changed["elements"], changed["mask"], changed["largest"]) == (1, 1, 0 if dtype == "bool" else 1)


def test_networks_and_outputs(invoke: Invoke, tmp_path: Path) -> None:
    linear, longer = (
        Graph.sequential((2,), (Linear((0,), "w"),)),
        Graph.sequential((2,), (Linear((0,), "w"), ReLU((1,)))),
    )
    weight = array([[1, 2], [3, 4]])
    a, b = saved(tmp_path / "a.dcf", linear, w=weight), saved(tmp_path / "b.dcf", longer, w=weight)
    c, d = saved(tmp_path / "c.dcf", linear, w=2 * weight), saved(tmp_path / "d.dcf", w=weight)
    assert document(invoke, a, b)["network"] == "changed"
    found = document(invoke, a, c)
    assert found["network"] == "same"
    (output,) = found["outputs"]
    assert output["difference"] == pytest.approx(output["largest"])
    assert output["largest"] > 0
    assert [document(invoke, *pair)["network"] for pair in ((a, d), (d, a))] == ["removed", "added"]
    assert document(invoke, a, d)["outputs"] is None
    assert "output output: largest difference " in invoke("diff", a, c).stdout


def test_stdin_twice(invoke: Invoke, dcf: Path) -> None:
    refused(invoke("diff", "-", "-", stdin=dcf.read_bytes()), "expected two files, found stdin twice", code=2)
    assert invoke("diff", dcf, "-", stdin=dcf.read_bytes()).stdout.endswith("the contents are identical\n")


def test_a_damaged_file(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    (tmp_path / "bad.dcf").write_bytes(dcf.read_bytes()[:-1])
    refused(invoke("diff", dcf, tmp_path / "bad.dcf"), f"{tmp_path / 'bad.dcf'}: truncated")
    refused(invoke("diff", dcf, tmp_path / "no.dcf"), "no such file")
