"""The writer of value blocks: it stores each plane in the way that takes the fewest bytes (spec, "Value blocks").

Tables are chosen by k-means: places (along an axis, or bytes of the highest plane) whose symbols are distributed alike
share a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs import Mode, planes, rans
from dcformat.codecs.plane_tables import put_frequencies, put_map
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.value_blocks import (
    ALONE,
    BY_AXIS,
    BY_HIGHEST,
    CODED,
    CONSTANT,
    MAX_TABLES,
    NO_CLASSES,
    RAW,
    SYMBOLS,
    Head,
)
from dcformat.cursor import varint

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

#: In `fast` a plane is coded only if that saves one byte in this many, because raw planes decode faster.
_FAST_SAVING = 16
#: In `fast` a plane of fewer different bytes has no contexts, because a codebook takes about as few bytes and decodes
#: faster.
_FAST_SYMBOLS = 64
#: Estimated bits of a frequency that is not 0 in a table, and of an item of a map.
_FREQUENCY_BITS, _PLACE_BITS = 6.0, 2.5
#: Bits of a coded plane's head and of the end of the range coder stream.
_FIXED_BITS = 48
#: Rounds of k-means, and the numbers of tables that are tried.
_ROUNDS = 3
_TABLES = (2, 4, 8, MAX_TABLES)
#: An axis is tried if its places have this many units on average; a plane needs this many to have several tables.
_UNITS_EACH, _LEAST_UNITS = 24, 1 << 11
#: From this many bytes on, pairs of bytes are counted.
_PAIRS_FROM = 1 << 18


class Coded(NamedTuple):
    """A way to code a plane: its head (without words), its map and frequencies, its estimated bits, its units' tables.

    `classes` is empty if there is one table, and before the best way is chosen.
    """

    head: Head
    chosen: Bytes
    frequencies: Counts
    bits: float
    classes: Bytes = NO_CLASSES


class Context(NamedTuple):
    """A property that may decide on a plane's tables: the head for it, the number of places, and each unit's place."""

    head: Head
    lines: int
    places: Callable[[], Array]


def write_block(
    values: Array, dtype: str, mode: Mode, shape: Sequence[int] = (), *, beside_positions: bool = False
) -> bytes:
    """Return the block of values.

    Parameters
    ----------
    values : ndarray
        One or more.
    dtype : str
    mode : {'fast', 'small', 'tiny'}
    shape : sequence of int
        The shape of their tensor, whose axes may decide on tables.
    beside_positions : bool
        Whether the values are the entries of a sparse tensor.
    """
    parts = planes.split(values, dtype)
    each, _ = planes.units_of(dtype)
    axes = [(each * prod(shape[axis + 1 :]), size) for axis, size in enumerate(shape)]
    # In `fast` only the values of sparse tensors have contexts: there are fewer of them.
    has_contexts = mode != "fast" or beside_positions
    plans = [
        plan(plane, _contexts(plane, parts[0] if number else None, axes) if has_contexts else (), mode)
        for number, plane in enumerate(parts)
    ]
    return put_planes(parts, plans)


def _contexts(plane: Bytes, highest: Bytes | None, axes: list[tuple[int, int]]) -> Iterator[Context]:
    """Yield the properties that may decide on the tables of a plane in a value block."""
    if highest is not None:
        yield Context(Head(CODED, context=BY_HIGHEST), SYMBOLS, lambda: highest)
    for inner, lines in axes:
        yield Context(
            Head(CODED, context=BY_AXIS, inner=inner, lines=lines), lines, partial(_axis, inner, lines, len(plane))
        )


def _axis(inner: int, lines: int, count: int) -> Array:
    """Return the place along an axis of each of the units."""
    return np.resize(np.repeat(np.arange(lines), inner), count)


def put_planes(parts: Sequence[Bytes], plans: Sequence[Head | Coded]) -> bytes:
    """Return planes stored as planned: the heads, the tables, the data."""
    heads = bytearray()
    data: list[bytes] = []
    encoder = Encoder(64)
    coded = False
    for plane, way in zip(parts, plans, strict=True):
        if isinstance(way, Head):
            heads.append(way.kind)
            if way.kind == CONSTANT:
                heads.append(way.byte)
            else:
                data.append(plane.tobytes())
            continue
        coded = True
        stream = rans.encode(plane, way.frequencies, way.classes)
        words = (len(stream) - rans.STATE_BYTES * rans.states_for(len(plane))) // 2
        heads += _head_bytes(way.head._replace(words=words))
        _write_tables(encoder, way)
        data.append(stream)
    tables = encoder.take() if coded else b""
    return b"".join((heads, varint(len(tables)) + tables if coded else b"", *data))


def coded_bits(values: Array, dtype: str, mode: Mode, *, beside_positions: bool = False) -> float:
    """Return the estimated bits of a value in a block, without the tables."""
    parts = planes.split(values, dtype)
    bits = 0.0
    for number, plane in enumerate(parts):
        by_highest = mode == "fast" and beside_positions and number
        each = _entropy(parts[0].astype(np.int64) << 8 | plane) - _entropy(parts[0]) if by_highest else _entropy(plane)
        bits += each if mode != "fast" or each < 8 - 8 / _FAST_SAVING else 8.0
    return bits * planes.units_of(dtype)[0]


def _entropy(symbols: Array) -> float:
    """Return the entropy of symbols in bits for each."""
    counts = _counts(symbols) if symbols.dtype == np.uint8 else np.bincount(symbols)
    used = counts[counts > 0]
    return float((used * np.log2(len(symbols) / used)).sum()) / len(symbols)


def _head_bytes(head: Head) -> bytes:
    axis = varint(head.inner) + varint(head.lines) if head.context == BY_AXIS else b""
    return bytes((head.kind | head.context << 2 | head.tables - 1 << 4,)) + axis + varint(head.words)


def _write_tables(encoder: Encoder, way: Coded) -> None:
    if way.head.context != ALONE:
        put_map(encoder, way.chosen)
    put_frequencies(encoder, way.frequencies.ravel())


def plan(plane: Bytes, contexts: Iterable[Context], mode: Mode) -> Head | Coded:
    """Return how to store a plane in the fewest bytes; in `fast`, raw unless coding it saves enough."""
    counts = _counts(plane)
    if int(counts.max()) == len(plane):
        return Head(CONSTANT, byte=int(plane[0]))
    states = 8 * rans.STATE_BYTES * rans.states_for(len(plane))
    saving = 1 / _FAST_SAVING if mode == "fast" else 0.0
    limit = 8.0 * len(plane) * (1 - saving) - states - _FIXED_BITS
    has_contexts = len(plane) >= _LEAST_UNITS and (mode != "fast" or np.count_nonzero(counts) >= _FAST_SYMBOLS)
    tried = list(contexts) if has_contexts else []
    if not tried and _least_bits(counts) >= limit:
        return Head(RAW)
    frequencies = rans.normalised(counts)[None]
    best = Coded(Head(CODED), NO_CLASSES, frequencies, _bits(counts[None], frequencies))
    for context in tried:
        best = min(best, _with_context(plane, context, best), key=lambda coded: coded.bits)
    return best if best.bits < limit else Head(RAW)


def _counts(plane: Bytes) -> Counts:
    """Return how often each byte occurs: counted in pairs, because NumPy takes as long for a pair as for a byte."""
    if len(plane) < _PAIRS_FROM:
        return np.bincount(plane, minlength=SYMBOLS)
    even = len(plane) & ~1
    pairs = np.bincount(plane[:even].view(np.uint16), minlength=SYMBOLS * SYMBOLS).reshape(SYMBOLS, SYMBOLS)
    counts: Counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    return counts + np.bincount(plane[even:], minlength=SYMBOLS)


def _with_context(plane: Bytes, context: Context, best: Coded) -> Coded:
    """Return the best way to code a plane with several tables, or `best` if none is better."""
    head, lines = context.head, context.lines
    if lines < 2 or (head.context == BY_AXIS and lines * _UNITS_EACH > len(plane)):
        return best
    places = context.places()
    joint = np.bincount(places.astype(np.int64) << 8 | plane, minlength=lines * SYMBOLS).reshape(lines, SYMBOLS)
    found = min(_with_tables(joint, head), key=lambda coded: coded.bits, default=best)
    return found._replace(classes=found.chosen[places]) if found.bits < best.bits else best


def _bits(counts: Counts, frequencies: Counts, places: int = 0) -> float:
    """Return the estimated bits of symbols, of their tables and of a map."""
    symbols = sum(rans.cost_bits(own, table) for own, table in zip(counts, frequencies, strict=True))
    return symbols + _FREQUENCY_BITS * float(np.count_nonzero(frequencies)) + _PLACE_BITS * places


def _least_bits(counts: Counts) -> float:
    """Return a lower bound of `_bits` for one table: the entropy of the symbols instead of their cost in the table.

    It costs a quarter of `rans.normalised`, which small planes seldom need.
    """
    used = counts[counts > 0]
    return float((used * np.log2(used.sum() / used)).sum()) + _FREQUENCY_BITS * len(used) - 1


def _with_tables(joint: Counts, head: Head) -> Iterator[Coded]:
    """Yield ways to share tables among places, given how often each symbol occurs at each place."""
    totals = joint.sum(axis=1)
    there = np.flatnonzero(totals)
    used = np.flatnonzero(joint.any(axis=0))
    if len(there) < 2:
        return
    own = joint[np.ix_(there, used)].astype(np.float64)
    for chosen in _beginnings(own @ used / own.sum(axis=1), totals[there]):
        tables = int(chosen.max()) + 1
        for _ in range(_ROUNDS):
            together = _sums(own, chosen, tables) + 0.01
            chosen = np.argmin(own @ -np.log2(together / together.sum(axis=1, keepdims=True)).T, axis=1)
        _, chosen = np.unique(chosen, return_inverse=True)
        if (count := int(chosen.max()) + 1) < 2:
            continue
        map_ = np.zeros(len(joint), np.uint8)
        map_[there] = chosen
        counts = np.zeros((count, SYMBOLS), np.int64)
        np.add.at(counts, map_[there], joint[there])
        frequencies = np.stack([rans.normalised(row) for row in counts])
        yield Coded(head._replace(tables=count), map_, frequencies, _bits(counts, frequencies, len(there)))


def _beginnings(means: Array, totals: Counts) -> Iterator[Array]:
    """Yield the tables with which k-means begins: places of similar means share one, or the heaviest have their own."""
    order, heaviest = np.argsort(means, kind="stable"), np.argsort(-totals, kind="stable")
    weight = np.cumsum(totals[order])
    for tables in _TABLES:
        tables = min(tables, len(totals))
        alike, apart = np.empty(len(totals), np.int64), np.empty(len(totals), np.int64)
        alike[order] = np.minimum((weight - 1) * tables // weight[-1], tables - 1)
        apart[heaviest] = np.minimum(np.arange(len(totals)), tables - 1)
        yield alike
        yield apart
        if tables == len(totals):
            break


def _sums(own: Array, chosen: Array, tables: int) -> Array:
    """Return the sum of the rows of each table."""
    out = np.zeros((tables, own.shape[1]))
    np.add.at(out, chosen, own)
    return out
