"""The relative index (spec, "Relative index"): positions to runs of zeros, with escapes or fillers, and back.

Deep Compression (Han et al. 2015, section 2) bridges a long run with a filler entry, which has a code. An escape symbol
has no code and takes 6 to 13 % less, so the writer uses fillers only on request.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.words import place8
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]


@device
def _runs(indptr, indices, length, first, last, out):  # type: ignore[no-untyped-def]
    previous = -1
    at = 0
    for line in range(first, last):
        start = (line - first) * length
        for entry in range(indptr[line], indptr[line + 1]):
            position = start + np.int64(indices[entry])
            out[at] = position - previous - 1
            previous = position
            at += 1


@kernel(
    "void(const int64[::1], const int32[::1], int64, int64, int64, int64[::1])",
    work=lambda indptr, out: len(indptr) + 2 * len(out),
)
def runs32(indptr, indices, length, first, last, out):  # type: ignore[no-untyped-def]
    """Write the number of zeros before each entry of lines `first` to `last` - 1, counted across the ends of lines."""
    _runs(indptr, indices, length, first, last, out)


@kernel(
    "void(const int64[::1], const int64[::1], int64, int64, int64, int64[::1])",
    work=lambda indptr, out: len(indptr) + 2 * len(out),
)
def runs64(indptr, indices, length, first, last, out):  # type: ignore[no-untyped-def]
    """`runs32` for 64-bit indices."""
    _runs(indptr, indices, length, first, last, out)


@kernel("int64(const int64[::1], int64, int64[::1])", work=lambda out: len(out))
def escape(runs, symbol, out):  # type: ignore[no-untyped-def]
    """Write each run as escapes (`symbol`, for `symbol` zeros each), then the rest; return the number of symbols."""
    at = 0
    for run in runs:
        while run >= symbol:
            out[at] = symbol
            at += 1
            run -= symbol
        out[at] = run
        at += 1
    return at


@kernel("int64(const int64[::1], const uint8[::1], int64, int64[::1], uint8[::1])", work=lambda gaps: len(gaps))
def fill(runs, codes, filler, gaps, out):  # type: ignore[no-untyped-def]
    """Write runs and codes plus 1, with a filler (gap `filler`, code symbol 0) for each `filler` + 1 zeros."""
    at = 0
    for entry in range(len(runs)):
        run = runs[entry]
        while run > filler:
            gaps[at] = filler
            out[at] = 0
            at += 1
            run -= filler + 1
        gaps[at] = run
        out[at] = codes[entry] + 1
        at += 1
    return at


class _Matrix(NamedTuple):
    """The matrix that gap symbols fill, and the gap symbol that is not an entry."""

    lines: int
    length: int
    escape: int
    indptr: Array
    indices: Array


@device
def _place(gaps, first, last, matrix, line, position, at):  # type: ignore[no-untyped-def]
    """Place gap symbols first .. last; return the final line (-1 if outside), position in it, and number of entries."""
    lines, length, escape, indptr, indices = matrix
    for number in range(first, last):
        gap = np.int64(gaps[number])
        entry = np.int64(gap != escape)
        position += gap + entry
        while position >= length:
            line += 1
            if line >= lines:
                return np.int64(-1), position, at
            indptr[line] = at
            position -= length
        if entry:
            if at >= len(indices):
                return np.int64(-1), position, at
            indices[at] = position
            at += 1
    return line, position, at


@device
def _end(gaps, count, matrix, line, at):  # type: ignore[no-untyped-def]
    """Close the remaining lines if the symbols end with the last entry."""
    last_is_escape = count > 0 and (matrix.lines == 0 or gaps[count - 1] == matrix.escape)
    if line < 0 or at != len(matrix.indices) or last_is_escape:
        return -1
    while line < matrix.lines:
        line += 1
        matrix.indptr[line] = at
    return 0


@kernel(
    "int64(const uint8[::1], int64, int64, int64, int64, int64[::1], int32[::1])",
    work=lambda gaps, lines: 2 * len(gaps) + lines,
)
def place32(gaps, count, escape, length, lines, indptr, indices):  # type: ignore[no-untyped-def]
    """Turn the first `count` gap symbols into `indptr` and `indices`.

    Return 0, or -1 unless they end exactly with the last entry and stay within the lines.
    """
    matrix = _Matrix(lines, length, escape, indptr, indices)
    line, position, at, number = np.int64(0), np.int64(-1), np.int64(0), np.int64(0)
    while number < count and line >= 0:
        if number + 8 <= count and at + 8 <= len(indices):
            # Most symbols are entries of the current line. If one of the eight is not, later stores overwrite these.
            total = place8(gaps, number, escape, position, indices, at)
            if position + total < length:
                position += total
                at += 8
                number += 8
                continue
        last = min(count, number + 8)
        line, position, at = _place(gaps, number, last, matrix, line, position, at)
        number = last
    return _end(gaps, count, matrix, line, at)


@kernel(
    "int64(const int64[::1], int64, int64, int64, int64, int64[::1], int64[::1])",
    work=lambda gaps, lines: 2 * len(gaps) + lines,
)
def place64(gaps, count, escape, length, lines, indptr, indices):  # type: ignore[no-untyped-def]
    """`place32` for 64-bit gaps and indices."""
    matrix = _Matrix(lines, length, escape, indptr, indices)
    line, _, at = _place(gaps, 0, count, matrix, np.int64(0), np.int64(-1), np.int64(0))
    return _end(gaps, count, matrix, line, at)


@kernel("int64(int64[::1], const uint8[::1], int64, uint8[::1])", work=lambda gaps: len(gaps))
def unfill(gaps, code_symbols, filler, out):  # type: ignore[no-untyped-def]
    """Merge fillers into runs in place, turn code symbols into codes, and return the entries; -1 for a stray filler."""
    at = 0
    run = np.int64(0)
    for entry in range(len(gaps)):
        run += gaps[entry]
        if code_symbols[entry]:
            gaps[at] = run
            out[at] = code_symbols[entry] - 1
            at += 1
            run = np.int64(0)
        elif gaps[entry] != filler:
            return -1
        else:
            run += 1
    if run:
        return -1
    return at


@device
def _transpose(indptr, indices, values, starts, new_indices, new_values):  # type: ignore[no-untyped-def]
    """Sort entries by the other axis, by counting; `starts` is zero, and becomes its `indptr`."""
    for entry in range(len(indices)):
        starts[np.uint32(indices[entry]) + 1] += 1
    for line in range(1, len(starts)):
        starts[line] += starts[line - 1]
    for line in range(len(indptr) - 1):
        for entry in range(indptr[line], indptr[line + 1]):
            other = np.uint32(indices[entry])
            at = starts[other]
            starts[other] = at + 1
            new_indices[at] = line
            new_values[at] = values[entry]
    # Now each line starts where the next one should.
    for line in range(len(starts) - 1, 0, -1):
        starts[line] = starts[line - 1]
    starts[0] = 0


def _transpose_work(indptr: Array, indices: Array, starts: Array) -> int:
    return len(indptr) + 3 * len(indices) + 2 * len(starts)


def _transpose_signature(bits: int) -> str:
    return f"void(const int64[::1], const int32[::1], const uint{bits}[::1], int64[::1], int32[::1], uint{bits}[::1])"


@kernel(_transpose_signature(8), work=_transpose_work)
def _transpose8(indptr, indices, values, starts, new_indices, new_values):  # type: ignore[no-untyped-def]
    _transpose(indptr, indices, values, starts, new_indices, new_values)


@kernel(_transpose_signature(16), work=_transpose_work)
def _transpose16(indptr, indices, values, starts, new_indices, new_values):  # type: ignore[no-untyped-def]
    _transpose(indptr, indices, values, starts, new_indices, new_values)


@kernel(_transpose_signature(32), work=_transpose_work)
def _transpose32(indptr, indices, values, starts, new_indices, new_values):  # type: ignore[no-untyped-def]
    _transpose(indptr, indices, values, starts, new_indices, new_values)


@kernel(_transpose_signature(64), work=_transpose_work)
def _transpose64(indptr, indices, values, starts, new_indices, new_values):  # type: ignore[no-untyped-def]
    _transpose(indptr, indices, values, starts, new_indices, new_values)


#: The kernel for each size of a value, and the dtype of its bit patterns.
_TRANSPOSING = {1: (_transpose8, "u1"), 2: (_transpose16, "u2"), 4: (_transpose32, "u4"), 8: (_transpose64, "u8")}


def transpose(indptr: Array, indices: Array, values: Array, lines: int) -> tuple[Array, Array, Array]:
    """Return indptr, indices and values of the transposed matrix, which has `lines` lines (fewer than 2 ** 31).

    The caller has proved that all indices are below `lines`. The values, or codes, take 1, 2, 4 or 8 bytes each.
    """
    starts, new_indices = np.zeros(lines + 1, np.int64), np.empty(len(indices), np.int32)
    new_values = np.empty(len(values), values.dtype)
    run, bits = _TRANSPOSING[values.itemsize]
    run(indptr, indices, values.view(bits), starts, new_indices, new_values.view(bits))
    return starts, new_indices, new_values
