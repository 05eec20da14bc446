"""The kernels of coder 2 (spec, "Coder 2"): runs, elements and code symbols.

They trust their arguments, which `adaptive` checks or makes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.alphabet import Signed
from dcformat.codecs.rangecoder import COUNT_MASK, Stream, code_adaptive, code_tree, keep, opened, overrun
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]


class Entries(NamedTuple):
    """The arrays of a matrix: read while encoding, filled while decoding."""

    indptr: Array
    indices: Array
    code_symbols: Array


class _Matrix(NamedTuple):
    """A matrix of `lines` lines of `length` elements, its entries, and the range of their code symbols."""

    lines: int
    length: int
    signed: Signed
    entries: Entries


class _Columns(NamedTuple):
    """The state of the variant with contexts: each column's density and usual magnitude, and the signs of a line."""

    density: Array
    magnitude: Array
    line: Array


@device
def code_signed(stream, interval, models, sign, tree, limit, signed, symbol):  # type: ignore[no-untyped-def]
    """Code a code symbol: its sign by bit model `sign`, its magnitude by a tree of ``2 ** bits`` models from `tree`.

    A bit that can have only one value is not coded, so no stream can hold a code symbol out of range.
    """
    bits, negatives, positives = signed
    negative = 1 if symbol < negatives else 0
    if negatives and positives:
        negative, interval = code_adaptive(stream, interval, models, sign, limit, negative)
    elif stream.decode:
        negative = 1 if negatives else 0
    count = negatives if negative else positives
    magnitude = negatives - 1 - symbol if negative else symbol - negatives
    node = 1
    for shift in range(bits - 1, -1, -1):
        bit = (magnitude >> shift) & 1
        if ((((node << 1) | 1) << shift) - (1 << bits)) < count:
            bit, interval = code_adaptive(stream, interval, models, tree + node, limit, bit)
        elif stream.decode:
            bit = 0
        node = (node << 1) | bit
    magnitude = node - (1 << bits)
    return negative, magnitude, interval


@device
def symbol_of(negative, magnitude, negatives):  # type: ignore[no-untyped-def]
    """Return the code symbol of a sign and a magnitude."""
    return negatives - 1 - magnitude if negative else negatives + magnitude


# --- the variant of runs ----------------------------------------------------------------------------------------


@device
def _code_runs(stream, state, models, limit, bits, matrix):  # type: ignore[no-untyped-def]
    interval = opened(state)
    lines, length, signed, (indptr, indices, code_symbols) = matrix
    escape = (1 << bits) - 1
    sign = 1 << bits
    line = 0
    column = 0
    ahead = 0
    run = 0
    failed = 0
    for entry in range(len(indices)):
        if not stream.decode:
            while indptr[ahead + 1] <= entry:
                ahead += 1
            run = (ahead - line) * length + indices[entry] - column
        while True:
            part, interval = code_tree(stream, interval, models, 0, bits, limit, min(run, escape))
            run -= part
            column += part
            while column >= length:
                column -= length
                line += 1
                if stream.decode and line < lines:
                    indptr[line] = entry
            if stream.decode and (line >= lines or overrun(stream, interval)):
                failed = 1
                break
            if part < escape:
                break
        if failed:
            break
        if stream.decode:
            indices[entry] = column
        column += 1
        symbol = np.int64(code_symbols[entry])
        negative, magnitude, interval = code_signed(stream, interval, models, sign, sign, limit, signed, symbol)
        if stream.decode:
            code_symbols[entry] = symbol_of(negative, magnitude, signed.negatives)
    if stream.decode:
        for after in range(line + 1, lines + 1):
            indptr[after] = len(indices)
    keep(state, interval)
    return failed


_RUNS = (
    "int64(int64[::1], uint8[::1], int64, int32[::1], int64, int64, int64, int64, int64, int64, int64,"
    " int64[::1], int32[::1], uint16[::1])"
)


def _runs_work(bits: int, lines: int, length: int, width: int, indices: Array) -> int:
    parts = len(indices) + lines * length // ((1 << bits) - 1)
    return lines + (3 * bits + 1) * parts + (3 * width + 8) * len(indices)


@kernel(_RUNS, work=_runs_work)
def encode_runs(state, buf, end, models, limit, bits, lines, length, width, negatives, positives, indptr, indices,  # type: ignore[no-untyped-def]
                 code_symbols):  # fmt: skip
    """Append the entries of a matrix for `decode_runs`, which has the same parameters."""
    entries = Entries(indptr, indices, code_symbols)
    matrix = _Matrix(lines, length, Signed(width, negatives, positives), entries)
    return _code_runs(Stream(False, buf, end), state, models, limit, bits, matrix)


@kernel(_RUNS, work=_runs_work)
def decode_runs(state, buf, end, models, limit, bits, lines, length, width, negatives, positives, indptr, indices,  # type: ignore[no-untyped-def]
                 code_symbols):  # fmt: skip
    """Read the entries of a matrix; return 1 if they lie outside it or the stream ends early, else 0.

    Parameters
    ----------
    state, buf, end
        As in `rangecoder.Stream`.
    models : int32
        Bit models of runs (``2 ** bits``), of the sign, and of magnitudes.
    limit : int
        Maximum number of bits that a bit model averages over.
    bits : int
        Width of a run's symbol.
    lines, length : int
        As in `_Matrix`.
    width, negatives, positives : int
        As in `Signed`.
    indptr, indices, code_symbols
        As in `Entries`.
    """
    entries = Entries(indptr, indices, code_symbols)
    matrix = _Matrix(lines, length, Signed(width, negatives, positives), entries)
    return _code_runs(Stream(True, buf, end), state, models, limit, bits, matrix)


# --- the variant with contexts ----------------------------------------------------------------------------------


@device
def _level(stretch, probability):  # type: ignore[no-untyped-def]
    return min(max((stretch[probability >> 4] + 1472) // 192, 0), 15)


@device
def _magnitude_context(typical, usual):  # type: ignore[no-untyped-def]
    """Return the context of a magnitude from its line's `typical` and its column's `usual` one (-1 if unknown)."""
    if typical >= 0 and usual >= 0:
        return (typical + usual) >> 5
    if typical >= 0:
        return typical >> 4
    if usual >= 0:
        return usual >> 4
    return 8


@device
def _sign_context(before, above):  # type: ignore[no-untyped-def]
    return (1 if before > 0 else 2 if before < 0 else 0) * 3 + (1 if above > 0 else 2 if above < 0 else 0)


class _Tuning(NamedTuple):
    """The writer's choices: the number of bits that a bit model averages over, the lag, and the first density."""

    limit: int
    lag: int
    density: int


@device
def _code_presence(stream, interval, models, stretch, limit, around, densities, there):  # type: ignore[no-untyped-def]
    """Code whether an element is an entry, given its neighbours and the densities along its line and its column."""
    before, above = around
    along, down = densities
    context = (_level(stretch, along) << 4 | _level(stretch, down)) << 2
    context |= (1 if before else 0) << 1 | (1 if above else 0)
    if not models[context] & COUNT_MASK:
        models[context] = (along + down) >> 1 << 15
    return code_adaptive(stream, interval, models, context, limit, there)


@device
def _speed_of(row):  # type: ignore[no-untyped-def]
    """Return how slowly the densities of columns change in a row: they change faster in the first rows."""
    speed = 2
    while speed < 5 and (1 << (speed - 1)) <= row:
        speed += 1
    return speed


@device
def _note(columns, column, along, speed, there):  # type: ignore[no-untyped-def]
    """Adapt the density of a column to an element, and return that of the line, `along`, adapted too."""
    density = columns.density[column]
    if there:
        columns.density[column] = density + ((65535 - density) >> speed)
        return along + ((65535 - along) >> 5)
    columns.density[column] = density - (density >> speed)
    return along - (along >> 5)


@device
def _code_cell_symbol(stream, interval, models, limit, signed, around, magnitudes, symbol):  # type: ignore[no-untyped-def]
    """Code an entry's code symbol, given the neighbours and the magnitudes typical of its line and its column."""
    before, above = around
    typical, usual = magnitudes
    tree = 1033 + (0 if signed.bits > 8 else _magnitude_context(typical, usual) << signed.bits)
    return code_signed(stream, interval, models, 1024 + _sign_context(before, above), tree, limit, signed, symbol)


@device
def _code_cells(stream, state, models, stretch, tuning, columns, matrix):  # type: ignore[no-untyped-def]
    interval = opened(state)
    lines, length, signed, (indptr, indices, code_symbols) = matrix
    limit, lag, density = tuning
    nnz = len(indices)
    left = lines * length
    entry = 0
    for row in range(lines):
        if entry == nnz:
            if stream.decode:
                indptr[row + 1] = nnz
            continue
        columns.line[:] = 0
        along, typical, speed = density, -1, _speed_of(row)
        last = indptr[row + 1]
        for column in range(length):
            if entry == nnz:
                break
            around = (columns.line[column - 1] if column else 0, columns.line[column - lag] if column >= lag else 0)
            there = 1
            if nnz - entry < left:
                if not stream.decode:
                    there = 1 if entry < last and indices[entry] == column else 0
                densities = (along, columns.density[column])
                there, interval = _code_presence(stream, interval, models, stretch, limit, around, densities, there)
            left -= 1
            along = _note(columns, column, along, speed, there)
            if not there:
                continue
            usual = columns.magnitude[column]
            negative, magnitude, interval = _code_cell_symbol(
                stream, interval, models, limit, signed, around, (typical, usual), np.int64(code_symbols[entry])
            )
            if stream.decode:
                indices[entry] = column
                code_symbols[entry] = symbol_of(negative, magnitude, signed.negatives)
            entry += 1
            columns.line[column] = -1 if negative else 1
            scaled = magnitude << 8 >> signed.bits
            columns.magnitude[column] = scaled if usual < 0 else usual + ((scaled - usual) >> 2)
            typical = scaled if typical < 0 else typical + ((scaled - typical) >> 3)
        if stream.decode:
            indptr[row + 1] = entry
            if overrun(stream, interval):
                break
    keep(state, interval)
    return 1 if overrun(stream, interval) else 0


_CELLS = (
    "int64(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64, int64, int64, int64, int64, int64,"
    " int64, int64, int32[::1], int32[::1], int32[::1], int64[::1], int32[::1], uint16[::1])"
)


def _cells_work(lines: int, length: int, width: int, indices: Array) -> int:
    return lines + 8 * lines * length + (3 * width + 10) * len(indices)


@kernel(_CELLS, work=_cells_work)
def encode_cells(state, buf, end, models, stretch, limit, lag, lines, length, density, width, negatives, positives,  # type: ignore[no-untyped-def]
                  column_density, column_magnitude, line, indptr, indices, code_symbols):  # fmt: skip
    """Append the entries of a matrix for `decode_cells`, which has the same parameters."""
    tuning, columns = _Tuning(limit, lag, density), _Columns(column_density, column_magnitude, line)
    entries = Entries(indptr, indices, code_symbols)
    matrix = _Matrix(lines, length, Signed(width, negatives, positives), entries)
    return _code_cells(Stream(False, buf, end), state, models, stretch, tuning, columns, matrix)


@kernel(_CELLS, work=_cells_work)
def decode_cells(state, buf, end, models, stretch, limit, lag, lines, length, density, width, negatives, positives,  # type: ignore[no-untyped-def]
                  column_density, column_magnitude, line, indptr, indices, code_symbols):  # fmt: skip
    """Read the entries of a matrix; return 1 if the stream ends early, else 0.

    Parameters
    ----------
    state, buf, end
        As in `rangecoder.Stream`.
    models : int32
        Bit models of elements (1024), of signs (9), and of magnitudes.
    stretch : int64
        `logistic.STRETCH`.
    limit : int
        Maximum number of bits that a bit model averages over.
    lag : int
        Distance back in the line to an element's second neighbour.
    lines, length : int
        As in `_Matrix`.
    density : int
        The density of entries that each line starts from, in 1/65536.
    width, negatives, positives : int
        As in `Signed`.
    column_density, column_magnitude, line
        As in `_Columns`.
    indptr, indices, code_symbols
        As in `Entries`.
    """
    tuning, columns = _Tuning(limit, lag, density), _Columns(column_density, column_magnitude, line)
    entries = Entries(indptr, indices, code_symbols)
    matrix = _Matrix(lines, length, Signed(width, negatives, positives), entries)
    return _code_cells(Stream(True, buf, end), state, models, stretch, tuning, columns, matrix)
