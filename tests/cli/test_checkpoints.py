"""Checkpoints as users have them: every form, every dtype, and what must be refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcformat_cli.checkpoints import read_checkpoint
from dcformat_cli.failures import InputError
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from torch.nn.utils import prune

WEIGHT = np.array([[0.0, 1.5], [-0.0, -2.0]], np.float32)


def test_every_form_gives_the_same_values(tmp_path: Path) -> None:
    save_file({"w": WEIGHT}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", w=WEIGHT)
    torch.save({"w": torch.from_numpy(WEIGHT)}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.npz", "a.pt"):
        (dense,) = read_checkpoint(tmp_path / name).values()
        assert dense.dtype == "float32"
        assert dense.values.tobytes() == WEIGHT.tobytes()


def test_half_precisions_and_int8_keep_their_bits(tmp_path: Path) -> None:
    half = torch.tensor([1.0, -0.3], dtype=torch.float16)
    brain = torch.tensor([[1.0, 3.14]], dtype=torch.bfloat16)
    small = torch.tensor([-128, 127], dtype=torch.int8)
    state = {"half": half, "brain": brain, "small": small}
    torch.save(state, tmp_path / "a.pt")
    save_torch(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        read = read_checkpoint(tmp_path / name)
        assert {key: dense.dtype for key, dense in read.items()} == {
            "half": "float16", "brain": "bfloat16", "small": "int8",
        }  # fmt: skip
        assert read["half"].values.tobytes() == half.numpy().tobytes()
        assert read["brain"].values.tobytes() == brain.view(torch.int16).numpy().tobytes()
        assert read["brain"].values.shape == (1, 2)
        assert read["small"].values.tobytes() == small.numpy().tobytes()


def test_doubles_become_singles_only_where_that_is_exact(tmp_path: Path) -> None:
    np.savez(tmp_path / "exact.npz", w=np.array([0.5, -2.0]))
    np.savez(tmp_path / "not.npz", w=np.array([0.1]))
    assert read_checkpoint(tmp_path / "exact.npz")["w"].dtype == "float32"
    with pytest.raises(InputError, match=r"w: expected float32.*found float64 values"):
        read_checkpoint(tmp_path / "not.npz")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_is_looked_into(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"epoch": 3, key: {"w": torch.ones(2)}}, tmp_path / "a.pt")
    assert list(read_checkpoint(tmp_path / "a.pt")) == ["w"]
    assert repr(key) in capsys.readouterr().err


def test_pruning_masks_are_folded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = torch.nn.Linear(3, 2)
    prune.l1_unstructured(layer, "weight", amount=4)
    torch.save(layer.state_dict(), tmp_path / "a.pt")
    read = read_checkpoint(tmp_path / "a.pt")
    assert set(read) == {"weight", "bias"}
    assert read["weight"].values.tobytes() == (layer.weight.detach() + 0.0).numpy().tobytes()
    assert np.count_nonzero(read["weight"].values) == 2
    assert "1 pruning mask " in capsys.readouterr().err


def test_a_mask_without_its_weight_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", w=WEIGHT, w_mask=np.ones((2, 2), np.float32))
    assert set(read_checkpoint(tmp_path / "a.npz")) == {"w", "w_mask"}
    assert "warning: w_mask looks like a pruning mask" in capsys.readouterr().err


def test_a_masked_infinity_is_still_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w_orig=np.array([np.inf], np.float32), w_mask=np.zeros(1, np.float32))
    with pytest.raises(InputError, match="w_orig: expected finite values"):
        read_checkpoint(tmp_path / "a.npz")


def test_batch_norm_counters_are_left_out(tmp_path: Path) -> None:
    torch.save(torch.nn.BatchNorm1d(2).state_dict(), tmp_path / "a.pt")
    assert "num_batches_tracked" not in read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_values_that_are_not_finite(tmp_path: Path, value: float, dtype: Any) -> None:
    np.savez(tmp_path / "a.npz", w=np.array([1, value, value], dtype))
    with pytest.raises(InputError, match=r"a\.npz: w: expected finite values, found NaN or infinity in 2 places"):
        read_checkpoint(tmp_path / "a.npz")


def test_bfloat16_infinity(tmp_path: Path) -> None:
    save_torch({"w": torch.tensor([torch.inf], dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="expected finite values"):
        read_checkpoint(tmp_path / "a.safetensors")


class Evil:
    """Would make a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"w": Evil(marker)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil(marker)))
    np.savez(tmp_path / "c.npz", w=np.array([Evil(marker)], object))
    for name in ("a.pt", "b.pt", "c.npz"):
        with pytest.raises(InputError, match=name):
            read_checkpoint(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(40), bytes(64)])
def test_other_bytes_under_a_checkpoint_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: expected .*, found "):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.safetensors"])
def test_a_checkpoint_cut_short(tmp_path: Path, name: str) -> None:
    test_every_form_gives_the_same_values(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for length in (len(whole) - 1, len(whole) // 2):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(InputError, match=name):
            read_checkpoint(tmp_path / name)


def test_things_that_are_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    torch.save({"w": torch.ones(3), "epoch": 3}, tmp_path / "mixed.pt")
    torch.save({}, tmp_path / "empty.pt")
    torch.save({"w": torch.ones(2, dtype=torch.complex64)}, tmp_path / "complex.pt")
    torch.save({"w": torch.ones(2, dtype=torch.int64)}, tmp_path / "long.pt")
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "sparse.pt")
    np.save(tmp_path / "single.npy", WEIGHT)
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    expected = {
        "tensor.pt": "a state_dict", "mixed.pt": "epoch: expected a tensor", "empty.pt": "at least one tensor",
        "complex.pt": "a dense, real tensor", "long.pt": "found int64", "sparse.pt": "a dense, real tensor",
        "single.npz": "a single array",
    }  # fmt: skip
    for name, message in expected.items():
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / name)


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"ending in .safetensors, .npz, .pt, .pth or .net, found .h5"):
        read_checkpoint(tmp_path / "a.h5")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "a.npz")


def test_a_scale_that_is_no_number(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"w.dcformat_scale": "big"},
        "w": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\x05")
    with pytest.raises(InputError, match=r"w\.dcformat_scale: expected a number, found 'big'"):
        read_checkpoint(tmp_path / "a.safetensors")
