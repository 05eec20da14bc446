"""Coders 0 and 1 without compiled kernels: NumPy and bitarray do the kernels' work at a tenth of the speed.

Without Numba, a kernel runs as plain Python, which takes minutes where these functions take seconds. They share no code
with the kernels, and the tests use them as the kernels' oracle.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.huffman import UNUSED, Lengths

Array = npt.NDArray[Any]


def read_symbols(data: npt.NDArray[np.uint8], at: int, end: int, lengths: Lengths, out: npt.NDArray[np.uint8]) -> int:
    """Fill `out` with symbols from bit `at` on; return the bit after the last, or -1 past bit `end`."""
    from bitarray import bitarray
    from bitarray.util import canonical_decode

    used = np.flatnonzero(lengths != UNUSED)
    if len(used) == 1:
        out[:] = used[0]
        return at
    order = used[np.lexsort((used, lengths[used]))]
    bits = bitarray(endian="little")
    bits.frombytes(data[at >> 3 : (end + 7) >> 3].tobytes())
    bits = bits[at & 7 : end - (at & ~7)]
    codes = canonical_decode(bits, np.bincount(lengths[used]).tolist(), order.tolist())
    try:
        symbols = np.fromiter(islice(codes, len(out)), np.uint8)
    except ValueError:  # The last code is incomplete.
        return -1
    if len(symbols) < len(out):
        return -1
    out[:] = symbols
    return at + int(lengths[symbols].sum())


def place(
    gaps: Array, escape: int, stored: int, lines: int, length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Return `indptr` and `indices` of gap symbols (int64), or None where `index.place32` returns -1."""
    entry = gaps != escape
    if int(entry.sum()) != stored or (len(gaps) and not entry[-1]):
        return None
    positions = (np.cumsum(gaps.astype(np.int64) + entry) - 1)[entry]
    if stored and int(positions[-1]) >= lines * length:
        return None
    line = positions // max(length, 1)
    indptr = np.zeros(lines + 1, np.int64)
    np.cumsum(np.bincount(line, minlength=lines), out=indptr[1:])
    return indptr, positions - line * length
