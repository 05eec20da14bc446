"""Section 7 of `dcformat.md`, "Content digest"."""

from __future__ import annotations

import hashlib
import struct
from math import prod

from reference_reader import DTYPES, Tensor


def content_digest(sections: dict[int, bytes], tensors: dict[str, Tensor]) -> bytes:
    """Section 7, "Content digest"."""
    sha = hashlib.sha256()
    for kind, body in sections.items():
        if kind != 1:
            sha.update(struct.pack("<BI", kind, len(body)) + body)
    for name, tensor in tensors.items():
        raw = name.encode()
        sha.update(bytes([len(raw)]) + raw + tensor_digest(tensor))
    return sha.digest()[:8]


def tensor_digest(tensor: Tensor) -> bytes:
    """Section 7: dtype, shape, scale, and the elements: the one value that all have, or places and values."""
    dtype = [known for known, _ in DTYPES].index(tensor.dtype)
    sha = hashlib.sha256(bytes([dtype, len(tensor.shape)]) + struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
    sha.update(struct.pack("<f", tensor.scale))
    count, values = prod(tensor.shape), tensor.values
    if tensor.positions is not None and len(tensor.positions) < count:
        values = [*values, 0]  # an element that is not stored
    if count and len(set(values)) == 1:
        sha.update(b"\1" + values[0].to_bytes(tensor.size, "little"))
        return sha.digest()
    positions = range(len(tensor.values)) if tensor.positions is None else tensor.positions
    masks: dict[int, int] = {}
    nonzero = hashlib.sha256()
    for position, value in zip(positions, tensor.values, strict=True):
        if value:
            masks[position // 64] = masks.get(position // 64, 0) | 1 << position % 64
            nonzero.update(value.to_bytes(tensor.size, "little"))
    places = hashlib.sha256(b"".join(struct.pack("<QQ", group, mask) for group, mask in masks.items()))
    sha.update(b"\0" + places.digest() + nonzero.digest())
    return sha.digest()
