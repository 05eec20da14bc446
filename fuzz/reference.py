"""Compares the package with the reference decoder: both accept or both refuse a file, and they read the same."""

from __future__ import annotations

import hashlib
import sys
from math import prod

import dcformat
from dcformat.errors import FormatError
from dcformat.model import Tensor
from fuzz.doors import limits, require, with_digest
from fuzz.seeds import ROOT

sys.path.append(str(ROOT / "spec"))

from reference_decoder import apply as apply_reference
from reference_decoder import decode, summary
from reference_reader import DecodeError

__all__ = ["BYTES", "DecodeError", "apply_reference", "compare", "summary"]

#: Maximum number of elements and of bytes in a file that is compared, because the reference decoder is slow.
ELEMENTS, BYTES = 1 << 12, 3000
#: Errors that depend on the reader's own bounds, not on the format.
_BOUNDS = ("E07", "E16")


def compare(data: bytes) -> str:
    """Decode a file with both."""
    try:
        data = with_digest(data)
        ours: str = "ok"
    except FormatError as error:
        ours = error.code
    if ours in _BOUNDS or len(data) > BYTES or not _is_small(data):
        return "left alone"
    try:
        theirs, found = "ok", summary(decode(data))
    except DecodeError as error:
        theirs, found = error.code, {}
    if theirs in _BOUNDS:
        return "left alone"
    require((ours == "ok") == (theirs == "ok"), f"the package says {ours}, the reference decoder {theirs}")
    if ours == "ok":
        _same_values(data, found)
    return ours


def _is_small(data: bytes) -> bool:
    """Return whether the contents declare few elements; both decoders refuse a file that cannot be opened early on."""
    try:
        with dcformat.open(data, **limits(data)) as file:
            infos = [file.info(name) for name in file.names]
    except FormatError:
        return True
    return sum(prod(info.shape) + sum(info.shape) + info.codebook_size for info in infos) <= ELEMENTS


def _same_values(data: bytes, found: dict[str, object]) -> None:
    model = dcformat.load(data, **limits(data))
    rows = found["tensors"]
    require(isinstance(rows, list) and [row["name"] for row in rows] == list(model.tensors), "other tensors")
    for row, tensor in zip(rows, model.tensors.values(), strict=True):  # type: ignore[call-overload]
        require((tuple(row["shape"]), row["dtype"], row["scale"]) == (tensor.shape, tensor.dtype, tensor.scale), "kind")
        require(row["sha256"] == _hash(tensor), "the reference decoder reads other values")
    require(found["labels"] == list(model.labels) and found["metadata"] == dict(model.metadata), "other texts")
    require((found["graph"] is None) == (model.graph is None), "a graph")


def _hash(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.to_dense().tobytes()).hexdigest()
