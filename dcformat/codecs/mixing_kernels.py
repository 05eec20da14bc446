"""The kernels of coder 3 (spec, "Coder 3"): mixing, elements and code symbols.

They trust their arguments, which `mixing` checks or makes. In names, a cell is an element of a named line and column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.adaptive_kernels import Entries, symbol_of
from dcformat.codecs.alphabet import Signed
from dcformat.codecs.logistic import MAX_ODDS, SQUASH
from dcformat.codecs.mixer import (
    LEARNING,
    LIMIT,
    SYMBOL_LEARNING,
    Mixer,
    code_signed,
    log,
    mixed_odds,
    odds_of,
    train,
    within,
)
from dcformat.codecs.rangecoder import Stream, code_bit, keep, opened, overrun, update
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]

#: The weights of nearby entries by the square of their distance: about 1024 / distance ** 5.
NEAR = np.array([0, 1024, 181, 0, 32, 18, 0, 0, 6], np.int64)


# --- elements ---------------------------------------------------------------------------------------------------


class _Shape(NamedTuple):
    """A matrix's lines and their length, and which lines and columns may hold entries (1)."""

    lines: int
    length: int
    named_lines: Array
    named_columns: Array


class _History(NamedTuple):
    """The data coded before an element.

    Attributes
    ----------
    groups : int64 ``(2, groups)``
        For each group of `lag` columns: the number of entries, and of elements.
    columns : int64 ``(5, length)``
        For each column: the number of entries, the sum of their signs, the sum of their scaled magnitudes, the number
        of entries with known magnitudes, and the sign of the element above (0: no entry, 1: positive, 2: negative).
    line : int64 ``(length,)``
        The current line: 0, or a magnitude plus 1 with its sign.
    """

    groups: Array
    columns: Array
    line: Array


class _Place(NamedTuple):
    """The place of an element: the lines before it, its column, the column's group, and its place in the group."""

    rows: int
    column: int
    group: int
    place: int


class _Line(NamedTuple):
    """The elements before one in its line.

    Attributes
    ----------
    expected : int
        The density that the line starts from, in 1/4096.
    found, seen : int
        Number of entries and of elements in the line; `grouped` is the number of entries in the group.
    previous : int
        Whether the element before is an entry.
    balance, total : int
        Sums of the entries' signs and scaled magnitudes.
    last : int
        The last entry's code, in this line or an earlier one: its magnitude plus 1 with its sign; 0 at first.
    """

    expected: int
    found: int
    seen: int
    grouped: int
    previous: int
    balance: int
    total: int
    last: int


@device
def _odds(ones, seen, density, strength):  # type: ignore[no-untyped-def]
    """Return the log-odds of `ones` among `seen`, given `strength` earlier elements of density `density` / 4096."""
    return log((ones << 12) + strength * density) - log(((seen - ones) << 12) + strength * (4096 - density))


@device
def _near_entries(line, column, lag, bits):  # type: ignore[no-untyped-def]
    """Weigh the entries coded near an element: by number and size, and by sign."""
    much = 0
    signs = 0
    for up in range(3 if lag else 1):
        for aside in range(-2, 3):
            other = column - up * lag + aside
            if other >= 0 and other < column and (up or aside < 0):
                code = line[other]
                if code:
                    weight = NEAR[up * up + aside * aside]
                    much += weight * (4 + ((abs(code) - 1) << 3 >> bits)) >> 2
                    signs += weight if code > 0 else -weight
    return within((log(much) >> 7) - 8, 1, 15) if much else 0, signs


@device
def _set_contexts(contexts, much, signs, columns, column, so_far):  # type: ignore[no-untyped-def]
    """Set the contexts of a code symbol's sign and, unless its magnitude is wide, of its magnitude."""
    along = within(so_far.balance + 4, 0, 8)
    down = within(columns[1, column] + 4, 0, 8)
    side = within((log(abs(signs)) >> 7) - 12, 1, 12) if signs else 0
    contexts[0] = 0
    contexts[1] = 1 + along * 9 + down
    contexts[2] = 82 + 12 + (side if signs > 0 else -side)
    contexts[3] = 107 + columns[4, column] * 3 + (0 if so_far.last == 0 else 1 if so_far.last > 0 else 2)
    contexts[4] = 116 + along
    if contexts[10]:
        return
    row = within(so_far.total // so_far.found >> 4, 0, 15) + 1 if so_far.found else 0
    down = within(columns[2, column] // columns[3, column] >> 4, 0, 15) + 1 if columns[3, column] else 0
    contexts[6] = 2 + row * 17 + down
    contexts[7] = 291 + much
    contexts[8] = 307 + abs(so_far.last)
    contexts[9] = 282 + row


@device
def _set_inputs(mixer, history, density, at, so_far, much):  # type: ignore[no-untyped-def]
    """Set an element's inputs, and the places of the bit models behind the last three."""
    groups, columns, places = history.groups, history.columns, mixer.places
    inputs, grouped = mixer.inputs, min(so_far.grouped, 31)
    inputs[0] = _odds(groups[0, at.group], groups[1, at.group], density, 23)
    inputs[1] = _odds(columns[0, at.column], at.rows, density, 12)
    base = (inputs[0] - log(density) + log(4096 - density) + 2048) >> 7
    places[0] = (within(base, 0, 31) << 5 | grouped) << 1 | so_far.previous
    places[1] = 2048 + (min(at.place, 63) << 5 | grouped)
    along = _odds(so_far.found, so_far.seen, so_far.expected, 25)
    places[2] = 4096 + (much << 5 | within((along + 4096) >> 8, 0, 31))
    for k in range(3):
        inputs[2 + k] = odds_of(mixer.models, places[k])


@device
def _code_cell(stream, interval, mixer, much, bit):  # type: ignore[no-untyped-def]
    """Code whether an element is an entry, by a set of weights for all elements and one for those with equal `much`."""
    one = mixed_odds(mixer, 0)
    two = mixed_odds(mixer, 1 + much)
    p = SQUASH[((one + two) >> 1) + MAX_ODDS]
    bit, interval = code_bit(stream, interval, within(p, 32, 65504), bit)
    train(mixer, 0, (bit << 16) - SQUASH[one + MAX_ODDS])
    train(mixer, 1 + much, (bit << 16) - SQUASH[two + MAX_ODDS])
    for k in range(3):
        update(mixer.models, mixer.places[k], LIMIT, bit)
    return bit, interval


@device
def _count(flags):  # type: ignore[no-untyped-def]
    total = 0
    for index in range(len(flags)):
        total += flags[index]
    return total


class _Coder(NamedTuple):
    """Everything needed to code an element: two mixers, room for contexts, the history, and the matrix."""

    cells: Mixer
    symbols: Mixer
    contexts: Array
    lag: int
    signed: Signed
    history: _History
    entries: Entries


#: Stands for an element that must be an entry, so that no decision is coded.
_FORCED = 2


@device
def _code_element(stream, interval, coder, density, at, so_far, entry, there):  # type: ignore[no-untyped-def]
    """Code whether an element is an entry, and its code symbol; return its code in the line and scaled magnitude."""
    history, signed = coder.history, coder.signed
    much, signs = _near_entries(history.line, at.column, coder.lag, signed.bits)
    if there != _FORCED:
        _set_inputs(coder.cells, history, density, at, so_far, much)
        there, interval = _code_cell(stream, interval, coder.cells, much, there)
    if not there:
        return 0, 0, interval
    _, indices, code_symbols = coder.entries
    _set_contexts(coder.contexts, much, signs, history.columns, at.column, so_far)
    negative, magnitude, interval = code_signed(
        stream, interval, coder.symbols, coder.contexts, signed, np.int64(code_symbols[entry])
    )
    if stream.decode:
        indices[entry] = at.column
        code_symbols[entry] = symbol_of(negative, magnitude, signed.negatives)
    return (-1 if negative else 1) * (magnitude + 1), magnitude << 8 >> signed.bits, interval


@device
def _note(history, at, code, scaled):  # type: ignore[no-untyped-def]
    """Add an element to the history of its column, its group and its line."""
    columns, column = history.columns, at.column
    if code:
        columns[0, column] += 1
        columns[1, column] += 1 if code > 0 else -1
        columns[2, column] += scaled
        columns[3, column] += 1
        history.groups[0, at.group] += 1
    columns[4, column] = 0 if code == 0 else 1 if code > 0 else 2
    history.line[column] = code
    history.groups[1, at.group] += 1


@device
def _after(so_far, code, scaled):  # type: ignore[no-untyped-def]
    """Return what is known of a line after one more element."""
    expected, found, seen, grouped, _, balance, total, last = so_far
    if not code:
        return _Line(expected, found, seen + 1, grouped, 0, balance, total, last)
    sign = 1 if code > 0 else -1
    return _Line(expected, found + 1, seen + 1, grouped + 1, 1, balance + sign, total + scaled, code)


@device
def _in_new_group(so_far):  # type: ignore[no-untyped-def]
    expected, found, seen, _, previous, balance, total, last = so_far
    return _Line(expected, found, seen, 0, previous, balance, total, last)


@device
def _code_cells(stream, state, coder, shape):  # type: ignore[no-untyped-def]
    """Code a matrix element by element; the entries' code symbols follow their elements."""
    interval = opened(state)
    indptr, indices, _ = coder.entries
    nnz = len(indices)
    breadth, height = _count(shape.named_columns), _count(shape.named_lines)
    left = breadth * height
    if left < nnz or not nnz:
        return 1
    density = within((nnz << 12) // left, 1, 4095)
    before = (nnz << 4) // height
    entry, rows, last = 0, 0, 0
    for row in range(shape.lines):
        if stream.decode:
            indptr[row + 1] = entry
            if overrun(stream, interval):
                break
        if not shape.named_lines[row] or entry == nnz:
            continue
        coder.history.line[:] = 0
        expected = within((density + (before << 8) // breadth) >> 1, 1, 4095)
        so_far, group, place = _Line(expected, 0, 0, 0, 0, 0, 0, last), 0, -1
        stop = indptr[row + 1]
        for column in range(shape.length):
            place += 1
            if place == max(coder.lag, 1):
                place = 0
                group += 1
            if place == 0:
                so_far = _in_new_group(so_far)
            if not shape.named_columns[column]:
                continue
            if entry == nnz:
                break
            at = _Place(rows, column, group, place)
            there = 1 if not stream.decode and entry < stop and indices[entry] == column else 0
            if nnz - entry == left:
                there = _FORCED
            code, scaled, interval = _code_element(stream, interval, coder, density, at, so_far, entry, there)
            _note(coder.history, at, code, scaled)
            so_far = _after(so_far, code, scaled)
            left -= 1
            entry += 1 if code else 0
        last = so_far.last
        before = (before + (so_far.found << 4)) >> 1
        rows += 1
        if stream.decode:
            indptr[row + 1] = entry
    keep(state, interval)
    return 1 if overrun(stream, interval) else 0


_CELLS = (
    "int64(int64[::1], uint8[::1], int64, int32[::1], int32[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1], int64, int64, int64, int64, int64, int64, int64[::1], int64[::1],"
    " int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], int32[::1], uint16[::1])"
)


def _cells_work(lag: int, lines: int, length: int, width: int, named_lines: Array, named_columns: Array,
                indices: Array) -> int:  # fmt: skip
    cells = int(named_lines.sum()) * (length + (45 if lag else 35) * int(named_columns.sum()))
    return lines + length + cells + (60 + 35 * width) * len(indices)


@kernel(_CELLS, work=_cells_work)
def encode_cells(state, buf, end, models, symbol_models, places, inputs, weights, symbol_weights, used, symbol_used,  # type: ignore[no-untyped-def]
                 contexts, lag, lines, length, width, negatives, positives, named_lines, named_columns, groups,
                 columns, line, indptr, indices, code_symbols):  # fmt: skip
    """Append the entries of a matrix for `decode_cells`, which has the same parameters."""
    coder = _Coder(
        Mixer(models, places, inputs, weights, used, LEARNING),
        Mixer(symbol_models, places, inputs, symbol_weights, symbol_used, SYMBOL_LEARNING), contexts, lag,
        Signed(width, negatives, positives), _History(groups, columns, line), Entries(indptr, indices, code_symbols),
    )  # fmt: skip
    return _code_cells(Stream(False, buf, end), state, coder, _Shape(lines, length, named_lines, named_columns))


@kernel(_CELLS, work=_cells_work)
def decode_cells(state, buf, end, models, symbol_models, places, inputs, weights, symbol_weights, used, symbol_used,  # type: ignore[no-untyped-def]
                 contexts, lag, lines, length, width, negatives, positives, named_lines, named_columns, groups,
                 columns, line, indptr, indices, code_symbols):  # fmt: skip
    """Read the entries of a matrix; return 1 if the stream, or the named lines and columns, cannot hold them.

    Parameters
    ----------
    state, buf, end
        As in `rangecoder.Stream`.
    models, places, inputs, weights, used
        The `Mixer` of elements.
    symbol_models, symbol_weights, symbol_used
        The `Mixer` of code symbols.
    contexts : int64 ``(11,)``
        Room for the contexts of a code symbol's sign (5) and magnitude (5); the last item says whether it is wide.
    lag : int
        Distance back in the line to the element above; 0 if no element above is known.
    lines, length, named_lines, named_columns
        As in `_Shape`.
    width, negatives, positives : int
        As in `Signed`.
    groups, columns, line
        As in `_History`.
    indptr, indices, code_symbols
        As in `Entries`.
    """
    coder = _Coder(
        Mixer(models, places, inputs, weights, used, LEARNING),
        Mixer(symbol_models, places, inputs, symbol_weights, symbol_used, SYMBOL_LEARNING), contexts, lag,
        Signed(width, negatives, positives), _History(groups, columns, line), Entries(indptr, indices, code_symbols),
    )  # fmt: skip
    return _code_cells(Stream(True, buf, end), state, coder, _Shape(lines, length, named_lines, named_columns))
