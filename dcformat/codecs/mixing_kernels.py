"""The kernels of coder 3 (spec, "Coder 3"): mixing, cells and labels. They trust their arguments: see `mixing`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.logistic import LOG, MOST, SQUASH, STRETCH
from dcformat.codecs.rangecoder import RATE, code_adaptive, code_bit, update
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]

INPUTS = 5
#: How many bits a model's probability may rest on.
LIMIT = 510
#: TRUST[n]: how much of a model's log-odds counts that has seen n bits, in 1/256.
TRUST = np.array([2560 * n // (10 * n + 18) for n in range(512)], np.int64)
#: LEARNING[n]: the step of a set of weights that has been used n times (more often: the last).
LEARNING = np.array([4 + 75 // (n + 4) for n in range(128)], np.int64)
LABEL_LEARNING = np.array([6 + 155 // (n + 4) for n in range(128)], np.int64)
#: How near cells count, by the square of their distance: about 1024 / distance ** 5.
NEAR = np.array([0, 1024, 181, 0, 32, 18, 0, 0, 6], np.int64)


@device
def _log(number):  # type: ignore[no-untyped-def]
    extra = 0
    while number >= 8192:
        number >>= 1
        extra += 256
    return LOG[number] + extra


@device
def _odds(ones, seen, density, strength):  # type: ignore[no-untyped-def]
    """Log-odds of `ones` among `seen`, after `strength` cells of `density` / 4096."""
    return _log((ones << 12) + strength * density) - _log(((seen - ones) << 12) + strength * (4096 - density))


@device
def _within(number, least, most):  # type: ignore[no-untyped-def]
    return min(max(number, least), most)


@device
def _dot(weights, base, inputs):  # type: ignore[no-untyped-def]
    total = 0
    for k in range(INPUTS):
        total += weights[base + k] * inputs[k]
    return _within(total >> 16, -MOST, MOST)


@device
def _train(weights, base, inputs, error, used, index, learning):  # type: ignore[no-untyped-def]
    """Move a set's weights along its inputs, by the error in 1/65536 of a bit."""
    step = error * learning[used[index]]
    for k in range(INPUTS):
        weights[base + k] += (inputs[k] * step + 131072) >> 18
    if used[index] < 127:
        used[index] += 1


@device
def _input(models, index):  # type: ignore[no-untyped-def]
    """Return a model's log-odds, less of them the fewer bits it has seen."""
    state = np.int64(models[index])
    return (STRETCH[state >> 19] * TRUST[state & 511]) >> 8


@device
def _code_label(decode, low, rng, pos, buf, end, models, contexts, places, inputs, weights, used, width,  # type: ignore[no-untyped-def]
                negatives, positives, label):  # fmt: skip
    """Code a label: its sign in the contexts 0 .. 4, each bit of its magnitude in the contexts 5 .. 9."""
    negative = 1 if label < negatives else 0
    if decode and not (negatives and positives):
        negative = 1 if negatives else 0
    magnitude = negatives - 1 - label if negative else label - negatives
    node = 1
    for step in range(width + 1):
        shift = width - step
        if step:
            bit = (magnitude >> shift) & 1
            coded = (((node << 1) | 1) << shift) - (1 << width) < (negatives if negative else positives)
            if decode and not coded:
                bit = 0
        else:
            bit = negative
            coded = negatives > 0 and positives > 0
        if coded:
            for k in range(5):
                if step:
                    tree = contexts[5 + k]
                    if k == 0 or k == 4:
                        tree = (tree << 1) | negative
                    places[k] = (tree << width) + node + 125
                else:
                    places[k] = contexts[k]
                inputs[k] = _input(models, places[k])
            base = 5 * min(step, 8)
            p = SQUASH[_dot(weights, base, inputs) + MOST]
            bit, low, rng, pos = code_bit(decode, low, rng, pos, buf, end, _within(p, 32, 65504), bit)
            _train(weights, base, inputs, (bit << 16) - p, used, min(step, 8), LABEL_LEARNING)
            for k in range(5):
                update(models, places[k], bit, LIMIT, RATE)
        if step:
            node = (node << 1) | bit
        else:
            negative = bit
    return negative, node - (1 << width), low, rng, pos


@device
def _code_lives(decode, low, rng, pos, buf, end, models, near, lives):  # type: ignore[no-untyped-def]
    """Code which lines (or columns) hold entries, each in the context of those before and above it."""
    for index in range(len(lives)):
        context = lives[index - 1] if index else 0
        if near and index >= near:
            context |= lives[index - near] << 1
        if near and index >= near - 1:
            context |= lives[index - near + 1] << 2
        bit, low, rng, pos = code_adaptive(decode, low, rng, pos, buf, end, models, context, 60, RATE, lives[index])
        lives[index] = bit
    return low, rng, pos


_LIVES = "void(int64[::1], uint8[::1], int64, int32[::1], int64, int64[::1])"


def _lives_work(lives: Array) -> int:
    return 5 * len(lives) + 10


@kernel(_LIVES, work=_lives_work)
def encode_lives(state, buf, end, models, near, lives):  # type: ignore[no-untyped-def]
    """Append which lines (or columns) are live."""
    state[0], state[1], state[2] = _code_lives(False, state[0], state[1], state[2], buf, end, models, near, lives)


@kernel(_LIVES, work=_lives_work)
def decode_lives(state, buf, end, models, near, lives):  # type: ignore[no-untyped-def]
    """Read which lines (or columns) are live."""
    state[0], state[1], state[2] = _code_lives(True, state[0], state[1], state[2], buf, end, models, near, lives)


@device
def _near_entries(line, column, back, width):  # type: ignore[no-untyped-def]
    """Weigh the entries coded near a cell: how many and how large; and their signs."""
    much = 0
    signs = 0
    for up in range(3 if back else 1):
        for aside in range(-2, 3):
            other = column - up * back + aside
            if other >= 0 and other < column and (up or aside < 0):
                code = line[other]
                if code:
                    weight = NEAR[up * up + aside * aside]
                    much += weight * (4 + ((abs(code) - 1) << 3 >> width)) >> 2
                    signs += weight if code > 0 else -weight
    return much, signs


@device
def _label_contexts(contexts, much, signs, balance, columns, column, above, last, total, count):  # type: ignore[no-untyped-def]
    """Set the contexts of a label's sign and, where its magnitude is not wide, of that. Columns: 2 sums and a count."""
    along = _within(balance + 4, 0, 8)
    down = _within(columns[1, column] + 4, 0, 8)
    side = _within((_log(abs(signs)) >> 7) - 12, 1, 12) if signs else 0
    contexts[0] = 0
    contexts[1] = 1 + along * 9 + down
    contexts[2] = 82 + 12 + (side if signs > 0 else -side)
    contexts[3] = 107 + above * 3 + (0 if last == 0 else 1 if last > 0 else 2)
    contexts[4] = 116 + along
    if contexts[10]:
        return
    row = _within(total // count >> 4, 0, 15) + 1 if count else 0
    down = _within(columns[2, column] // columns[3, column] >> 4, 0, 15) + 1 if columns[3, column] else 0
    contexts[6] = 2 + row * 17 + down
    contexts[7] = 291 + much
    contexts[8] = 307 + abs(last)
    contexts[9] = 282 + row


@device
def _cell_inputs(models, inputs, places, groups, group, columns, column, rows, density, place, grouped, previous,  # type: ignore[no-untyped-def]
                 much,
                 count, seen, expected):  # fmt: skip
    """Set a cell's inputs, and which models the last three are of."""
    inputs[0] = _odds(groups[0, group], groups[1, group], density, 23)
    inputs[1] = _odds(columns[0, column], rows, density, 12)
    base = (inputs[0] - _log(density) + _log(4096 - density) + 2048) >> 7
    places[0] = (_within(base, 0, 31) << 5 | min(grouped, 31)) << 1 | previous
    places[1] = 2048 + (min(place, 63) << 5 | min(grouped, 31))
    places[2] = 4096 + (much << 5 | _within((_odds(count, seen, expected, 25) + 4096) >> 8, 0, 31))
    for k in range(3):
        inputs[2 + k] = _input(models, places[k])


@device
def _code_cell(decode, low, rng, pos, buf, end, models, inputs, places, weights, used, much, bit):  # type: ignore[no-untyped-def]
    """Code whether a cell is an entry by two sets of weights: one for all cells, one for those with as near entries."""
    second = 5 * (1 + much)
    one = _dot(weights, 0, inputs)
    two = _dot(weights, second, inputs)
    p = SQUASH[((one + two) >> 1) + MOST]
    bit, low, rng, pos = code_bit(decode, low, rng, pos, buf, end, _within(p, 32, 65504), bit)
    _train(weights, 0, inputs, (bit << 16) - SQUASH[one + MOST], used, 0, LEARNING)
    _train(weights, second, inputs, (bit << 16) - SQUASH[two + MOST], used, 1 + much, LEARNING)
    for k in range(3):
        update(models, places[k], bit, LIMIT, RATE)
    return bit, low, rng, pos


@device
def _code_cells(decode, state, buf, end, models, labeling, places, inputs, weights, label_weights, used,  # type: ignore[no-untyped-def]
                label_used, contexts, near, lines, length, width, negatives, positives, live_lines, live_columns,
                groups, columns, line, pointers, indices, labels):  # fmt: skip
    low, rng, pos = state[0], state[1], state[2]
    stored = len(indices)
    breadth = 0
    for column in range(length):
        breadth += live_columns[column]
    height = 0
    for row in range(lines):
        height += live_lines[row]
    left = breadth * height
    if left < stored or not stored:
        return 1
    density = _within((stored << 12) // left, 1, 4095)
    before = (stored << 4) // height
    group_size = near if near else 1
    entry = 0
    rows = 0
    last_code = 0
    for row in range(lines):
        if decode:
            pointers[row + 1] = entry
            if pos > end + 8:
                break
        if not live_lines[row] or entry == stored:
            continue
        line[:] = 0
        expected = _within((density + (before << 8) // breadth) >> 1, 1, 4095)
        count = 0
        seen = 0
        previous = 0
        balance = 0
        total = 0
        group = 0
        place = -1
        grouped = 0
        stop = pointers[row + 1]
        for column in range(length):
            place += 1
            if place == group_size:
                place = 0
                group += 1
            if place == 0:
                grouped = 0
            if not live_columns[column]:
                continue
            if entry == stored:
                break
            much, signs = _near_entries(line, column, near, width)
            much = _within((_log(much) >> 7) - 8, 1, 15) if much else 0
            bit = 1
            if stored - entry < left:
                if not decode:
                    bit = 1 if entry < stop and indices[entry] == column else 0
                _cell_inputs(
                    models, inputs, places, groups, group, columns, column, rows, density, place, grouped, previous,
                    much, count, seen, expected,
                )  # fmt: skip
                bit, low, rng, pos = _code_cell(
                    decode, low, rng, pos, buf, end, models, inputs, places, weights, used, much, bit
                )
            left -= 1
            code = 0
            if bit:
                above = columns[4, column]
                _label_contexts(contexts, much, signs, balance, columns, column, above, last_code, total, count)
                negative, magnitude, low, rng, pos = _code_label(
                    decode, low, rng, pos, buf, end, labeling, contexts, places, inputs, label_weights, label_used,
                    width, negatives, positives, np.int64(labels[entry]),
                )  # fmt: skip
                if decode:
                    indices[entry] = column
                    labels[entry] = negatives - 1 - magnitude if negative else negatives + magnitude
                entry += 1
                sign = -1 if negative else 1
                code = sign * (magnitude + 1)
                last_code = code
                scaled = magnitude << 8 >> width
                total += scaled
                balance += sign
                columns[1, column] += sign
                columns[2, column] += scaled
                columns[3, column] += 1
                columns[0, column] += 1
                groups[0, group] += 1
                grouped += 1
                count += 1
            columns[4, column] = 0 if code == 0 else 1 if code > 0 else 2
            line[column] = code
            groups[1, group] += 1
            previous = bit
            seen += 1
        before = (before + (count << 4)) >> 1
        rows += 1
        if decode:
            pointers[row + 1] = entry
    state[0], state[1], state[2] = low, rng, pos
    return 1 if decode and pos > end + 8 else 0


_CELLS = (
    "int64(int64[::1], uint8[::1], int64, int32[::1], int32[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1], int64, int64, int64, int64, int64, int64, int64[::1], int64[::1],"
    " int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], int32[::1], uint16[::1])"
)


def _cells_work(near: int, lines: int, length: int, width: int, live_lines: Array, live_columns: Array,
                indices: Array) -> int:  # fmt: skip
    cells = int(live_lines.sum()) * (length + (45 if near else 35) * int(live_columns.sum()))
    return lines + length + cells + (60 + 35 * width) * len(indices)


@kernel(_CELLS, work=_cells_work)
def encode_cells(state, buf, end, models, labeling, places, inputs, weights, label_weights, used, label_used, contexts,  # type: ignore[no-untyped-def]
                  near, lines, length, width, negatives, positives, live_lines, live_columns, groups, columns, line,
                  pointers, indices, labels):  # fmt: skip
    """Append the entries of a matrix, as `decode_cells` reads them."""
    return _code_cells(False, state, buf, end, models, labeling, places, inputs, weights, label_weights, used,
                       label_used, contexts, near, lines, length, width, negatives, positives, live_lines,
                       live_columns, groups, columns, line, pointers, indices, labels)  # fmt: skip


@kernel(_CELLS, work=_cells_work)
def decode_cells(state, buf, end, models, labeling, places, inputs, weights, label_weights, used, label_used, contexts,  # type: ignore[no-untyped-def]
                  near, lines, length, width, negatives, positives, live_lines, live_columns, groups, columns, line,
                  pointers, indices, labels):  # fmt: skip
    """Read the entries of a matrix; return 1 if the stream, or the cells, cannot hold them."""
    return _code_cells(True, state, buf, end, models, labeling, places, inputs, weights, label_weights, used,
                       label_used, contexts, near, lines, length, width, negatives, positives, live_lines,
                       live_columns, groups, columns, line, pointers, indices, labels)  # fmt: skip
