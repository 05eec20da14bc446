"""Pruning masks of any dtype are folded by their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dcformat_interop import UnfitError, read_checkpoint
from safetensors.torch import save_file
from torch.nn.utils import prune


def test_masks_made_by_torch_are_folded(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    prune.l1_unstructured(layer, "weight", amount=4)
    torch.save(layer.state_dict(), tmp_path / "a.pt")
    read = read_checkpoint(tmp_path / "a.pt")
    assert set(read.tensors) == {"weight", "bias"}
    assert read.tensors["weight"].values.tobytes() == (layer.weight.detach() + 0.0).numpy().tobytes()
    assert np.count_nonzero(read.tensors["weight"].values) == 2
    assert [note.text for note in read.notes] == ["folded 1 pruning mask (NAME_orig, NAME_mask) into the weights"]


@pytest.mark.parametrize("form", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
)
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "float64"])
def test_a_mask_of_any_dtype(tmp_path: Path, form: str, dtype: str, weights: str) -> None:
    original = torch.tensor([[1.0, torch.nan], [torch.inf, -3.0]], dtype=getattr(torch, weights))
    mask = torch.tensor([[1, 0], [0, 1]]).to(getattr(torch, dtype))
    state = {"w_orig": original, "w_mask": mask}
    if form == "a.pt":
        torch.save(state, tmp_path / form)
    else:
        save_file(state, tmp_path / form)
    read = read_checkpoint(tmp_path / form)
    assert set(read.tensors) == {"w"}
    assert not read.left_out
    expected = torch.tensor([[1.0, 0.0], [0.0, -3.0]], dtype=original.dtype)
    assert read.tensors["w"].values.tobytes() == expected.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([1, 2]), "w_mask: expected a mask of zeros and ones, found other values"),
        (torch.tensor([0.5, 1]), "w_mask: expected a mask of zeros and ones, found other values"),
        (torch.tensor([1, torch.nan], dtype=torch.bfloat16), "w_mask: expected a mask of zeros and ones"),
        (torch.tensor([1]), r"w_mask: expected a mask of shape \(2,\), found \(1,\)"),
        (torch.ones(2).to(torch.float8_e4m3fn), "w_mask: expected a mask of zeros and ones"),
        (None, "w_mask: expected a mask of zeros and ones, found None"),
    ],
)
def test_invalid_masks_are_refused(tmp_path: Path, mask: torch.Tensor | None, message: str) -> None:
    torch.save({"w_orig": torch.ones(2), "w_mask": mask}, tmp_path / "a.pt")
    with pytest.raises(UnfitError, match=rf"a\.pt: {message}"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_pair_beside_a_tensor_of_its_name(tmp_path: Path) -> None:
    torch.save({"w_orig": torch.ones(2), "w_mask": torch.ones(2), "w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(UnfitError, match=r"a\.pt: w_orig: expected no 'w' beside it, found one"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_mask_without_its_weight_causes_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2, np.float32), w_mask=np.ones((2, 2), np.float32))
    read = read_checkpoint(tmp_path / "a.npz")
    assert set(read.tensors) == {"w", "w_mask"}
    (note,) = read.notes
    assert note.warning
    assert note.text == "kept, although they look like pruning masks without weights: 1 entry: w_mask"


def test_a_skipped_mask_leaves_the_weight_as_it_is(tmp_path: Path) -> None:
    torch.save({"w_orig": torch.ones(2), "w_mask": torch.zeros(2)}, tmp_path / "a.pt")
    assert set(read_checkpoint(tmp_path / "a.pt", skip=["*_mask"]).tensors) == {"w_orig"}
