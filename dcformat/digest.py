"""The CRC-32C of a file's parts, and the content digest, which does not depend on how tensors are stored.

Spec, "File" and "Content digest".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.cheap_imports import load_crc32c
from dcformat.floats import bit_patterns
from dcformat.model import Tensor, uniform_bits

Array = npt.NDArray[Any]

_crc32c = load_crc32c()

#: Elements or entries hashed at a time: a multiple of the 64 elements that share a mask.
_PIECE = 1 << 18
_MASKED = 64


def crc32c(data: bytes | bytearray | memoryview, before: bytes = b"\0\0\0\0") -> bytes:
    """Return the CRC-32C (Castagnoli) of `data`, or of what has the CRC-32C `before` and then `data`.

    A CRC-32C is four little-endian bytes.
    """
    return struct.pack("<I", _crc32c(data, struct.unpack("<I", before)[0]))


class ContentDigest:
    """The SHA-256 of a model's content, cut to eight bytes.

    It covers the sections of the contents except the tensor table, in their order (id, length as uint32, body), then
    for each tensor the length of its name in one byte, the name and its `tensor_digest`.
    """

    def __init__(self, sections: Iterable[tuple[int, bytes]]) -> None:
        import hashlib  # This import loads OpenSSL, which a reader seldom needs.

        self._hash = hashlib.sha256()
        for kind, body in sections:
            self._hash.update(struct.pack("<BI", kind, len(body)) + body)

    def add(self, name: str, digest: bytes) -> None:
        """Add a tensor by its `tensor_digest`; tensors come in the file's order."""
        raw = name.encode()
        self._hash.update(bytes((len(raw),)) + raw + digest)

    def take(self) -> bytes:
        """Return the digest."""
        return self._hash.digest()[: layout.DIGEST_BYTES]


def tensor_digest(tensor: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's dtype, shape, scale and elements; it is the same for every form of a tensor.

    It takes a few megabytes of memory, and time in proportion to the stored elements.
    """
    digest = TensorDigest(tensor.dtype, tensor.shape, tensor.scale)
    only = uniform_bits(tensor)
    if only is not None:
        return digest.take(only)
    if tensor.is_sparse:
        for groups, masks, nonzero in _sparse_pieces(tensor):
            digest.add_groups(groups, masks, nonzero)
    else:
        for start in range(0, len(tensor.data), _PIECE):
            digest.add(start, _values(tensor, slice(start, start + _PIECE)))
    return digest.take(None)


class TensorDigest:
    """The `tensor_digest` of a tensor whose elements come in order, piece by piece."""

    def __init__(self, dtype: str, shape: tuple[int, ...], scale: float) -> None:
        import hashlib

        dimensions = struct.pack(f"<{len(shape)}Q", *shape)
        head = struct.pack("<BB", layout.DTYPES.index(dtype), len(shape)) + dimensions
        self._hash = hashlib.sha256(head + struct.pack("<f", scale))
        self._places, self._values = hashlib.sha256(), hashlib.sha256()

    def add(self, start: int, values: Array) -> None:
        """Add the elements from `start` on; all pieces but the last hold a multiple of 64 elements."""
        there = bit_patterns(values) != 0
        padded = np.zeros(-(-len(there) // _MASKED) * _MASKED, bool)
        padded[: len(there)] = there
        masks = np.packbits(padded, bitorder="little").view("<u8")
        groups = np.flatnonzero(masks)
        self.add_groups(groups + start // _MASKED, masks[groups], values[there])

    def add_groups(self, groups: Array, masks: Array, nonzero: Array) -> None:
        """Add the groups of 64 elements that are not all zero: numbers, masks, and all their nonzero elements."""
        self._places.update(np.stack((groups.astype("<u8"), masks), axis=1).tobytes())
        self._values.update(nonzero.tobytes())

    def take(self, only: Array | None) -> bytes:
        """Return the digest; `only` is the bit pattern of all elements if they are equal, in an array of length 1."""
        if only is not None:
            self._hash.update(b"\1" + only.tobytes())
        else:
            self._hash.update(b"\0" + self._places.digest() + self._values.digest())
        return self._hash.digest()


def _sparse_pieces(tensor: Tensor) -> Iterator[tuple[Array, Array, Array]]:
    """Yield the arguments of `TensorDigest.add_groups`, without cutting a group in two."""
    assert tensor.indptr is not None and tensor.indices is not None  # it is sparse
    first, count = 0, len(tensor.indices)
    indptr = np.ascontiguousarray(tensor.indptr, np.int64)
    while first < count:
        entries = np.arange(first, min(first + _PIECE, count))
        rows = np.searchsorted(indptr, entries, side="right") - 1
        positions = rows * tensor.columns + tensor.indices[entries].astype(np.int64)
        groups = positions // _MASKED
        if entries[-1] + 1 < count:
            # Leave the last group to the next piece, which holds the whole group.
            entries = entries[: np.searchsorted(groups, groups[-1])]
            positions, groups = positions[: len(entries)], groups[: len(entries)]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        masks = np.bitwise_or.reduceat(np.uint64(1) << (positions % _MASKED).astype(np.uint64), starts)
        yield groups[starts], masks, _values(tensor, slice(first, first + len(entries)))
        first += len(entries)


def _values(tensor: Tensor, part: slice) -> Array:
    stored = tensor.data[part]
    return np.ascontiguousarray(stored if tensor.codebook is None else tensor.codebook[stored])
