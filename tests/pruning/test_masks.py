"""Masks of any dtype hold zeros and ones and keep weights to the bit; other masks are refused by name."""

from __future__ import annotations

import pytest
import torch
from dcformat_pruning.masks import Masks, PruningError, fold_torch_prune
from torch import nn
from torch.nn.utils import prune

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.uint16,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_take_zeros_and_ones_of_any_dtype(dtype: torch.dtype) -> None:
    module = nn.Linear(3, 2)
    zeros_and_ones = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    masks = Masks(module, {"weight": zeros_and_ones.to(dtype)})
    assert masks.alive == {"weight": 3} and masks.masks["weight"].dtype == torch.bool
    masks.set({"weight": (1 - zeros_and_ones).to(dtype)})
    masks.apply()
    assert (module.weight != 0).tolist() == [[True, False, False], [True, True, False]]


def test_masks_of_other_values_are_refused_by_name() -> None:
    module = nn.Linear(2, 1)
    for mask, found in (([[0.0, 0.5]], "0.5"), ([[2.0, 1.0]], "2"), ([[1.0, float("inf")]], "inf")):
        with pytest.raises(PruningError, match=f"weight: expected a mask of zeros and ones, found {found} in it"):
            Masks(module, {"weight": torch.tensor(mask)})
    masks = Masks(module, {"weight": torch.ones(1, 2)})
    with pytest.raises(PruningError, match=r"weight: expected a mask of zeros and ones, found 3 in it"):
        masks.set({"weight": torch.tensor([[3, 1]])})
    with pytest.raises(PruningError, match=r"weight: expected a mask of shape \(1, 2\), found \(2,\)"):
        Masks(module, {"weight": torch.ones(2)})


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64])
def test_folded_masks_keep_bits_and_zero_nonfinite_values(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(4, 1))
    prune.custom_from_mask(module[0], "weight", torch.tensor([[0, 1, 1, 0]]).to(dtype))
    with torch.no_grad():
        module.get_parameter("0.weight_orig").copy_(torch.tensor([[float("nan"), -0.0, 0.1, -7.0]]))
    assert fold_torch_prune(module) == ["0.weight"]
    weight = module.get_parameter("0.weight").detach()
    assert torch.equal(weight, torch.tensor([[0.0, -0.0, 0.1, 0.0]]))
    assert torch.signbit(weight).tolist() == [[False, True, False, False]]
    assert not module[0]._forward_pre_hooks


def test_folding_refuses_masks_of_other_values_by_name() -> None:
    module = nn.Sequential(nn.Linear(2, 1))
    prune.custom_from_mask(module[0], "weight", torch.tensor([[1.0, 0.25]]))
    with pytest.raises(PruningError, match=r"0\.weight: expected a mask of zeros and ones, found 0\.25 in it"):
        fold_torch_prune(module)
