"""Weights as matrices: their size before they are decoded, and their entries afterwards."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Shape
from dcformat.records import record

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@record
class Matrix:
    """A weight before it is decoded: its shape, and the maximum number of its entries."""

    shape: Shape
    nnz: int

    @property
    def rows(self) -> int:
        """Number of rows: output features or channels."""
        return self.shape[0] if self.shape else 1

    @property
    def size(self) -> int:
        """Number of elements, zeros included."""
        return prod(self.shape)

    @property
    def index_bytes(self) -> int:
        """Number of bytes in a column index."""
        return 4 if prod(self.shape[1:]) < 1 << 31 else 8


@record(eq=False)
class Sparse:
    """A weight as a CSR matrix of ``shape[0]`` rows, with ascending columns in each row and every index in range.

    `indptr` is int64 ``(rows + 1,)``, `values` float32 ``(nnz,)``, and `listed` int32 or int64 ``(nnz,)``: the columns
    of the entries, or None if every element is one.
    """

    shape: Shape
    indptr: Ints
    listed: npt.NDArray[Any] | None
    values: Floats

    @property
    def indices(self) -> npt.NDArray[Any]:
        """The columns of the entries, made on demand if every element is an entry."""
        if self.listed is not None:
            return self.listed
        return np.tile(np.arange(self.columns, dtype=np.int32 if self.columns < 1 << 31 else np.int64), self.rows)

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return int(self.values.size)

    @property
    def rows(self) -> int:
        """Number of rows: output features or channels."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns: the product of the other dimensions."""
        return prod(self.shape[1:])

    @property
    def density(self) -> float:
        """Share of elements that are entries, from 0 to 1."""
        return self.nnz / (self.rows * self.columns)

    def dense(self) -> Floats:
        """Return the weight as a dense array of `shape`."""
        if self.nnz == self.rows * self.columns:  # columns ascend, so nothing has to move
            return self.values.reshape(self.shape)
        out = np.zeros((self.rows, self.columns), np.float32)
        out[np.repeat(np.arange(self.rows), np.diff(self.indptr)), self.indices] = self.values
        return out.reshape(self.shape)
