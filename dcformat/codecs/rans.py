"""Static range asymmetric numeral systems (rANS; Duda 2013) over bytes (coders.md, "Planes").

Several states take turns, so that no symbol waits for the one before it. A symbol may have one of several frequency
tables; the caller says which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.rans_block import BLOCK, decode_block
from dcformat.errors import StreamError
from dcformat.jit import kernel, lacks_compiler

Array = npt.NDArray[Any]
Symbols = npt.NDArray[np.uint8]

#: Frequencies of a table add up to ``1 << PRECISION``.
PRECISION = 12
TOTAL = 1 << PRECISION
#: A state lies in ``LEAST <= state < LEAST << 16``; it takes in or gives off 16 bits at a time.
LEAST = 1 << 16
STATE_BYTES = 4
#: The number of states doubles with the number of symbols, from 1 (below ``1 << STATES_FROM`` symbols) to MAX_STATES.
STATES_FROM, MAX_STATES = 13, 128


def states_for(count: int) -> int:
    """Return the number of states that take turns over `count` symbols."""
    return 1 << min(max(count.bit_length() - STATES_FROM, 0), MAX_STATES.bit_length() - 1)


def normalised(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return frequencies with the sum `TOTAL` in proportion to `counts`, not all 0; at least 1 for each that occurs."""
    total = int(counts.sum())
    out = np.maximum(counts * TOTAL // total, counts > 0)
    while (over := int(out.sum()) - TOTAL) > 0:
        # Take from the symbols that lose the fewest bits by it.
        loss = np.where(out > 1, counts / np.maximum(out - 1, 1), np.inf)
        order = np.argsort(loss, kind="stable")[:over]
        out[order[np.isfinite(loss[order])]] -= 1
    short = TOTAL - int(out.sum())
    while short > 0:
        gain = np.where(out > 0, counts / np.maximum(out, 1), 0.0)
        order = np.argsort(-gain, kind="stable")[: min(short, int(np.count_nonzero(out)))]
        out[order] += 1
        short -= len(order)
    return out


def cost_bits(counts: npt.NDArray[np.int64], frequencies: npt.NDArray[np.int64]) -> float:
    """Return the bits that symbols with these counts take, given a table's frequencies."""
    used = counts > 0
    return float((counts[used] * (PRECISION - np.log2(frequencies[used]))).sum())


def encode(symbols: Symbols, frequencies: Array, classes: Symbols) -> bytes:
    """Return the states and the words of coded symbols.

    Parameters
    ----------
    symbols : uint8 ``(count,)``
    frequencies : int64 ``(tables, 256)``
        Each row adds up to `TOTAL`, and a symbol's frequency in its table is not 0.
    classes : uint8 ``(count,)`` or ``(0,)``
        The table of each symbol; empty if there is only one table.
    """
    starts = np.cumsum(frequencies, axis=1) - frequencies
    states: Array = np.full(states_for(len(symbols)), LEAST, np.int64)
    words: Array = np.empty(len(symbols), np.uint16)
    steps = encode_plain if lacks_compiler(_encode) else _encode
    first = steps(symbols, frequencies.ravel(), starts.ravel(), classes, states, words)
    return states.astype("<u4").tobytes() + words[first:].astype("<u2", copy=False).tobytes()


def decode(data: npt.NDArray[np.uint8], count: int, frequencies: Array, classes: Symbols, field: str) -> Symbols:
    """Return `count` symbols of what `encode` returned; parameters as there.

    Raises
    ------
    StreamError
        The data do not end with the last symbol, in the state in which an encoder begins.
    """
    lanes = states_for(count)
    stored = len(data) // 2
    # Each round of all states reads at most one word for each, and then tests for the end.
    words = np.zeros(stored + lanes + 1, np.uint16)
    words[:stored] = data.view("<u2")
    flat = frequencies.reshape(-1)
    states, out = np.empty(lanes, np.uint32), np.empty(count, np.uint8)
    if lacks_compiler(_decode):
        done = decode_plain(words, stored, slots_plain(flat), classes, states, out)
    else:
        slots = np.empty(len(frequencies) << PRECISION, np.uint32)
        _fill_slots(flat, slots)
        done = _decode(words, stored, slots, classes, states, out)
    if not done:
        raise StreamError(field, got="states or an end that no encoder makes", expected=f"{count} symbols")
    return out


def slots_plain(frequencies: Array) -> npt.NDArray[np.uint32]:
    """Return what `_fill_slots` fills in, made in NumPy."""
    owner = np.repeat(np.arange(len(frequencies)), frequencies)
    starts = np.cumsum(frequencies) - frequencies
    slots = owner & 255 | (np.arange(len(owner)) - starts[owner]) << 8 | (frequencies[owner] - 1) << 20
    return np.asarray(slots, np.uint32)


@kernel("void(const int64[::1], uint32[::1])", work=lambda slots: len(slots))
def _fill_slots(frequencies, slots):  # type: ignore[no-untyped-def]
    """Fill in each table and slot: the symbol, the place in its interval << 8, its frequency - 1 << 20."""
    slot = 0
    for index in range(len(frequencies)):
        frequency = frequencies[index]
        for place in range(frequency):
            slots[slot] = index & 255 | place << 8 | (frequency - 1) << 20
            slot += 1


@kernel(
    "int64(const uint8[::1], const int64[::1], const int64[::1], const uint8[::1], int64[::1], uint16[::1])",
    work=lambda symbols: 3 * len(symbols) + 10,
)
def _encode(symbols, frequencies, starts, classes, states, words):  # type: ignore[no-untyped-def]
    """Code the symbols, the last one first; fill `words` from its end, and return the index of the first in use."""
    turn = len(states) - 1
    at = len(words)
    table = np.int64(0)
    for index in range(len(symbols) - 1, -1, -1):
        lane = index & turn
        if len(classes):
            table = np.int64(classes[index]) << 8
        frequency = frequencies[table + symbols[index]]
        state = states[lane]
        if state >= frequency << 20:
            at -= 1
            words[at] = state & 65535
            state >>= 16
        states[lane] = ((state // frequency) << 12) + state % frequency + starts[table + symbols[index]]
    return at


@kernel(
    "boolean(const uint16[::1], int64, const uint32[::1], const uint8[::1], uint32[::1], uint8[::1])",
    work=lambda out: 4 * len(out) + 10,
)
def _decode(words, stored, slots, classes, states, out):  # type: ignore[no-untyped-def]
    """Fill `out`; return whether the states, which are the first of `stored` words, and the other words fit it."""
    lanes = len(states)
    for lane in range(lanes):
        state = np.int64(words[2 * lane]) | np.int64(words[2 * lane + 1]) << 16
        if state < LEAST:
            return False
        states[lane] = state
    at = 2 * lanes
    for first in range(0, len(out), lanes):
        if at > stored:
            return False
        last = min(lanes, len(out) - first)
        blocks = last // BLOCK * BLOCK
        for lane in range(0, blocks, BLOCK):
            at += decode_block(states, lane, slots, classes, words, at, out, first + lane)
        for lane in range(blocks, last):
            state = np.int64(states[lane])
            table = np.int64(classes[first + lane]) << PRECISION if len(classes) else 0
            entry = np.int64(slots[table + (state & 4095)])
            out[first + lane] = entry & 255
            state = ((entry >> 20) + 1) * (state >> 12) + ((entry >> 8) & 4095)
            # Where a word is needed, all bits of `low` are 1: a branch would often be mispredicted.
            low = (state - LEAST) >> 63
            # An unsigned index needs no test for being negative.
            states[lane] = state << (low & 16) | np.int64(words[np.uint64(at)]) & low
            at -= int(low)
    for lane in range(lanes):
        if states[lane] != LEAST:
            return False
    return at == stored


def encode_plain(
    symbols: Symbols, frequencies: Array, starts: Array, classes: Symbols, states: Array, words: Array
) -> int:
    """Do the work of `_encode` in NumPy, one round of all states at a time."""
    lanes, at = len(states), len(words)
    keys = symbols.astype(np.int64) if not len(classes) else classes.astype(np.int64) << 8 | symbols
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        key = keys[first : first + lanes]
        state, frequency = states[: len(key)], frequencies[key]
        full = state >= frequency << 20
        given = state[full] & 65535
        words[at - len(given) : at] = given
        at -= len(given)
        state = np.where(full, state >> 16, state)
        states[: len(key)] = ((state // frequency) << 12) + state % frequency + starts[key]
    return at


def decode_plain(words: Array, stored: int, slots: Array, classes: Symbols, states: Array, out: Symbols) -> bool:
    """Do the work of `_decode` in NumPy, one round of all states at a time."""
    lanes, at, entries = len(states), 2 * len(states), slots.astype(np.int64)
    wide: Array = words[:at:2].astype(np.int64) | words[1:at:2].astype(np.int64) << 16
    if int(wide.min()) < LEAST:
        return False
    for first in range(0, len(out), lanes):
        if at > stored:
            return False
        part = out[first : first + lanes]
        state = wide[: len(part)]
        table = classes[first : first + lanes].astype(np.int64) << 12 if len(classes) else 0
        entry = entries[table + (state & 4095)]
        part[:] = entry & 255
        state = ((entry >> 20) + 1) * (state >> 12) + ((entry >> 8) & 4095)
        low = state < LEAST
        taken = int(np.count_nonzero(low))
        state[low] = state[low] << 16 | words[at : at + taken]
        wide[: len(part)] = state
        at += taken
    return at == stored and bool((wide == LEAST).all())
