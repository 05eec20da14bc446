"""Coder 3: logistic mixing of several models' predictions (spec, "Coder 3"), in the spirit of lpaq (Mahoney 2007).

Every binary decision is predicted by models that see it in different contexts. Their log-odds are summed with weights
that learn from every decision, in integers only. Positions are one decision for each cell; where whole lines or columns
are empty, the writer may name those first. Made for small networks: few contexts, and those of kinds that a layer has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.lags import likely
from dcformat.codecs.logistic import LOG, MOST, SQUASH, STRETCH
from dcformat.codecs.rangecoder import RATE, Decoder, Encoder, code_adaptive, code_bit, fresh
from dcformat.codecs.values import get, put
from dcformat.errors import LimitError, StreamError
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]

INPUTS = 5
#: Beyond these the coder would take too long, or too much memory for its columns.
MOST_CELLS, MOST_LENGTH = 1 << 26, 1 << 20
#: Of tensors with more cells than this the writer tries two ways only.
LARGE = 1 << 22
#: How many bits a model's probability may rest on.
LIMIT = 510
#: TRUST[n]: how much of a model's log-odds counts that has seen n bits, in 1/256.
TRUST = np.array([2560 * n // (10 * n + 18) for n in range(512)], np.int64)
#: LEARNING[n]: the step of a set of weights that has been used n times (more often: the last).
LEARNING = np.array([4 + 75 // (n + 4) for n in range(128)], np.int64)
LABEL_LEARNING = np.array([6 + 155 // (n + 4) for n in range(128)], np.int64)
#: How near cells count, by the square of their distance: about 1024 / distance ** 5.
NEAR = np.array([0, 1024, 181, 0, 32, 18, 0, 0, 6], np.int64)
#: A decision has five inputs. A cell's: counts of its group's and its column's entries, then three models.
CELL_MODELS = 32 * 32 * 2 + 64 * 32 + 16 * 32
CELL_WEIGHTS = (38, 15, 13, 5, 34)
CELL_SETS = 17
#: A label's inputs too are five: models of these many contexts for its sign, and these many trees for its magnitude.
SIGN_CONTEXTS, TREES, WIDE_TREES = 1 + 81 + 25 + 9 + 9, 2 + 289 + 16 + 257 + 34, 8
LABEL_WEIGHTS = (3, 22, 38, 22, 16)
LABEL_SETS = 9
#: Magnitudes of more bits than this have one context in each input.
WIDE = 8


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
def _learn(models, index, bit):  # type: ignore[no-untyped-def]
    state = np.int64(models[index])
    count = state & 511
    p = state >> 9
    if bit:
        p += ((4194303 - p) * RATE[count]) >> 16
    else:
        p -= (p * RATE[count]) >> 16
    if count < 510:
        count += 1
    models[index] = p << 9 | count


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
                _learn(models, places[k], bit)
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


@kernel(_LIVES)
def _encode_lives(state, buf, end, models, near, lives):  # type: ignore[no-untyped-def]
    state[0], state[1], state[2] = _code_lives(False, state[0], state[1], state[2], buf, end, models, near, lives)


@kernel(_LIVES)
def _decode_lives(state, buf, end, models, near, lives):  # type: ignore[no-untyped-def]
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
                inputs[0] = _odds(groups[0, group], groups[1, group], density, 23)
                inputs[1] = _odds(columns[0, column], rows, density, 12)
                base = (inputs[0] - _log(density) + _log(4096 - density) + 2048) >> 7
                places[0] = (_within(base, 0, 31) << 5 | min(grouped, 31)) << 1 | previous
                places[1] = 2048 + (min(place, 63) << 5 | min(grouped, 31))
                places[2] = 4096 + (much << 5 | _within((_odds(count, seen, expected, 25) + 4096) >> 8, 0, 31))
                for k in range(3):
                    inputs[2 + k] = _input(models, places[k])
                second = 5 * (1 + much)
                one = _dot(weights, 0, inputs)
                two = _dot(weights, second, inputs)
                p = SQUASH[((one + two) >> 1) + MOST]
                bit, low, rng, pos = code_bit(decode, low, rng, pos, buf, end, _within(p, 32, 65504), bit)
                _train(weights, 0, inputs, (bit << 16) - SQUASH[one + MOST], used, 0, LEARNING)
                _train(weights, second, inputs, (bit << 16) - SQUASH[two + MOST], used, 1 + much, LEARNING)
                for k in range(3):
                    _learn(models, places[k], bit)
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


@kernel(_CELLS)
def _encode_cells(state, buf, end, models, labeling, places, inputs, weights, label_weights, used, label_used, contexts,  # type: ignore[no-untyped-def]
                  near, lines, length, width, negatives, positives, live_lines, live_columns, groups, columns, line,
                  pointers, indices, labels):  # fmt: skip
    return _code_cells(False, state, buf, end, models, labeling, places, inputs, weights, label_weights, used,
                       label_used, contexts, near, lines, length, width, negatives, positives, live_lines,
                       live_columns, groups, columns, line, pointers, indices, labels)  # fmt: skip


@kernel(_CELLS)
def _decode_cells(state, buf, end, models, labeling, places, inputs, weights, label_weights, used, label_used, contexts,  # type: ignore[no-untyped-def]
                  near, lines, length, width, negatives, positives, live_lines, live_columns, groups, columns, line,
                  pointers, indices, labels):  # fmt: skip
    return _code_cells(True, state, buf, end, models, labeling, places, inputs, weights, label_weights, used,
                       label_used, contexts, near, lines, length, width, negatives, positives, live_lines,
                       live_columns, groups, columns, line, pointers, indices, labels)  # fmt: skip


def _model_arrays(width: int) -> tuple[Array, ...]:
    """Return what the two directions start from: models, room for a decision, weights and how often they were used."""
    trees = WIDE_TREES if width > WIDE else TREES
    cell_weights = np.tile(np.array(CELL_WEIGHTS, np.int64) * 655, CELL_SETS)
    label_weights = np.tile(np.array(LABEL_WEIGHTS, np.int64) * 655, LABEL_SETS)
    contexts = np.array([0, 0, 0, 0, 0, 0, 2, 3, 4, 3, width > WIDE], np.int64)
    return (
        fresh(CELL_MODELS), fresh(SIGN_CONTEXTS + (trees << width)), np.zeros(INPUTS, np.int64),
        np.zeros(INPUTS, np.int64), cell_weights, label_weights, np.zeros(CELL_SETS, np.int64),
        np.zeros(LABEL_SETS, np.int64), contexts,
    )  # fmt: skip


def _line_arrays(near: int, length: int) -> tuple[Array, Array, Array]:
    """Return counts by group and by column, and room for a line."""
    groups = (length - 1) // max(near, 1) + 1
    return np.zeros((2, groups), np.int64), np.zeros((5, length), np.int64), np.zeros(length, np.int64)


def suits(lines: int, length: int) -> bool:
    """Whether a tensor is small enough for this coder."""
    return lines * length <= MOST_CELLS and length <= MOST_LENGTH


def _require_fit(lines: int, length: int) -> None:
    if not suits(lines, length):
        raise LimitError(
            "coder 3's cells",
            got=f"{lines} x {length}",
            expected=f"at most {MOST_CELLS}, lines of at most {MOST_LENGTH}",
        )


def encode(
    encoder: Encoder, pointers: Array, indices: Array, labels: Array, lines: int, length: int, symbols: int,
    negatives: int,
) -> None:  # fmt: skip
    """Append the positions and labels of a sparse matrix.

    Parameters
    ----------
    encoder : Encoder
    pointers : int64[lines + 1]
    indices : int32[stored]
        Ascending within a line.
    labels : uint8 or uint16[stored]
        Below `symbols`.
    lines, length, symbols, negatives : int
        The reader knows these, and how many entries are stored. Labels below `negatives` stand for negative values.

    Raises
    ------
    LimitError
        The matrix does not suit this coder (`suits`).
    """
    _require_fit(lines, length)
    if not len(indices):
        return
    labels = np.ascontiguousarray(labels, np.uint16)
    live_lines = (np.diff(pointers) > 0).astype(np.int64)
    live_columns = np.zeros(length, np.int64)
    live_columns[indices] = 1
    flags = [(0, 0)]
    some = (int(not live_lines.all()), int(not live_columns.all()))
    flags += [some] if any(some) else []
    flags += [(0, 1)] if all(some) else []
    nears = [0, *likely(pointers, indices, labels, lines, length, negatives)]
    if lines * length > LARGE:
        flags, nears = flags[:1], nears[:2]
    plans = [(near, *flag) for flag in flags for near in dict.fromkeys(nears)]
    matrix = (pointers, indices, labels, lines, length, symbols, negatives, live_lines, live_columns)
    _write(encoder, min(plans, key=lambda plan: (_cost(plan, *matrix), plan)), *matrix)


def _cost(plan: tuple[int, int, int], *matrix: Any) -> int:
    encoder = Encoder(0)
    _write(encoder, plan, *matrix)
    return int(encoder.state[2])


def _write(
    encoder: Encoder, plan: tuple[int, int, int], pointers: Array, indices: Array, labels: Array, lines: int,
    length: int, symbols: int, negatives: int, live_lines: Array, live_columns: Array,
) -> None:  # fmt: skip
    near, some_lines, some_columns = plan
    width = _magnitude_bits(symbols, negatives)
    put(encoder, 8, near)
    put(encoder, 2, some_lines << 1 | some_columns)
    encoder.reserve(2 * (lines * length + lines + length + len(indices) * (width + 1)) + 64)
    live_lines = live_lines if some_lines else np.ones(lines, np.int64)
    live_columns = live_columns if some_columns else np.ones(length, np.int64)
    if some_lines:
        _encode_lives(encoder.state, encoder.buf, 0, fresh(8), 0, live_lines)
    if some_columns:
        _encode_lives(encoder.state, encoder.buf, 0, fresh(8), near, live_columns)
    _encode_cells(
        encoder.state, encoder.buf, 0, *_model_arrays(width), near, lines, length, width, negatives,
        symbols - negatives, live_lines, live_columns, *_line_arrays(near, length), pointers, indices, labels,
    )  # fmt: skip


def _magnitude_bits(symbols: int, negatives: int) -> int:
    return (max(negatives, symbols - negatives) - 1).bit_length()


def decode(
    decoder: Decoder, lines: int, length: int, stored: int, symbols: int, negatives: int
) -> tuple[Array, Array, Array]:
    """Read what `encode` wrote: pointers (int64), indices (int32) and labels (uint16), `stored` entries exactly.

    Raises
    ------
    LimitError
        The matrix does not suit this coder.
    StreamError
        The stream ends early, or names too few lines and columns for the entries.
    """
    _require_fit(lines, length)
    pointers, indices = np.zeros(lines + 1, np.int64), np.zeros(stored, np.int32)
    labels = np.zeros(stored, np.uint16)
    if not stored:
        return pointers, indices, labels
    near, some = get(decoder, 8), get(decoder, 2)
    if near == 1:
        raise StreamError("coder 3's distance", got=near, expected="0, or 2 and more")
    width = _magnitude_bits(symbols, negatives)
    live_lines, live_columns = np.ones(lines, np.int64), np.ones(length, np.int64)
    end = len(decoder.buf)
    if some & 2:
        _decode_lives(decoder.state, decoder.buf, end, fresh(8), 0, live_lines)
    if some & 1:
        _decode_lives(decoder.state, decoder.buf, end, fresh(8), near, live_columns)
    failed = _decode_cells(
        decoder.state, decoder.buf, end, *_model_arrays(width), near, lines, length, width, negatives,
        symbols - negatives, live_lines, live_columns, *_line_arrays(near, length), pointers, indices, labels,
    )  # fmt: skip
    if failed:
        raise StreamError("coder 3's positions", got="the stream's end or too few cells", expected=f"{stored} entries")
    return pointers, indices, labels


def encode_dense(encoder: Encoder, labels: Array, lines: int, length: int, symbols: int, negatives: int) -> None:
    """Append a dense matrix's labels, row by row: a sparse one's of which every cell is stored."""
    pointers = np.arange(lines + 1, dtype=np.int64) * length
    indices = np.tile(np.arange(length, dtype=np.int32), lines)
    encode(encoder, pointers, indices, labels, lines, length, symbols, negatives)


def decode_dense(decoder: Decoder, lines: int, length: int, symbols: int, negatives: int) -> Array:
    """Read what `encode_dense` wrote: labels (uint16)."""
    return decode(decoder, lines, length, lines * length, symbols, negatives)[2]
