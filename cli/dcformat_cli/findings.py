"""The reasons for a checkpoint's size, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dcformat.denormals import denormals
from dcformat.dense import from_dense, negative_zeros
from dcformat.floats import bit_patterns

if TYPE_CHECKING:
    from dcformat_interop import Dense

#: A tensor counts as shared if it has at least `_LEAST` elements, and less than one distinct value for `_SHARED` of
#: them.
_SHARED, _LEAST = 16, 256


#: A matrix has zeros, but too few to pay, if at least one element in the first number is zero, and less than one in the
#: second.
_FEW_ZEROS = (50, 2)

#: Parts of the names of an optimizer's tensors.
_OPTIMIZER = ("exp_avg", "momentum_buffer", "optimizer.", "optim.", "max_exp_avg_sq", "square_avg")


class Finding(NamedTuple):
    """A finding about some tensors.

    Attributes
    ----------
    what : str
    tensors : list of str
    elements, bytes : int
        The elements that it concerns, and the bytes that they take now.
    packed : int
        Bytes of all elements of the same tensors in a ``.dcf`` file.
    """

    what: str
    tensors: list[str]
    elements: int
    bytes: int
    packed: int


class Stored(NamedTuple):
    """How a tensor is packed: its coder, and the bytes of its payload."""

    coder: str
    bytes: int


#: The meaning of each kind of finding.
_MEANINGS = {
    "zeros": "zeros stored as numbers: a .dcf file stores only where the others are",
    "shared values": "few distinct values: a .dcf file stores a codebook and short codes",
    "dead units": "units whose weights are all zero",
    "negative zeros": "zeros with a sign: pack makes them positive, --exact keeps them",
    "denormal numbers": "denormal numbers, which are slow on most processors",
    "float64": "float64 that float32 holds exactly: --float32 halves it",
    "masks": "pruning masks beside the weights: apply them (torch.nn.utils.prune.remove) before saving",
    "tied tensors": "tensors equal to another one: a .dcf file stores them once",
    "not finite": "NaN or infinite numbers",
    "few zeros": "less than half of the elements are zero: positions take back much of what zeros save, and runs "
    "are no faster; prune further",
    "per-channel structure": "values with a codebook or a scale of their own in each row or column, which a .dcf file "
    "stores once for each",
    "optimizer state": "the state of an optimizer, which inference does not need: --skip leaves it out",
}


def findings(tensors: Mapping[str, Dense], packed: Mapping[str, Stored]) -> list[Finding]:
    """Return the findings in tensors, in a fixed order; `packed` states how each is stored in a ``.dcf`` file."""
    counts: dict[str, dict[str, tuple[int, int]]] = {kind: {} for kind in _MEANINGS}
    seen: dict[tuple[Any, ...], str] = {}
    for name, dense in tensors.items():
        item = dense.values.dtype.itemsize
        key = (dense.dtype, dense.values.shape, hash(dense.values.tobytes()))
        if dense.values.size > 1 and key in seen:
            counts["tied tensors"][name] = (dense.values.size, dense.values.nbytes)
        seen.setdefault(key, name)
        for kind, elements in (_elements(name, dense) | _of_packing(name, dense, packed[name])).items():
            if elements:
                counts[kind][name] = (elements, elements * item)
    return [
        Finding(
            _MEANINGS[kind],
            list(found),
            sum(n for n, _ in found.values()),
            sum(b for _, b in found.values()),
            sum(packed[name].bytes for name in found),
        )
        for kind, found in counts.items()
        if found
    ]


def _elements(name: str, dense: Dense) -> dict[str, int]:
    """Return the number of elements of each kind in a tensor."""
    from dcformat_interop.mask_folding import looks_like_mask
    from dcformat_interop.tensors import count_not_finite, is_single

    values, size = dense.values, dense.values.size
    zero = bit_patterns(np.ascontiguousarray(values)) == 0
    zeros = int(np.count_nonzero(zero)) if values.ndim else 0
    mask = looks_like_mask(name, dense)
    out = {
        "zeros": 0 if mask else zeros, "masks": size if mask else 0,
        "negative zeros": negative_zeros(values, dense.dtype), "denormal numbers": denormals(values, dense.dtype),
        "not finite": count_not_finite(values, dense.dtype) if values.dtype.kind == "f" else 0,
        "float64": size if dense.dtype == "float64" and is_single(values) else 0,
    }  # fmt: skip
    if values.ndim >= 2 and size and not mask:
        rows = zero.reshape(len(values), -1).all(axis=1)
        out["dead units"] = int(np.count_nonzero(rows)) * (size // len(values))
    if size - zeros >= _LEAST and not mask:
        shared = from_dense(name, values, dense.dtype, dense.scale, exact=True).codebook
        out["shared values"] = size - zeros if shared is not None and len(shared) * _SHARED < size - zeros else 0
    return out


def _of_packing(name: str, dense: Dense, stored: Stored) -> dict[str, int]:
    """Return the number of elements of the kinds that show in how a tensor is packed, or in its name."""
    values, size = dense.values, dense.values.size
    zeros = int(np.count_nonzero(bit_patterns(np.ascontiguousarray(values)) == 0)) if values.ndim >= 2 else 0
    max_spacing, min_spacing = _FEW_ZEROS
    return {
        "few zeros": zeros if size >= _LEAST and zeros * max_spacing >= size > zeros * min_spacing else 0,
        "per-channel structure": size if stored.coder == "tables" else 0,
        "optimizer state": size if any(part in name for part in _OPTIMIZER) else 0,
    }
