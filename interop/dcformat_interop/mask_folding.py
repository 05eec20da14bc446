"""Folds the masks of `torch.nn.utils.prune`: NAME is NAME_orig where NAME_mask is one, and zero elsewhere.

`dcformat_pruning.state_dicts` does the same with PyTorch, for tensors of dtypes that NumPy lacks; this package must run
without PyTorch, and counts the tensors that it makes against a budget.
"""

from __future__ import annotations

import numpy as np

from dcformat.floats import as_numbers
from dcformat.wording import counted
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import SKIPPED, Array, Budget, Dense, Raw


def fold_masks(path: str, raw: Raw, budget: Budget) -> None:
    """Replace each pair of NAME_orig and NAME_mask in `raw` by NAME in the same place; masks may have any dtype.

    Raises
    ------
    UnfitError
        A mask has another shape or values other than zero and one, or NAME exists beside the pair.
    """
    out: dict[str, Dense] = {}
    folded = 0
    for name, dense in raw.entries.items():
        if name.endswith("_mask") and _has(raw, f"{name.removesuffix('_mask')}_orig"):
            continue
        stem = name.removesuffix("_orig")
        mask = f"{stem}_mask"
        if stem == name or not _has(raw, mask):
            out[name] = dense
            continue
        if stem in raw.entries or stem in raw.left_out:
            raise UnfitError(path, f"no {stem!r} beside it", "one", name)
        if mask in raw.left_out:
            raise UnfitError(path, "a mask of zeros and ones", raw.left_out[mask], mask)
        budget.take(dense.values.nbytes, stem)
        out[stem] = Dense(dense.dtype, _masked(path, mask, dense.values, raw.entries[mask]), dense.scale)
        folded += 1
    raw.entries = out
    if folded:
        raw.notes.append(f"folded {counted(folded, 'pruning mask')} (NAME_orig, NAME_mask) into the weights")


def looks_like_mask(name: str, dense: Dense) -> bool:
    """Return whether a tensor is called a mask and holds only zeros and ones."""
    return name.endswith("mask") and _is_binary(as_numbers(dense.values, dense.dtype))


def _has(raw: Raw, name: str) -> bool:
    return name in raw.entries or raw.left_out.get(name, SKIPPED) != SKIPPED


def _masked(path: str, name: str, values: Array, mask: Dense) -> Array:
    if mask.values.shape != values.shape:
        raise UnfitError(path, f"a mask of shape {values.shape}", mask.values.shape, name)
    numbers = as_numbers(mask.values, mask.dtype)
    if not _is_binary(numbers):
        raise UnfitError(path, "a mask of zeros and ones", "other values", name)
    return np.where(numbers != 0, values, values.dtype.type(0))


def _is_binary(values: Array) -> bool:
    return bool(((values == 0) | (values == 1)).all())
