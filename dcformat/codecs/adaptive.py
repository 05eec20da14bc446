"""Coder 2: adaptive binary arithmetic coding of positions and labels (spec, "Coder 2").

Two variants, of which the writer takes the shorter: the run of zeros before each stored entry as symbols of a tree
(positions that follow no pattern), or one bit for each cell, in contexts of its row, its column and two neighbours.
Labels are a sign and a magnitude, which counts codebook entries from zero outwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.lags import likely
from dcformat.codecs.logistic import STRETCH
from dcformat.codecs.rangecoder import RATE, Decoder, Encoder, code_adaptive, code_tree, fresh
from dcformat.codecs.values import get, put
from dcformat.errors import LimitError, StreamError
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]

#: Beyond these the contexts would take too much time and memory: runs only.
MOST_CELLS, MOST_LENGTH = 1 << 28, 1 << 20
#: How many bits a model's probability may rest on.
LIMITS = (30, 127, 255, 510)
#: Contexts of a cell, of a sign, and of a magnitude.
CELL_CONTEXTS, SIGN_CONTEXTS, SIZE_CONTEXTS = 16 * 16 * 4, 9, 16
#: Magnitudes of more bits than this have one context only.
WIDE = 8
#: The writer's first choice for tensors this large is the faster variant, unless contexts save 1/128.
LARGE = 1 << 20
#: With as many entries, adapting is over soon whatever the rate: the writer tries fewer plans.
MANY = 1 << 16


@device
def code_label(decode, low, rng, pos, buf, end, models, sign, size, limit, rate, width, negatives, positives, label):  # type: ignore[no-untyped-def]
    """Code a label by the model `sign` of its sign and a tree of ``2 ** width`` models from `size` of its magnitude.

    A bit that can have one value only is not coded, so that no stream can hold a label out of range.
    """
    negative = 1 if label < negatives else 0
    if negatives and positives:
        negative, low, rng, pos = code_adaptive(decode, low, rng, pos, buf, end, models, sign, limit, rate, negative)
    elif decode:
        negative = 1 if negatives else 0
    count = negatives if negative else positives
    magnitude = negatives - 1 - label if negative else label - negatives
    node = 1
    for shift in range(width - 1, -1, -1):
        bit = (magnitude >> shift) & 1
        if ((((node << 1) | 1) << shift) - (1 << width)) < count:
            bit, low, rng, pos = code_adaptive(decode, low, rng, pos, buf, end, models, size + node, limit, rate, bit)
        elif decode:
            bit = 0
        node = (node << 1) | bit
    magnitude = node - (1 << width)
    return negative, magnitude, low, rng, pos


@device
def _code_runs(decode, state, buf, end, models, rate, limit, bits, lines, length, width, negatives, positives,  # type: ignore[no-untyped-def]
               pointers, indices, labels):  # fmt: skip
    low, rng, pos = state[0], state[1], state[2]
    escape = (1 << bits) - 1
    sign = 1 << bits
    line = 0
    column = 0
    ahead = 0
    run = 0
    failed = 0
    for entry in range(len(indices)):
        if not decode:
            while pointers[ahead + 1] <= entry:
                ahead += 1
            run = (ahead - line) * length + indices[entry] - column
        while True:
            part, low, rng, pos = code_tree(
                decode, low, rng, pos, buf, end, models, 0, bits, limit, rate, min(run, escape)
            )
            run -= part
            column += part
            while column >= length:
                column -= length
                line += 1
                if decode and line < lines:
                    pointers[line] = entry
            if decode and (line >= lines or pos > end + 8):
                failed = 1
                break
            if part < escape:
                break
        if failed:
            break
        if decode:
            indices[entry] = column
        column += 1
        negative, magnitude, low, rng, pos = code_label(
            decode, low, rng, pos, buf, end, models, sign, sign, limit, rate, width, negatives, positives,
            np.int64(labels[entry]),
        )  # fmt: skip
        if decode:
            labels[entry] = negatives - 1 - magnitude if negative else negatives + magnitude
    if decode:
        for after in range(line + 1, lines + 1):
            pointers[after] = len(indices)
    state[0], state[1], state[2] = low, rng, pos
    return failed


_RUNS = (
    "int64(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64, int64, int64, int64, int64, int64, int64,"
    " int64[::1], int32[::1], uint16[::1])"
)


def _runs_work(bits: int, lines: int, length: int, width: int, indices: Array) -> int:
    parts = len(indices) + lines * length // ((1 << bits) - 1)
    return lines + (3 * bits + 1) * parts + (3 * width + 8) * len(indices)


@kernel(_RUNS, work=_runs_work)
def _encode_runs(state, buf, end, models, rate, limit, bits, lines, length, width, negatives, positives, pointers,  # type: ignore[no-untyped-def]
                 indices, labels):  # fmt: skip
    return _code_runs(False, state, buf, end, models, rate, limit, bits, lines, length, width, negatives, positives,
                      pointers, indices, labels)  # fmt: skip


@kernel(_RUNS, work=_runs_work)
def _decode_runs(state, buf, end, models, rate, limit, bits, lines, length, width, negatives, positives, pointers,  # type: ignore[no-untyped-def]
                 indices, labels):  # fmt: skip
    return _code_runs(True, state, buf, end, models, rate, limit, bits, lines, length, width, negatives, positives,
                      pointers, indices, labels)  # fmt: skip


@device
def _level(stretch, probability):  # type: ignore[no-untyped-def]
    return min(max((stretch[probability >> 4] + 1472) // 192, 0), 15)


@device
def _code_cells(decode, state, buf, end, models, rate, stretch, limit, near, lines, length, density, width, negatives,  # type: ignore[no-untyped-def]
                positives, columns, sizes, line, pointers, indices, labels):  # fmt: skip
    low, rng, pos = state[0], state[1], state[2]
    stored = len(indices)
    left = lines * length
    entry = 0
    single = width > 8
    for row in range(lines):
        if entry == stored:
            if decode:
                pointers[row + 1] = stored
            continue
        line[:] = 0
        along = density
        typical = -1
        speed = 2
        while speed < 5 and (1 << (speed - 1)) <= row:
            speed += 1
        last = pointers[row + 1]
        for column in range(length):
            if entry == stored:
                break
            before = line[column - 1] if column else 0
            above = line[column - near] if column >= near else 0
            there = 1
            if stored - entry < left:
                context = (_level(stretch, along) << 4 | _level(stretch, columns[column])) << 2
                context |= (1 if before else 0) << 1 | (1 if above else 0)
                if not models[context] & 511:
                    models[context] = (along + columns[column]) >> 1 << 15
                if not decode:
                    there = 1 if entry < last and indices[entry] == column else 0
                there, low, rng, pos = code_adaptive(
                    decode, low, rng, pos, buf, end, models, context, limit, rate, there
                )
            left -= 1
            if there:
                columns[column] += (65535 - columns[column]) >> speed
                along += (65535 - along) >> 5
                usual = sizes[column]
                context = 8
                if typical >= 0 and usual >= 0:
                    context = (typical + usual) >> 5
                elif typical >= 0:
                    context = typical >> 4
                elif usual >= 0:
                    context = usual >> 4
                sign = (1 if before > 0 else 2 if before < 0 else 0) * 3 + (1 if above > 0 else 2 if above < 0 else 0)
                negative, magnitude, low, rng, pos = code_label(
                    decode, low, rng, pos, buf, end, models, 1024 + sign,
                    1033 + (0 if single else context << width), limit, rate, width, negatives, positives,
                    np.int64(labels[entry]),
                )  # fmt: skip
                if decode:
                    indices[entry] = column
                    labels[entry] = negatives - 1 - magnitude if negative else negatives + magnitude
                entry += 1
                line[column] = -1 if negative else 1
                scaled = magnitude << 8 >> width
                sizes[column] = scaled if usual < 0 else usual + ((scaled - usual) >> 2)
                typical = scaled if typical < 0 else typical + ((scaled - typical) >> 3)
            else:
                columns[column] -= columns[column] >> speed
                along -= along >> 5
        if decode:
            pointers[row + 1] = entry
            if pos > end + 8:
                break
    state[0], state[1], state[2] = low, rng, pos
    return 1 if decode and pos > end + 8 else 0


_CELLS = (
    "int64(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64[::1], int64, int64, int64, int64, int64, int64,"
    " int64, int64, int32[::1], int32[::1], int32[::1], int64[::1], int32[::1], uint16[::1])"
)


def _cells_work(lines: int, length: int, width: int, indices: Array) -> int:
    return lines + 8 * lines * length + (3 * width + 10) * len(indices)


@kernel(_CELLS, work=_cells_work)
def _encode_cells(state, buf, end, models, rate, stretch, limit, near, lines, length, density, width, negatives,  # type: ignore[no-untyped-def]
                  positives, columns, sizes, line, pointers, indices, labels):  # fmt: skip
    return _code_cells(False, state, buf, end, models, rate, stretch, limit, near, lines, length, density, width,
                       negatives, positives, columns, sizes, line, pointers, indices, labels)  # fmt: skip


@kernel(_CELLS, work=_cells_work)
def _decode_cells(state, buf, end, models, rate, stretch, limit, near, lines, length, density, width, negatives,  # type: ignore[no-untyped-def]
                  positives, columns, sizes, line, pointers, indices, labels):  # fmt: skip
    return _code_cells(True, state, buf, end, models, rate, stretch, limit, near, lines, length, density, width,
                       negatives, positives, columns, sizes, line, pointers, indices, labels)  # fmt: skip


def _magnitude_bits(symbols: int, negatives: int) -> int:
    return (max(negatives, symbols - negatives) - 1).bit_length()


def _run_models(bits: int, width: int) -> Array:
    return fresh((1 << bits) + (1 << width) + 1)


def _cell_models(width: int) -> Array:
    sizes = 1 if width > WIDE else SIZE_CONTEXTS
    return fresh(CELL_CONTEXTS + SIGN_CONTEXTS + (sizes << width))


def _cell_state(lines: int, length: int, stored: int) -> tuple[int, Array, Array, Array]:
    """Return the first estimate of the density, each column's density and typical magnitude, and room for a line."""
    density = min(max((stored << 16) // (lines * length), 64), 65472)
    return density, np.full(length, density, np.int32), np.full(length, -1, np.int32), np.zeros(length, np.int32)


def suits_contexts(lines: int, length: int) -> bool:
    """Whether a tensor is small enough for the variant with contexts."""
    return lines * length <= MOST_CELLS and length <= MOST_LENGTH


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
    """
    if not len(indices):
        return
    labels = np.ascontiguousarray(labels, np.uint16)
    width = _magnitude_bits(symbols, negatives)
    shape = (lines, length, width, negatives, symbols - negatives)
    cells = lines * length
    thorough = cells < LARGE and len(indices) < MANY
    limits = range(len(LIMITS)) if thorough else (3,)
    most = min(max((cells // len(indices)).bit_length(), 1), 6)
    widths = range(most, min(most + 2, 8) + 1) if thorough else (most,)
    plans = [(0, limit, bits) for limit in limits for bits in widths]
    if suits_contexts(lines, length):
        nears = list(dict.fromkeys([2, *likely(pointers, indices, labels, lines, length, negatives)]))[
            : 4 if thorough else 2
        ]
        plans += [(1, limit, near) for limit in limits for near in nears]
    costs = [_cost(plan, pointers, indices, labels, shape) for plan in plans]
    best = min(range(len(plans)), key=lambda k: (costs[k], k))
    runs = min((cost, k) for k, cost in enumerate(costs) if not plans[k][0])
    if cells >= LARGE and runs[0] - costs[best] < runs[0] >> 7:
        best = runs[1]
    _write(encoder, plans[best], pointers, indices, labels, shape)


def _cost(plan: tuple[int, int, int], pointers: Array, indices: Array, labels: Array, shape: tuple[int, ...]) -> int:
    encoder = Encoder(0)
    _write(encoder, plan, pointers, indices, labels, shape)
    return int(encoder.state[2])


def _write(
    encoder: Encoder, plan: tuple[int, int, int], pointers: Array, indices: Array, labels: Array,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    variant, limit, choice = plan
    lines, length, width, negatives, positives = shape
    stored = len(indices)
    put(encoder, 1, variant)
    put(encoder, 2, limit)
    if variant:
        put(encoder, 8, choice)
        encoder.reserve(2 * (lines * length + stored * (width + 1)) + 64)
        density, *state = _cell_state(lines, length, stored)
        _encode_cells(
            encoder.state, encoder.buf, 0, _cell_models(width), RATE, STRETCH, LIMITS[limit], choice, lines, length,
            density, width, negatives, positives, *state, pointers, indices, labels,
        )  # fmt: skip
    else:
        put(encoder, 3, choice - 1)
        escapes = lines * length // ((1 << choice) - 1)
        encoder.reserve(2 * (choice * (stored + escapes) + stored * (width + 1)) + 64)
        _encode_runs(
            encoder.state, encoder.buf, 0, _run_models(choice, width), RATE, LIMITS[limit], choice, lines, length,
            width, negatives, positives, pointers, indices, labels,
        )  # fmt: skip


def decode(
    decoder: Decoder, lines: int, length: int, stored: int, symbols: int, negatives: int
) -> tuple[Array, Array, Array]:
    """Read what `encode` wrote: pointers (int64), indices (int32) and labels (uint16), `stored` entries exactly.

    Raises
    ------
    StreamError
        The stream ends early, or its positions go on past the last line.
    LimitError
        Contexts in a tensor too large for them.
    """
    pointers, indices = np.zeros(lines + 1, np.int64), np.zeros(stored, np.int32)
    labels = np.zeros(stored, np.uint16)
    if not stored:
        return pointers, indices, labels
    width = _magnitude_bits(symbols, negatives)
    variant, limit = get(decoder, 1), LIMITS[get(decoder, 2)]
    if variant:
        if not suits_contexts(lines, length):
            raise LimitError("coder 2's cells", got=f"{lines} x {length}", expected=f"at most {MOST_CELLS}")
        near = get(decoder, 8)
        density, *state = _cell_state(lines, length, stored)
        failed = _decode_cells(
            decoder.state, decoder.buf, len(decoder.buf), _cell_models(width), RATE, STRETCH, limit, near, lines,
            length, density, width, negatives, symbols - negatives, *state, pointers, indices, labels,
        )  # fmt: skip
    else:
        bits = get(decoder, 3) + 1
        failed = _decode_runs(
            decoder.state, decoder.buf, len(decoder.buf), _run_models(bits, width), RATE, limit, bits, lines, length,
            width, negatives, symbols - negatives, pointers, indices, labels,
        )  # fmt: skip
    if failed:
        raise StreamError("coder 2's positions", got="the stream's or the tensor's end", expected=f"{stored} entries")
    return pointers, indices, labels


def encode_dense(encoder: Encoder, labels: Array, lines: int, length: int, symbols: int, negatives: int) -> None:
    """Append a dense matrix's labels, row by row: a sparse one's of which every cell is stored."""
    encode(encoder, *_all_cells(lines, length), labels, lines, length, symbols, negatives)


def _all_cells(lines: int, length: int) -> tuple[Array, Array]:
    return np.arange(lines + 1, dtype=np.int64) * length, np.tile(np.arange(length, dtype=np.int32), lines)


def decode_dense(decoder: Decoder, lines: int, length: int, symbols: int, negatives: int) -> Array:
    """Read what `encode_dense` wrote: labels (uint16)."""
    return decode(decoder, lines, length, lines * length, symbols, negatives)[2]
