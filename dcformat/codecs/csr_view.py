"""A sparse tensor's entries along its rows or columns; every coder works on this view (spec, "Payloads")."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.index import transpose
from dcformat.model import Tensor
from dcformat.records import record

Array = npt.NDArray[Any]

#: Indices in lines shorter than this fit 32 bits.
_INT32_LENGTH = 1 << 31
#: The writer tries to code a tensor by columns if it has at most _FEW_COLUMNS, and _COLUMNS_EACH more for each entry.
_FEW_COLUMNS, _COLUMNS_EACH = 1 << 16, 64


@record(eq=False)
class CsrView:
    """Entries line by line.

    Attributes
    ----------
    indptr : int64 ``(lines + 1,)``
    indices : int32 or int64 ``(nnz,)``, ascending in each line, below `length`
    codes : uint8 or uint16 ``(nnz,)``
        Indices into the codebook; all zero without a codebook.
    lines, length : int
        Number of lines, and of elements in a line.
    """

    indptr: Array
    indices: Array
    codes: Array
    lines: int
    length: int

    @classmethod
    def of(cls, tensor: Tensor) -> CsrView:
        """View a sparse tensor along its rows."""
        assert tensor.indptr is not None and tensor.indices is not None  # for the type checker: it is sparse
        codes = np.zeros(len(tensor.data), np.uint8) if tensor.codebook is None else tensor.data
        code = np.uint8 if tensor.codebook is None or len(tensor.codebook) <= 256 else np.uint16
        return cls(
            np.ascontiguousarray(tensor.indptr, np.int64),
            np.ascontiguousarray(tensor.indices, index_dtype(tensor.columns)),
            np.ascontiguousarray(codes, code),
            tensor.rows,
            tensor.columns,
        )

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return len(self.indices)

    def transposed(self) -> CsrView:
        """Return the same entries along the other axis; see `can_transpose`."""
        indptr, indices, codes = transpose(self.indptr, self.indices, self.codes, self.length)
        return CsrView(indptr, indices, codes, self.length, self.lines)

    def values_transposed(self, values: Array) -> tuple[CsrView, Array]:
        """Return the transposed view, whose codes are meaningless, and the entries' `values` in its order."""
        indptr, indices, moved = transpose(self.indptr, self.indices, values, self.length)
        return CsrView(indptr, indices, self.codes, self.length, self.lines), moved

    def chunks(self, lines_each: int) -> list[CsrView]:
        """Cut the view into runs of `lines_each` lines; 0 makes one piece."""
        if not lines_each:
            return [self]
        pieces = []
        for first in range(0, self.lines, lines_each):
            indptr = self.indptr[first : first + lines_each + 1]
            part = slice(int(indptr[0]), int(indptr[-1]))
            pieces.append(
                CsrView(indptr - indptr[0], self.indices[part], self.codes[part], len(indptr) - 1, self.length)
            )
        return pieces


def dense_codes(tensor: Tensor, transposed: bool) -> tuple[Array, int, int]:
    """Return a dense tensor's codes line by line, the number of lines, and their length."""
    codes = tensor.data.reshape(tensor.rows, tensor.columns)
    codes = np.ascontiguousarray(codes.T if transposed else codes)
    return codes.reshape(-1), *codes.shape


def all_elements(code_symbols: Array, lines: int, length: int) -> CsrView:
    """Return a matrix whose every element is an entry."""
    indptr = np.arange(lines + 1, dtype=np.int64) * length
    return CsrView(indptr, np.tile(np.arange(length, dtype=np.int32), lines), code_symbols, lines, length)


def index_dtype(length: int) -> type[np.int32 | np.int64]:
    """Return the dtype of indices in lines of `length` elements."""
    return np.int32 if length < _INT32_LENGTH else np.int64


def can_transpose(rows: int, columns: int) -> bool:
    """Return whether indices along either axis fit 32 bits."""
    return rows < _INT32_LENGTH and columns < _INT32_LENGTH


def may_pay_transposed(tensor: Tensor) -> bool:
    """Return whether to try coding a tensor by columns; each column takes memory, even if it is empty."""
    rows, columns = tensor.rows, tensor.columns
    filled = columns <= _FEW_COLUMNS + _COLUMNS_EACH * len(tensor.data)
    return can_transpose(rows, columns) and rows > 1 and columns > 1 and filled


def every_element(view: CsrView, negatives: int) -> Array:
    """Return a code symbol for each element; codes from `negatives` on move up by one to make room for zero."""
    shifted = view.codes.astype(np.int64) + (view.codes >= negatives)
    narrow = view.codes.dtype == np.uint8 and (not len(shifted) or shifted.max() < 256)
    out = np.full(view.lines * view.length, negatives, np.uint8 if narrow else np.uint16)
    lines = np.repeat(np.arange(view.lines), np.diff(view.indptr))
    out[lines * view.length + view.indices] = shifted
    return out


def only_nonzero(code_symbols: Array, lines: int, length: int, negatives: int) -> CsrView:
    """Undo `every_element`."""
    at = np.flatnonzero(code_symbols != negatives)
    found = code_symbols[at]
    codes = found - (found > negatives).astype(found.dtype)
    indptr = np.zeros(lines + 1, np.int64)
    if length:
        np.cumsum(np.bincount(at // length, minlength=lines), out=indptr[1:])
    return CsrView(indptr, (at % max(length, 1)).astype(index_dtype(length)), codes, lines, length)
