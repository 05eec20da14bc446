"""CRC-32C of a file's parts, and the content digest, which does not depend on how tensors are coded.

Spec, "Checksums" and "Content digest".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.lean import load_crc32c
from dcformat.model import Tensor

Array = npt.NDArray[Any]

_crc32c = load_crc32c()

#: Entries hashed, and rows looked at, at a time.
_BLOCK = 1 << 16


def crc32c(data: bytes | bytearray | memoryview) -> bytes:
    """Return the CRC-32C (Castagnoli) of `data`, four bytes, little-endian."""
    return struct.pack("<I", _crc32c(data))


class ContentDigest:
    """SHA-256 over what a model holds, cut to eight bytes.

    First the sections of the contents but the tensor table, in their order: id, length as uint32, body. Then each
    tensor: name and its length in one byte, form (0 constant, 1 dense, 2 sparse), dtype, rank, dimensions as uint64,
    scale, number of stored entries as uint64; of a sparse tensor the position of each entry in the flattened tensor
    as uint64; the stored values.
    """

    def __init__(self, sections: Iterable[tuple[int, bytes]]) -> None:
        import hashlib  # loads OpenSSL, and a reader seldom needs it

        self._hash = hashlib.sha256()
        for kind, body in sections:
            self._hash.update(struct.pack("<BI", kind, len(body)) + body)

    def add(self, tensor: Tensor) -> None:
        """Add a tensor; tensors come in the file's order."""
        name = tensor.name.encode()
        form = 0 if tensor.is_constant else 2 if tensor.is_sparse else 1
        shape = struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        head = struct.pack("<BBB", form, layout.DTYPES.index(tensor.dtype), len(tensor.shape))
        self._hash.update(bytes((len(name),)) + name + head + shape)
        self._hash.update(struct.pack("<fQ", tensor.scale, len(tensor.data)))
        if tensor.indptr is not None and tensor.indices is not None:
            self._add_positions(tensor, tensor.indptr, tensor.indices)
        for start in range(0, len(tensor.data), _BLOCK):
            part = tensor.data[start : start + _BLOCK]
            values = part if tensor.codebook is None else tensor.codebook[part]
            self._hash.update(np.ascontiguousarray(values).tobytes())

    def _add_positions(self, tensor: Tensor, indptr: Array, indices: Array) -> None:
        entry = 0
        while entry < len(indices):
            # The next rows from the one that holds this entry: no more of them, nor of their entries, than a block.
            first = int(np.searchsorted(indptr, entry, side="right")) - 1
            pointers = np.clip(indptr[first : first + _BLOCK + 1], entry, entry + _BLOCK)
            rows = np.repeat(np.arange(first, first + len(pointers) - 1, dtype=np.uint64), np.diff(pointers))
            columns = indices[entry : int(pointers[-1])].astype(np.uint64)
            self._hash.update((rows * np.uint64(tensor.columns) + columns).astype("<u8").tobytes())
            entry = int(pointers[-1])

    def take(self) -> bytes:
        """Return the digest."""
        return self._hash.digest()[: layout.DIGEST_BYTES]
