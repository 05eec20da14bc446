"""The values of a tensor that is read in pieces: how often each occurs, and the digest of all of them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.digest import TensorDigest
from dcformat.floats import bit_patterns, ranks
from dcformat.model import STORAGE

Array = npt.NDArray[Any]


class ValueCounts:
    """Counts how often each value of a tensor occurs, if a codebook could hold them all.

    Parameters
    ----------
    dtype : str
    shape : tuple of int
    scale : float

    Attributes
    ----------
    size, nonzero : int
        Number of elements of the tensor, and of those added that are not zero.
    digest : TensorDigest
    """

    def __init__(self, dtype: str, shape: tuple[int, ...], scale: float) -> None:
        self.size = prod(shape)
        self.nonzero = 0
        self.digest = TensorDigest(dtype, shape, scale)
        self._dtype, self._read = dtype, 0
        self._first: Array | None = None
        self._alike = True
        width = 8 * STORAGE[dtype].itemsize
        may_share = layout.DTYPES.index(dtype) < layout.KERNEL_DTYPES
        self._table = np.zeros(1 << width, np.int64) if may_share and width <= 16 else None
        empty = np.zeros(0, f"<u{width // 8}"), np.zeros(0, np.int64)
        self._found: tuple[Array, Array] | None = empty if may_share and width > 16 else None

    @property
    def only(self) -> Array | None:
        """The bit pattern of all elements if they are equal."""
        return self._first if self._alike else None

    def add(self, values: Array) -> None:
        """Count the next elements."""
        bits = bit_patterns(values)
        self.digest.add(self._read, values)
        self._read += len(bits)
        self.nonzero += int(np.count_nonzero(bits))
        if self._first is None:
            self._first = bits[:1].copy()
        self._alike = self._alike and bool((bits == self._first[0]).all())
        if self._table is not None:
            self._table += np.bincount(bits, minlength=len(self._table))
        elif self._found is not None:
            # Pruned tensors have few elements other than zeros, and sorting takes long.
            patterns, counts = np.unique(bits[bits != 0], return_counts=True)
            both = np.concatenate((self._found[0], patterns))
            together, place = np.unique(both, return_inverse=True)
            if len(together) >= layout.MAX_CODEBOOK:
                self._found = None
                return
            total = np.zeros(len(together), np.int64)
            np.add.at(total, place, np.concatenate((self._found[1], counts)))
            self._found = together, total

    def codebook(self, sparse: bool) -> tuple[Array | None, Array]:
        """Return the ascending values, without zero if `sparse`, and how often each occurs; None if too many."""
        if self._table is not None:
            patterns = np.flatnonzero(self._table)
            uses = self._table[patterns]
        elif self._found is not None:
            patterns, uses = self._found
            zeros = self.size - self.nonzero
            if zeros:
                patterns, uses = np.insert(patterns, 0, 0), np.insert(uses, 0, zeros)
        else:
            return None, np.zeros(0, np.int64)
        if sparse:
            patterns, uses = patterns[patterns != 0], uses[patterns != 0]
        storage = STORAGE[self._dtype]
        codebook = patterns.astype(f"<u{storage.itemsize}").view(storage)
        order = np.argsort(ranks(codebook, self._dtype))
        return codebook[order], uses[order]
