"""Files that training scripts wrote with torch.save: tensors are read exactly, left out by name, or refused."""

from __future__ import annotations

import argparse
import io
import pickle
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcformat_interop import MissingTorchError, UnfitError, read_checkpoint

W = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
ADAM = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": W, "exp_avg_sq": W}}, "param_groups": [{"lr": 0.1}]}


class Config(argparse.Namespace):
    """A class that a reader does not know."""


class Evil:
    """An object that would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def read(path: Path, state: Any, **options: Any) -> dict[str, list[Any]]:
    torch.save(state, path)
    return {name: dense.values.tolist() for name, dense in read_checkpoint(path, **options).tensors.items()}


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"state_dict": {"w": W}, "epoch": 3, "best_acc1": torch.tensor(0.5), "optimizer": ADAM}, "state_dict"),
        ({"step": 3, "model_state": {"w": W}}, "model_state"),
        ({"model": {"state_dict": OrderedDict(w=W)}}, "model.state_dict"),
        ({"generator": {"w": W}, "optim_g": {"w": W}}, "generator"),
        ({"params": {"w": W}, "rng": torch.zeros(5056, dtype=torch.uint8), "loss": torch.tensor(1.0)}, "params"),
        ({"net": {"w": W}, "losses": {"train": torch.tensor(1.0)}}, "net"),
        ({"a": {"b": {"c": {"w": W}}}}, "a.b.c"),
        (
            {
                "state_dict": {"w": W}, "optimizer_states": [ADAM], "hyper_parameters": Config(lr=1, size=[1, 2]),
                "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}}, "global_step": 5,
            },
            "state_dict",
        ),
        ({"trainer": ADAM, "weights": {"w": W}}, "weights"),
    ],
)  # fmt: skip
def test_the_one_mapping_of_tensors_is_found(tmp_path: Path, state: Mapping[str, Any], place: str) -> None:
    assert read(tmp_path / "a.pt", state) == {"w": W.tolist()}
    (note,) = read_checkpoint(tmp_path / "a.pt").notes
    others = ", ".join(repr(name) for name in state if name != place.partition(".")[0])
    assert note.text == f"the state_dict was found under {place!r}" + (f"; left out: {others}" if others else "")


def test_several_mappings_need_a_key(tmp_path: Path) -> None:
    state = {"model": {"state_dict": {"w": W}}, "ema": {"w": W + 1}, "epoch": 3}
    with pytest.raises(UnfitError, match=r"a\.pt: expected one mapping .*--key.*, found model\.state_dict, ema$"):
        read(tmp_path / "a.pt", state)
    assert read(tmp_path / "a.pt", state, key="ema") == {"w": (W + 1).tolist()}
    assert read(tmp_path / "a.pt", state, key="model.state_dict") == {"w": W.tolist()}
    with pytest.raises(UnfitError, match=r"a\.pt: expected the key 'emma', found \., model, model\.state_dict, ema$"):
        read(tmp_path / "a.pt", state, key="emma")
    with pytest.raises(UnfitError, match=r"found a, b, c, d, e, f, g, h and 12 more"):
        read(tmp_path / "a.pt", {name: {"w": W} for name in "abcdefghijklmnopqrst"})


def test_the_outermost_mapping_may_be_meant(tmp_path: Path) -> None:
    state = {"w": W, "old": {"w": W + 1}}
    with pytest.raises(UnfitError, match=r"found \., old$"):
        read(tmp_path / "a.pt", state)
    assert read(tmp_path / "a.pt", state, key=".") == {"w": W.tolist()}


def test_a_mapping_within_itself(tmp_path: Path) -> None:
    state: dict[str, Any] = {"w": W}
    state["me"] = state
    assert read(tmp_path / "a.pt", state) == {"w": W.tolist()}


def test_entries_that_are_not_tensors_are_left_out(tmp_path: Path) -> None:
    state = {
        "w": W, "n": 3, "x": 0.5, "none": None, "text": "x", "scalar": np.float64(0.5), "array": np.ones(3),
        "config": Config(), "layer._extra_state": {"amax": torch.ones(3, 3)}, "io._extra_state": io.BytesIO(b"x"),
        "f8": torch.ones(2).to(torch.float8_e5m2), "c": torch.ones(2, dtype=torch.complex64).conj(),
        "bits": torch.ones(2, dtype=torch.uint8).view(torch.bits8),
    }  # fmt: skip
    assert read(tmp_path / "a.pt", state) == {"w": W.tolist(), "f8": [60, 60], "c": [1, 1]}
    assert dict(read_checkpoint(tmp_path / "a.pt").left_out) == {
        "n": "int", "x": "float", "none": "None", "text": "str", "scalar": "a NumPy object", "array": "a NumPy object",
        "config": f"{Config.__module__}.Config", "layer._extra_state": "dict", "io._extra_state": "_io.BytesIO",
        "bits": "bits8",
    }  # fmt: skip


def test_batch_norm_counters_are_kept(tmp_path: Path) -> None:
    names = read(tmp_path / "a.pt", torch.nn.BatchNorm1d(2).state_dict())
    assert set(names) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize(("first", "second"), [(0, "0"), ("0", 0)])
def test_keys_of_one_name(tmp_path: Path, first: object, second: object) -> None:
    message = rf"a\.pt: 0: expected one tensor of each name, found the keys {first!r} and {second!r}"
    with pytest.raises(UnfitError, match=message):
        read(tmp_path / "a.pt", {first: W, second: W + 1})


def test_keys_that_are_not_names(tmp_path: Path) -> None:
    assert read(tmp_path / "a.pt", {0: W, 1: W}) == {"0": W.tolist(), "1": W.tolist()}
    for key in ((1, 2), None, 1.0, True, b"w"):
        with pytest.raises(UnfitError, match=r"a\.pt: expected text or integers as names"):
            read(tmp_path / "a.pt", {key: W})


def test_views_give_their_own_elements(tmp_path: Path) -> None:
    state = {
        "turned": W.T, "part": torch.arange(10.0)[2:9:3], "wide": torch.ones(1).expand(2, 3),
        "grad": torch.nn.Parameter(W), "negative": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        "empty": torch.ones(0, 3), "scalar": torch.tensor(2.0),
    }  # fmt: skip
    assert state["negative"].is_neg()
    assert read(tmp_path / "a.pt", state) == {
        "turned": [[1, 0.5], [-2, 3]], "part": [2, 5, 8], "wide": [[1, 1, 1], [1, 1, 1]], "grad": W.tolist(),
        "negative": [-2, 4], "empty": [], "scalar": 2,
    }  # fmt: skip


def test_a_view_that_is_larger_than_its_file(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match=r"a\.pt: w: expected a checkpoint that takes at most 4,294,967,296 bytes"):
        read(tmp_path / "a.pt", {"w": torch.ones(1).expand(1 << 20, 1 << 20)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: W.to_sparse(), "a sparse one"),
        (lambda: W.to_sparse_csr(), "a sparse one"),
        (lambda: torch.ones(2, 2, device="meta"), r"one without data \(meta\)"),
        (lambda: torch.quantize_per_tensor(W, 0.1, 0, torch.qint8), "a quantized one"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested one"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "a NestedTensor"),
        (lambda: torch.masked.masked_tensor(W, W > 0), "a .*(M|m)asked"),
    ],
)
def test_tensors_without_plain_elements(tmp_path: Path, make: Any, found: str) -> None:
    state = {"v": W, "w": make()}
    with pytest.raises(UnfitError, match=rf"a\.pt: (w: )?expected .*, found .*({found}|other objects).*"):
        read(tmp_path / "a.pt", state)


def test_a_sparse_tensor_may_be_skipped(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(tmp_path / "a.pt", {"v": W, "w": W.to_sparse()}, skip=["w"]) == {"v": W.tolist()}


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (W, "a Tensor"), ([W], "a list"), ({}, "an empty mapping"), ({"epoch": 3}, "epoch: an int"),
        (torch.nn.Linear(2, 2), "a Linear"), ({"a": {"b": [W]}}, "a: a dict"),
        ({"epoch": 1, "model": torch.nn.Linear(2, 2)}, "epoch: an int, model: a Linear"),
    ],
)  # fmt: skip
def test_files_without_a_mapping_of_tensors(tmp_path: Path, state: Any, found: str) -> None:
    with pytest.raises(UnfitError, match=rf"a\.pt: expected a mapping of names to tensors .*, found {found}$"):
        read(tmp_path / "a.pt", state)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"w": Evil(marker)}, tmp_path / "a.pt")
    torch.save({"w": Evil(marker), "v": W}, tmp_path / "mixed.pt")
    torch.save({"w": Evil(marker)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil(marker)))
    np.savez(tmp_path / "c.npz", w=np.array([Evil(marker)], object))
    for name in ("a.pt", "mixed.pt", "old.pt", "b.pt", "c.npz"):
        with pytest.raises(UnfitError, match=name) as caught:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(caught.value)
    assert not marker.exists()


def test_the_old_format(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "net": {"w": W}}, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "a.bin").tensors["w"].values.tolist() == W.tolist()
    whole = (tmp_path / "a.bin").read_bytes()
    for length in range(40, len(whole), 50):
        with pytest.raises(UnfitError, match="expected a state_dict saved by torch"):
            read_checkpoint(io.BytesIO(whole[:length]))


def test_an_archive_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        assert read(tmp_path / "a.pt", {"w": W}) == {"w": W.tolist()}
    finally:
        torch.serialization.set_crc32_options(True)


def test_a_member_that_claims_much_is_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
    with pytest.raises(UnfitError, match=r"a\.pt: .*at most 1,000,000 bytes of memory .*takes 1,048,576"):
        read_checkpoint(tmp_path / "a.pt", max_memory=1_000_000)


def test_a_member_that_is_a_folder(tmp_path: Path) -> None:
    torch.save({"w": W}, tmp_path / "a.pt")
    folder = zipfile.ZipInfo("a/data/1")
    folder.external_attr = 16
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr(folder, b"x")
    with pytest.raises(UnfitError, match=r"a\.pt: .*found a damaged archive \(a/data/1 is a directory\)$"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_lack_of_memory_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    torch.save({"w": W}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(MemoryError):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("opcode", [b"X", b"T"])
def test_text_that_claims_more_than_its_file(tmp_path: Path, opcode: bytes) -> None:
    """A file of a few bytes claims a pickled text of 3 GiB; no memory is allocated for it."""
    torch.save({"w": W}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    head = (tmp_path / "a.pt").read_bytes()[:32]
    (tmp_path / "a.pt").write_bytes(head + opcode + (3 << 30).to_bytes(4, "little") + b"protocol_version")
    tracemalloc.start()
    try:
        with pytest.raises(UnfitError, match=r"a\.pt: expected a state_dict saved by torch.save"):
            read_checkpoint(tmp_path / "a.pt")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("shape", "dtype"), [((0, 1 << 62), torch.float32), ((1 << 31, 0, 1 << 31), torch.bfloat16)])
def test_shapes_that_numpy_does_not_support(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(UnfitError, match=rf"w: expected a plain, dense tensor, found one of shape \({shape[0]}, "):
        read(tmp_path / "a.pt", {"w": torch.empty(shape, dtype=dtype)})


@pytest.mark.parametrize("version", ["2.5.1", "1.13.0+cu117", "2.4"])
def test_a_pytorch_that_can_be_made_to_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    torch.save({"w": W}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(MissingTorchError, match=r"a\.pt: reading a PyTorch file needs PyTorch 2\.6 or newer.*found"):
        read_checkpoint(tmp_path / "a.pt")


def test_no_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": W}, tmp_path / "a.pt")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingTorchError, match=r"needs PyTorch 2\.6 or newer: pip install 'dcformat\[pruning\]'"):
        read_checkpoint(tmp_path / "a.pt")
