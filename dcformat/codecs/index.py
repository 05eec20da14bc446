"""The relative index (spec, "Relative index"): positions as zero runs, escaped or bridged by fillers, and back.

Deep Compression (Han et al. 2015, section 2) bridges a long run with a filler entry that carries a label; an escape
symbol that carries none is 6-13 % smaller, so fillers are written only on request.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.words import place8
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]


@device
def _runs(pointers, indices, length, first, last, out):  # type: ignore[no-untyped-def]
    previous = -1
    at = 0
    for line in range(first, last):
        start = (line - first) * length
        for entry in range(pointers[line], pointers[line + 1]):
            position = start + np.int64(indices[entry])
            out[at] = position - previous - 1
            previous = position
            at += 1


@kernel(
    "void(const int64[::1], const int32[::1], int64, int64, int64, int64[::1])",
    work=lambda pointers, out: len(pointers) + 2 * len(out),
)
def runs32(pointers, indices, length, first, last, out):  # type: ignore[no-untyped-def]
    """Write the zeros before each entry of lines first .. last, counted over the lines laid end to end."""
    _runs(pointers, indices, length, first, last, out)


@kernel(
    "void(const int64[::1], const int64[::1], int64, int64, int64, int64[::1])",
    work=lambda pointers, out: len(pointers) + 2 * len(out),
)
def runs64(pointers, indices, length, first, last, out):  # type: ignore[no-untyped-def]
    """`runs32` for 64-bit indices."""
    _runs(pointers, indices, length, first, last, out)


@kernel("int64(const int64[::1], int64, int64[::1])", work=lambda out: len(out))
def escape(runs, most, out):  # type: ignore[no-untyped-def]
    """Write each run as escapes (`most`), each for as many zeros, and the rest; return the number of symbols."""
    at = 0
    for run in runs:
        while run >= most:
            out[at] = most
            at += 1
            run -= most
        out[at] = run
        at += 1
    return at


@kernel("int64(const int64[::1], const uint8[::1], int64, int64[::1], uint8[::1])", work=lambda gaps: len(gaps))
def fill(runs, labels, most, gaps, out):  # type: ignore[no-untyped-def]
    """Write runs and labels (plus 1) with a filler (gap `most`, label 0) for every most + 1 zeros; return the count."""
    at = 0
    for entry in range(len(runs)):
        run = runs[entry]
        while run > most:
            gaps[at] = most
            out[at] = 0
            at += 1
            run -= most + 1
        gaps[at] = run
        out[at] = labels[entry] + 1
        at += 1
    return at


@device
def _place(gaps, first, last, most, length, lines, line, position, at, pointers, indices):  # type: ignore[no-untyped-def]
    """Place gap symbols first .. last; return where that ends: line, position in it, entries, or line -1 if outside."""
    stored = len(indices)
    for number in range(first, last):
        gap = np.int64(gaps[number])
        entry = np.int64(gap != most)
        position += gap + entry
        while position >= length:
            line += 1
            if line >= lines:
                return np.int64(-1), position, at
            pointers[line] = at
            position -= length
        if entry:
            if at >= stored:
                return np.int64(-1), position, at
            indices[at] = position
            at += 1
    return line, position, at


@device
def _end(gaps, count, most, lines, line, at, pointers, stored):  # type: ignore[no-untyped-def]
    """Close the lines left, if the symbols have ended with the last entry."""
    if line < 0 or at != stored or (count > 0 and (lines == 0 or gaps[count - 1] == most)):
        return -1
    while line < lines:
        line += 1
        pointers[line] = at
    return 0


@kernel(
    "int64(const uint8[::1], int64, int64, int64, int64, int64[::1], int32[::1])",
    work=lambda gaps, lines: 2 * len(gaps) + lines,
)
def place32(gaps, count, most, length, lines, pointers, indices):  # type: ignore[no-untyped-def]
    """Turn gap symbols into line pointers and indices.

    Return 0, or -1 unless they end exactly with the last entry and stay within the lines.
    """
    line, position, at, number = np.int64(0), np.int64(-1), np.int64(0), np.int64(0)
    while number < count and line >= 0:
        if number + 8 <= count and at + 8 <= len(indices):
            # Most symbols are entries of the line begun. If one of the eight is not, what is stored is written over.
            total = place8(gaps, number, most, position, indices, at)
            if position + total < length:
                position += total
                at += 8
                number += 8
                continue
        last = min(count, number + 8)
        line, position, at = _place(gaps, number, last, most, length, lines, line, position, at, pointers, indices)
        number = last
    return _end(gaps, count, most, lines, line, at, pointers, len(indices))


@kernel(
    "int64(const int64[::1], int64, int64, int64, int64, int64[::1], int64[::1])",
    work=lambda gaps, lines: 2 * len(gaps) + lines,
)
def place64(gaps, count, most, length, lines, pointers, indices):  # type: ignore[no-untyped-def]
    """`place32` for 64-bit gaps and indices."""
    start, before = np.int64(0), np.int64(-1)
    line, _, at = _place(gaps, 0, count, most, length, lines, start, before, start, pointers, indices)
    return _end(gaps, count, most, lines, line, at, pointers, len(indices))


@kernel("int64(int64[::1], const uint8[::1], int64, uint8[::1])", work=lambda gaps: len(gaps))
def unfill(gaps, labels, most, out):  # type: ignore[no-untyped-def]
    """Turn fillers into runs in place and drop them from the labels; return the entries, or -1 for a lone filler."""
    at = 0
    run = np.int64(0)
    for entry in range(len(gaps)):
        run += gaps[entry]
        if labels[entry]:
            gaps[at] = run
            out[at] = labels[entry] - 1
            at += 1
            run = np.int64(0)
        elif gaps[entry] != most:
            return -1
        else:
            run += 1
    if run:
        return -1
    return at


@device
def _transpose(pointers, indices, labels, other, new_indices, new_labels):  # type: ignore[no-untyped-def]
    for line in range(len(pointers) - 1):
        for entry in range(pointers[line], pointers[line + 1]):
            at = other[indices[entry]]
            other[indices[entry]] = at + 1
            new_indices[at] = line
            new_labels[at] = labels[entry]


@kernel(
    "void(const int64[::1], const int32[::1], const uint8[::1], int64[::1], int32[::1], uint8[::1])",
    work=lambda pointers, indices: len(pointers) + len(indices),
)
def transpose8(pointers, indices, labels, other, new_indices, new_labels):  # type: ignore[no-untyped-def]
    """Sort by the other axis, counting; `other` holds each of its lines' start, and on return its end."""
    _transpose(pointers, indices, labels, other, new_indices, new_labels)


@kernel(
    "void(const int64[::1], const int32[::1], const int64[::1], int64[::1], int32[::1], int64[::1])",
    work=lambda pointers, indices: len(pointers) + len(indices),
)
def transpose64(pointers, indices, labels, other, new_indices, new_labels):  # type: ignore[no-untyped-def]
    """`transpose8` for 64-bit labels."""
    _transpose(pointers, indices, labels, other, new_indices, new_labels)


def transpose(pointers: Array, indices: Array, labels: Array, lines: int) -> tuple[Array, Array, Array]:
    """Return pointers, indices and labels of the transposed matrix, which has `lines` lines (below 2 ** 31)."""
    other = np.zeros(lines + 1, np.int64)
    np.cumsum(np.bincount(indices, minlength=lines), out=other[1:])
    cursor = other[:-1].copy()
    new_indices = np.empty(len(indices), np.int32)
    if labels.dtype == np.uint8:
        new_labels: Array = np.empty(len(labels), np.uint8)
        transpose8(pointers, indices, labels, cursor, new_indices, new_labels)
        return other, new_indices, new_labels
    order = np.empty(len(labels), np.int64)
    transpose64(pointers, indices, np.arange(len(labels)), cursor, new_indices, order)
    return other, new_indices, labels[order]
