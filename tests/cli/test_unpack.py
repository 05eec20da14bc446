"""`dcformat unpack` returns the same names and bits, and refuses to write anything with another meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file as save_torch

import dcformat
from dcformat.model import Model, Tensor
from tests.cli.support import PACK, Invoke, State, refused, save_npz


def test_unpack_to_npz(invoke: Invoke, tmp_path: Path, dcf: Path, state: State) -> None:
    out, again = tmp_path / "a.npz", tmp_path / "b.npz"
    assert invoke("unpack", dcf, "-o", out).exit_code == 0
    assert invoke("unpack", "-", "-o", again, stdin=dcf.read_bytes()).exit_code == 0
    assert again.read_bytes() == out.read_bytes()
    with np.load(out) as archive:
        assert archive.files == list(state)
        assert all(archive[name].tobytes() == state[name].tobytes() for name in state)


def test_the_scale_of_int8_survives_there_and_back(invoke: Invoke, tmp_path: Path) -> None:
    codes = np.array([[1, 0, 0, -3]], np.int8)
    tensor = Tensor("q", (1, 4), "int8", codes.reshape(-1), scale=0.125)
    dcformat.save(Model({"q": tensor}), tmp_path / "a.dcf")
    assert invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.safetensors").exit_code == 0
    assert load_file(tmp_path / "a.safetensors")["q"].tolist() == codes.tolist()
    assert invoke(*PACK, tmp_path / "a.safetensors", "-o", tmp_path / "b.dcf").exit_code == 0
    assert dcformat.load(tmp_path / "b.dcf").tensors["q"].scale == 0.125
    refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.npz"), "int8 with a scale")


@pytest.mark.parametrize("suffix", ["", ".pt", ".onnx"])
def test_unpack_to_something_else(invoke: Invoke, tmp_path: Path, dcf: Path, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    refused(invoke("unpack", dcf, "-o", out), "ending in .safetensors or .npz", code=2)


def test_unpack_leaves_the_old_file_when_the_packed_one_is_damaged(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    raw = bytearray(dcf.read_bytes())
    raw[len(raw) // 2] ^= 16
    (tmp_path / "bad.dcf").write_bytes(raw)
    for name in ("out.safetensors", "out.npz"):
        (tmp_path / name).write_bytes(b"precious")
        refused(invoke("unpack", tmp_path / "bad.dcf", "-f", "-o", tmp_path / name), "bad.dcf: damaged: ", "[E05]")
        assert (tmp_path / name).read_bytes() == b"precious"


def test_a_name_that_is_safetensors_metadata(invoke: Invoke, tmp_path: Path) -> None:
    tensor = Tensor("__metadata__", (2,), "float32", np.ones(2, "<f4") * np.arange(1, 3, dtype="<f4"))
    dcformat.save(Model({"__metadata__": tensor}), tmp_path / "a.dcf")
    refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.safetensors"), "'__metadata__'")


def test_metadata_of_safetensors_comes_back(invoke: Invoke, tmp_path: Path) -> None:
    state = {"b": torch.ones(3, dtype=torch.int8), "a": torch.randn(2, 2), "c": torch.ones(1, dtype=torch.bfloat16)}
    save_torch(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert invoke(*PACK, tmp_path / "a.safetensors", "-o", tmp_path / "a.dcf", "--metadata", "author=me").exit_code == 0
    assert dict(dcformat.load(tmp_path / "a.dcf").metadata) == {"author": "me", "safetensors.format": "pt"}
    assert invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "b.safetensors").exit_code == 0
    # The same names, dtypes, shapes, bits, order and metadata give the same file.
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", "C:x", "a\\b", "a\nb", ".."])
def test_names_that_leave_a_zip_archive(invoke: Invoke, tmp_path: Path, name: str) -> None:
    tensor = Tensor(name, (2,), "float32", np.array([1, 2], "<f4"))
    dcformat.save(Model({name: tensor}), tmp_path / "a.dcf")
    refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.npz"), "a.npz: expected names that a zip archive")
    assert invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.safetensors").exit_code == 0
    assert list(load_file(tmp_path / "a.safetensors")) == [name]


def test_names_that_numpy_takes_for_one(invoke: Invoke, tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz", {"w": np.ones(2, np.float32), "w.npy": np.full(3, 2, np.float32), "x/y:0": np.ones(1)})
    assert invoke(*PACK, tmp_path / "a.npz", "-o", tmp_path / "a.dcf").exit_code == 0
    tensors = dcformat.load(tmp_path / "a.dcf").tensors
    assert {name: tensor.to_dense().tolist() for name, tensor in tensors.items()} == {
        "w": [1, 1], "w.npy": [2, 2, 2], "x/y:0": [1],
    }  # fmt: skip
    refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "b.npz"), "'w' and 'w.npy'", "use .safetensors")
    assert invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "b.safetensors").exit_code == 0
    assert set(load_file(tmp_path / "b.safetensors")) == {"w", "w.npy", "x/y:0"}
