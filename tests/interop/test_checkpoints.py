"""Users' checkpoints: how their kind is recognised, and which entries are converted, left out or refused."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcformat_interop import Checkpoint, UnfitError, read_checkpoint
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from tests.cli.support import save_npz

WEIGHT = np.array([[0.0, 1.5], [-0.0, -2.0]], np.float32)


def texts(read: Checkpoint, *, warning: bool = False) -> list[str]:
    return [note.text for note in read.notes if note.warning is warning]


def save_three(folder: Path, suffixes: tuple[str, str, str] = ("safetensors", "npz", "pt")) -> list[Path]:
    paths = [folder / f"a.{suffix}" for suffix in suffixes]
    save_file({"w": WEIGHT}, paths[0])
    with paths[1].open("wb") as file:
        np.savez(file, w=WEIGHT)
    torch.save({"w": torch.from_numpy(WEIGHT)}, paths[2])
    return paths


@pytest.mark.parametrize(
    "suffixes",
    [("safetensors", "npz", "pt"), ("bin", "ckpt", "pth.tar"), ("model", "h5", "onnx"), ("pt", "safetensors", "npz")],
)
def test_every_form_gives_the_same_values_under_any_name(tmp_path: Path, suffixes: tuple[str, str, str]) -> None:
    for path in save_three(tmp_path, suffixes):
        read = read_checkpoint(path)
        (dense,) = read.tensors.values()
        assert dense.dtype == "float32"
        assert dense.values.tobytes() == WEIGHT.tobytes()
        assert (read.path, read.notes, read.left_out, read.metadata) == (str(path), [], {}, {})


def test_a_file_object_and_a_pipe(tmp_path: Path) -> None:
    for path in save_three(tmp_path):
        whole = path.read_bytes()
        assert read_checkpoint(io.BytesIO(whole)).tensors["w"].values.tobytes() == WEIGHT.tobytes()
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(whole,))
        writer.start()
        assert read_checkpoint(tmp_path / "pipe").tensors["w"].values.tobytes() == WEIGHT.tobytes()
        writer.join()
        (tmp_path / "pipe").unlink()


def test_half_precisions_and_int8_keep_their_bits(tmp_path: Path) -> None:
    half = torch.tensor([1.0, -0.3], dtype=torch.float16)
    brain = torch.tensor([[1.0, 3.14]], dtype=torch.bfloat16)
    small = torch.tensor([-128, 127], dtype=torch.int8)
    state = {"half": half, "brain": brain, "small": small}
    torch.save(state, tmp_path / "a.pt")
    save_torch(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        read = read_checkpoint(tmp_path / name).tensors
        assert {key: dense.dtype for key, dense in read.items()} == {
            "half": "float16", "brain": "bfloat16", "small": "int8",
        }  # fmt: skip
        assert read["half"].values.tobytes() == half.numpy().tobytes()
        assert read["brain"].values.tobytes() == brain.view(torch.int16).numpy().tobytes()
        assert read["brain"].values.shape == (1, 2)
        assert read["small"].values.tobytes() == small.numpy().tobytes()


def test_doubles_become_singles_only_on_request_and_where_that_is_exact(tmp_path: Path) -> None:
    np.savez(tmp_path / "exact.npz", w=np.array([0.5, -2.0]), v=np.array([[-0.0]]), u=np.ones(1, np.float32))
    for single, dtype, done in ((False, "float64", "kept, although"), (True, "float32", "stored as float32, which")):
        read = read_checkpoint(tmp_path / "exact.npz", single=single)
        found = [(dense.dtype, dense.values.dtype.name) for dense in read.tensors.values()]
        assert found == [(dtype, dtype), (dtype, dtype), ("float32", "float32")]
        assert np.signbit(read.tensors["v"].values)
        many = "float32 " * (not single)
        assert texts(read) == [f"float64 {done} {many}holds the values exactly: 2 entries: w, v"]
    for value in (0.1, 1e300, 1e-50):
        np.savez(tmp_path / "not.npz", w=np.array([value]), u=WEIGHT)
        read = read_checkpoint(tmp_path / "not.npz", single=True)
        kept = read.tensors["w"]
        assert (kept.dtype, kept.values.tolist(), texts(read)) == ("float64", [value], [])


ODD: dict[str, Any] = {
    "int64": np.arange(3), "bool": np.ones(2, bool), "uint8": np.ones((), np.uint8), "complex64": np.ones(2, "c8"),
    "int16": np.ones(2, "i2"), "uint32": np.ones(2, "u4"),
}  # fmt: skip


@pytest.mark.parametrize("form", ["npz", "safetensors", "pt"])
def test_entries_of_every_dtype_are_kept(tmp_path: Path, form: str) -> None:
    state = {"w": WEIGHT, **{f"odd.{dtype}": values for dtype, values in ODD.items()}}
    path = tmp_path / f"a.{form}"
    if form == "npz":
        save_npz(path, state)
    elif form == "safetensors":
        save_file(state, path)
    else:
        torch.save({name: torch.from_numpy(np.asarray(values)) for name, values in state.items()}, path)
    read = read_checkpoint(path)
    assert {name: dense.dtype for name, dense in read.tensors.items()} == {
        "w": "float32", **{f"odd.{dtype}": dtype for dtype in ODD}
    }  # fmt: skip
    for dtype, values in ODD.items():
        assert read.tensors[f"odd.{dtype}"].values.tobytes() == values.tobytes()
    assert not texts(read) and not read.left_out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_values_that_are_not_finite_are_kept_with_a_warning(tmp_path: Path, value: float, dtype: Any) -> None:
    np.savez(tmp_path / "a.npz", w=WEIGHT, x=np.array([1, value, value], dtype), y=np.array(value, dtype))
    read = read_checkpoint(tmp_path / "a.npz")
    assert np.array_equal(read.tensors["x"].values, np.array([1, value, value], dtype), equal_nan=True)
    assert texts(read, warning=True) == [
        "kept, but NaN or infinite in some places: 2 entries: x (2 places), y (1 place)"
    ]


def test_a_checkpoint_of_nothing_else_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, dtype=torch.complex128)}, tmp_path / "a.pt")
    message = r"a\.pt: expected at least one tensor of .*w \(complex128\) left out"
    with pytest.raises(UnfitError, match=message):
        read_checkpoint(tmp_path / "a.pt")


def test_skipping(tmp_path: Path) -> None:
    for path in save_three(tmp_path):
        with pytest.raises(
            UnfitError, match=rf"{path.name}: expected an entry to skip that is called 'x\*', found none"
        ):
            read_checkpoint(path, skip=["x*"])
        with pytest.raises(UnfitError, match=r"found none: 1 entry: w \(skipped as asked\) left out"):
            read_checkpoint(path, skip=["w"])
    state = {"a.weight": WEIGHT, "a.bias": WEIGHT, "b[0]": WEIGHT, "b1": WEIGHT}
    save_npz(tmp_path / "b.npz", state)
    read = read_checkpoint(tmp_path / "b.npz", skip=["a.*", "b[0]"])
    assert list(read.tensors) == ["b1"]
    assert dict(read.left_out) == dict.fromkeys(("a.weight", "a.bias", "b[0]"), "skipped as asked")
    assert texts(read) == ["left out as asked: 3 entries: a.weight, a.bias, b[0]"]


def test_memory_is_counted_before_it_is_taken(tmp_path: Path) -> None:
    message = "expected a checkpoint that takes at most 15 bytes of memory"
    for path in save_three(tmp_path):
        with pytest.raises(UnfitError, match=rf"{path.name}: .*{message}"):
            read_checkpoint(path, max_memory=15)
        assert read_checkpoint(path, max_memory=None).tensors.keys() == {"w"}
    assert read_checkpoint(tmp_path / "a.npz", max_memory=16).tensors.keys() == {"w"}
    np.savez(tmp_path / "two.npz", w=WEIGHT, big=np.zeros(1000, np.float32))
    assert read_checkpoint(tmp_path / "two.npz", skip=["big"], max_memory=16).tensors.keys() == {"w"}
    np.savez(tmp_path / "double.npz", w=np.ones(4))
    with pytest.raises(UnfitError, match=r"double\.npz: w: .*found one that takes 48 or more"):
        read_checkpoint(tmp_path / "double.npz", single=True, max_memory=47)


def test_a_key_for_a_file_without_mappings(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=WEIGHT)
    with pytest.raises(UnfitError, match=r"a\.npz: expected a PyTorch file, .*found npz"):
        read_checkpoint(tmp_path / "a.npz", key="model")


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(40), bytes(64)])
def test_other_bytes_under_a_checkpoint_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnfitError, match=rf"{name}: not a checkpoint \("):
        read_checkpoint(tmp_path / name)


def test_a_checkpoint_cut_short(tmp_path: Path) -> None:
    for path in save_three(tmp_path):
        whole = path.read_bytes()
        for length in (len(whole) - 1, len(whole) // 2, 9):
            path.write_bytes(whole[:length])
            with pytest.raises(UnfitError, match=path.name):
                read_checkpoint(path)


@pytest.mark.parametrize("form", ["npz", "pt"])
def test_no_flipped_bit_of_an_archive_changes_a_value(tmp_path: Path, form: str) -> None:
    paths = save_three(tmp_path)
    whole = next(path for path in paths if path.suffix == f".{form}").read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        try:
            read = read_checkpoint(io.BytesIO(bytes(damaged)))
        except UnfitError:
            refused += 1
        else:
            assert {name: dense.values.tobytes() for name, dense in read.tensors.items()} == {"w": WEIGHT.tobytes()}
    assert refused > 50


def test_a_missing_file_and_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "a.npz")
    with pytest.raises(UnfitError, match=r"expected a directory with safetensors files or .*, found an empty one$"):
        read_checkpoint(tmp_path)


def test_an_error_says_where_and_what() -> None:
    error = UnfitError("f", "one", "two", "what")
    assert str(error) == "f: what: expected one, found two"
    assert (error.path, error.expected, error.found, error.what) == ("f", "one", "two", "what")
    assert len(str(UnfitError("f", "one", "x" * 10_000))) == 326
