"""Repositories in the cache of Hugging Face, by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import dcformat
from dcformat.graph import Graph, Linear
from tests.cli.documents import valid
from tests.cli.support import PACK, Invoke, refused

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the files of the repository org/name."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "cache" / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_a_packed_model(invoke: Invoke, folder: Path, dcf: Path, data: Path, tmp_path: Path) -> None:
    refused(invoke("inspect", "org/name"), "org/name: expected model.dcf, or a single .dcf file, found none")
    (folder / "model.dcf").write_bytes(dcf.read_bytes())
    assert valid("inspect", invoke("inspect", "org/name", "--json").stdout)["size"] == dcf.stat().st_size
    assert valid("run", invoke("run", "org/name", "--data", data, "--json").stdout)["file"] == "org/name"
    for arguments in (("verify", "org/name"), ("diff", "org/name", dcf), ("unpack", "org/name", "-o", "a.npz"),
                      ("repack", "org/name", "-o", "a.dcf", "--mode", "fast")):  # fmt: skip
        assert invoke(*arguments).exit_code == 0, arguments


def test_a_checkpoint(invoke: Invoke, folder: Path) -> None:
    save_file({"w": np.eye(30, dtype=np.float32)}, folder / "model.safetensors")
    assert invoke(*PACK, "org/name", "-o", "a.dcf").exit_code == 0
    document = valid("doctor", invoke("doctor", "org/name", "--json").stdout)
    assert (document["tensors"], document["bytes"]) == (1, (folder / "model.safetensors").stat().st_size)


def test_a_model_of_another_kind(invoke: Invoke, folder: Path, dcf: Path, tmp_path: Path) -> None:
    (folder / "onnx").mkdir()
    for name in ("config.json", "onnx/decoder.dcf"):
        (folder / name).write_bytes(dcf.read_bytes())
    assert valid("doctor", invoke("doctor", "org/name", "--json").stdout)["bytes"] == dcf.stat().st_size
    (folder / "onnx" / "encoder.dcf").write_bytes(b"x")
    assert (
        refused(invoke("pack", "org/name", "-o", "a.dcf"), "org/name: expected one model in ")
        .strip()
        .endswith("found onnx/decoder.dcf, onnx/encoder.dcf: give the path of one")
    )
    np.savez(folder / "pytorch_model.npz", w=np.eye(30, dtype=np.float32))
    assert invoke(*PACK, "org/name", "-o", "a.dcf").exit_code == 0
    assert dcformat.load(tmp_path / "a.dcf").tensors["w"].shape == (30, 30)


def test_a_network_to_compress(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    save_file({"w": np.eye(30, dtype=np.float32)}, folder / "model.safetensors")
    arguments = ("compress", "org/name", "-o", "a.dcf", "--bits", 12, "--mode", "fast")
    refused(invoke(*arguments), "(.dcf, .onnx, .tflite, .pt2), found none")
    tensors = {"w": dcformat.from_dense("w", np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32))}
    dcformat.save(dcformat.Model(tensors, Graph.sequential((8,), (Linear((0,), "w"),))), folder / "some.dcf")
    document = valid("compress", invoke(*arguments, "--json").stdout)
    assert (document["file"], document["bytes"]) == ("org/name", (tmp_path / "a.dcf").stat().st_size)


@pytest.mark.usefixtures("folder")
def test_names_of_none(invoke: Invoke, tmp_path: Path) -> None:
    refused(invoke("inspect", "org/other"), "org/other: no such file or directory")
    (tmp_path / "org").mkdir()
    refused(invoke("inspect", "org/name"), "org/name: no such file or directory")
    refused(invoke("pack", "org/name", "-o", "a.dcf"), "org/name: no such file or directory")
