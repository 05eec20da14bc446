"""A tensor's stored entries seen along its rows or its columns: what every coder works on (spec, "Payloads")."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.index import transpose
from dcformat.model import Tensor
from dcformat.records import record

Array = npt.NDArray[Any]


@record(eq=False)
class Oriented:
    """Sparse entries line by line.

    Attributes
    ----------
    pointers : int64 ``(lines + 1,)``
    indices : int32 or int64 ``(stored,)``, ascending in each line, below `length`
    labels : uint8 or uint16 ``(stored,)``
        Codes into the codebook; all zero without one.
    """

    pointers: Array
    indices: Array
    labels: Array
    lines: int
    length: int

    @classmethod
    def of(cls, tensor: Tensor) -> Oriented:
        """View a sparse tensor along its rows."""
        assert tensor.indptr is not None and tensor.indices is not None  # for the type checker: it is sparse
        shared = tensor.codebook is not None
        labels = tensor.data if shared else np.zeros(len(tensor.data), np.uint8)
        kind = np.uint8 if tensor.codebook is None or len(tensor.codebook) <= 256 else np.uint16
        index = np.int32 if tensor.columns < 1 << 31 else np.int64
        return cls(
            np.ascontiguousarray(tensor.indptr, np.int64),
            np.ascontiguousarray(tensor.indices, index),
            np.ascontiguousarray(labels, kind),
            tensor.rows,
            tensor.columns,
        )

    def transposed(self) -> Oriented:
        """Return the same entries along the other axis; see `can_transpose`."""
        pointers, indices, labels = transpose(self.pointers, self.indices, self.labels, self.length)
        return Oriented(pointers, indices, labels, self.length, self.lines)

    def chunks(self, lines_each: int) -> list[Oriented]:
        """Cut into runs of `lines_each` lines; 0 for one piece."""
        if not lines_each:
            return [self]
        pieces = []
        for first in range(0, self.lines, lines_each):
            pointers = self.pointers[first : first + lines_each + 1]
            part = slice(int(pointers[0]), int(pointers[-1]))
            pieces.append(
                Oriented(
                    pointers - pointers[0],
                    self.indices[part],
                    self.labels[part],
                    len(pointers) - 1,
                    self.length,
                )
            )
        return pieces


def can_transpose(rows: int, columns: int) -> bool:
    """Whether positions along either axis fit 32 bits."""
    return rows < 1 << 31 and columns < 1 << 31


def every_element(part: Oriented, negatives: int) -> Array:
    """Return a label for each element: codes from `negatives` on move up by one and make room for zero."""
    shifted = part.labels.astype(np.int64) + (part.labels >= negatives)
    kind = np.uint8 if part.labels.dtype == np.uint8 and (not len(shifted) or shifted.max() < 256) else np.uint16
    out = np.full(part.lines * part.length, negatives, kind)
    lines = np.repeat(np.arange(part.lines), np.diff(part.pointers))
    out[lines * part.length + part.indices] = shifted
    return out


def only_nonzero(labels: Array, lines: int, length: int, negatives: int) -> Oriented:
    """Undo `every_element`."""
    at = np.flatnonzero(labels != negatives)
    stored = labels[at]
    codes = stored - (stored > negatives).astype(stored.dtype)
    pointers = np.zeros(lines + 1, np.int64)
    if length:
        np.cumsum(np.bincount(at // length, minlength=lines), out=pointers[1:])
    index = np.int32 if length < 1 << 31 else np.int64
    return Oriented(pointers, (at % max(length, 1)).astype(index), codes, lines, length)


def negatives_of(codebook: Array | None, dtype: str) -> int:
    """Return how many of a codebook's ascending values have the sign bit set."""
    if codebook is None:
        return 0
    width = codebook.dtype.itemsize * 8
    return int((codebook.view(f"<u{codebook.dtype.itemsize}") >> (width - 1)).sum())
