"""The keys of every JSON document, written out: programs rely on them, and docs/json.md names them all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_cli.verbs import warmup_command

import dcformat
from tests.cli.support import Invoke

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text("utf-8")
NAMED = set(re.findall(r"[\"`](\w+)[\"`]", TEXT))
FIGURES = ["size", "parameters", "float32_bytes", "ratio", "tensors", "ledger"]
TENSOR = {
    "name", "shape", "dtype", "form", "weights", "stored", "density", "codebook", "coder", "bits_per_weight",
    "bits_per_index", "table_bytes", "bytes",
}  # fmt: skip


def keys(text: str, *expected: str) -> dict[str, Any]:
    """Parse a document, compare its keys with those expected, in order after the schema, and return it."""
    document: dict[str, Any] = json.loads(text)
    assert list(document) == ["schema", *expected]
    assert document["schema"] == 1
    assert set(document) <= NAMED
    assert text.isascii()
    return document


def each(rows: list[dict[str, Any]], expected: set[str]) -> None:
    assert rows
    for row in rows:
        assert set(row) == expected
    assert expected <= NAMED


def test_inspect(invoke: Invoke, dcf: Path) -> None:
    document = keys(
        invoke("inspect", dcf, "--memory", "--json").stdout, "file", "version", "digest", *FIGURES, "network", "labels",
        "metadata", "self_test", "delta", "extensions", "memory",
    )  # fmt: skip
    each(document["tensors"], TENSOR)
    each(document["ledger"], {"what", "bytes"})
    each(document["memory"], {"what", "bytes"})
    each([document["network"]], {"input_shape", "inputs", "outputs", "preprocessing", "nodes"})
    each(document["network"]["inputs"], {"name", "shape", "dtype", "batch_axis"})
    each(document["network"]["outputs"], {"name", "value", "shape", "dtype", "batch_axis"})
    each([document["network"]["preprocessing"]], {"mean", "std"})
    each(document["network"]["nodes"], {"kind", "inputs", "tensors"})


def test_pack_and_unpack(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.dcf"
    arguments = ["pack", npz, "-o", packed, "--architecture", "lenet-300-100", "--self-test", "2", "--json"]
    each(keys(invoke(*arguments).stdout, "file", "mode", "left_out", *FIGURES)["tensors"], TENSOR)
    inspected = json.loads(invoke("inspect", packed, "--json").stdout)
    each([inspected["self_test"]], {"seed", "samples"})
    result = invoke("unpack", packed, "-o", tmp_path / "b.npz", "--json")
    document = keys(result.stdout, "file", "output", "format", "tensors")
    assert (document["output"], document["format"]) == (str(tmp_path / "b.npz"), "npz")
    each(document["tensors"], {"name", "shape", "dtype"})
    assert document["tensors"][0] == {"name": "fc1.weight", "shape": [300, 784], "dtype": "float32"}


def test_verify(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.dcf"
    bad.write_bytes(dcf.read_bytes()[:-1])
    result = invoke("verify", dcf, bad, dcf, "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    files = keys(result.stdout, "files")["files"]
    each(files, {"file", "good", "bytes", "tensors", "digest", "self_test_inputs", "error"})
    with dcformat.open(dcf) as content:
        digest = content.digest.hex()
    assert files[0] == files[2] == {
        "file": str(dcf), "good": True, "bytes": dcf.stat().st_size, "tensors": 6, "digest": digest,
        "self_test_inputs": None, "error": None,
    }  # fmt: skip
    assert (files[1]["good"], files[1]["bytes"]) == (False, None)
    assert files[1]["error"].startswith(f"{bad}: truncated: ")


def test_verify_in_lines(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no.dcf"
    result = invoke("verify", dcf, missing, dcf)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{dcf}: good: ") for line in lines)
    assert result.stderr.splitlines() == [f"dcformat: {missing}: no such file or directory"]
    assert invoke("verify", dcf, dcf).exit_code == 0


def test_run(invoke: Invoke, dcf: Path, data: Path, npz: Path, tmp_path: Path) -> None:
    keys(invoke("run", dcf, "--data", data, "--json").stdout, "file", "images", "correct", "accuracy")
    np.save(tmp_path / "x.npy", np.zeros((2, 784), np.float32))
    keys(invoke("run", dcf, "--input", tmp_path / "x.npy", "--json").stdout, "file", "images", "classes", "outputs")
    arguments = ["run", dcf, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--json"]
    document = keys(invoke(*arguments).stdout, "file", "images", "output", "shape", "outputs")
    each(document["outputs"], {"name", "shape", "dtype", "min", "max", "mean"})
    labelled = tmp_path / "b.dcf"
    invoke("pack", npz, "-o", labelled, "--architecture", "lenet-300-100", "--labels", ",".join("abcdefghij"))
    result = invoke("run", labelled, "--input", tmp_path / "x.npy", "--json")
    keys(result.stdout, "file", "images", "classes", "labels", "outputs")


@pytest.mark.needs_compiler
def test_bench(invoke: Invoke, dcf: Path) -> None:
    result = invoke("bench", "-", "--batch", "1", "--rounds", "1", "--peer", "torch", "--json", stdin=dcf.read_bytes())
    document = keys(result.stdout, "file", "machine", "rounds", "threads")
    assert document["file"] == "-"
    each([document["machine"]], {"processor", "cores", "vectors", "system", "python"})
    each(document["threads"], {"threads", "missing", "results"})
    each(document["threads"][0]["results"], {"batch", "runtimes"})
    each(list(document["threads"][0]["results"][0]["runtimes"].values()), {"median_us", "p99_us", "calls", "error"})


def test_warmup(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup_command, "all_kernels", lambda: ())
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path))
    keys(invoke("warmup", "--json").stdout, "folder", "bytes", "kernels", "compiled", "unsaved", "seconds")
    keys(invoke("warmup", "--list", "--json").stdout, "folder", "bytes", "kernels")
    keys(invoke("warmup", "--clear", "--json").stdout, "folder", "removed_bytes")
    arguments = ["warmup", "--target", "aarch64", "--into", tmp_path / "to", "--json"]
    keys(invoke(*arguments).stdout, "folder", "bytes", "kernels", "target")


def test_compress(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    arguments = ["compress", "lenet-300-100", "--recipe", "classic", "--epochs", "3", "--device", "cpu", "--data", data]
    result = invoke(*arguments, "-o", tmp_path / "a.dcf", "--json")
    document = keys(
        result.stdout, "file", "architecture", "recipe", "seed", "mode", "accuracy", "images", "stages", *FIGURES
    )
    each(document["stages"], {"stage", "accuracy", "weights", "seconds"})


def test_compress_to_stdout(invoke: Invoke, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["compress", "lenet-300-100", "--recipe", "classic", "--epochs", "3", "--device", "cpu", "--data", data]
    result = invoke(*arguments, "-o", "-")
    assert len(dcformat.load(result.stdout_bytes).tensors) == 6
    assert result.stderr.splitlines()[-1].startswith("stdout: run from the packed file, ")
    assert list(tmp_path.iterdir()) == []
