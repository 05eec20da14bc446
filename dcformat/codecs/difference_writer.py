"""The writer of differences: how the elements of one tensor are made from those of another (spec, "Differences")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import planes
from dcformat.codecs.differences import (
    BY_PREDICTION,
    CLEARED,
    KEPT,
    MAX_LINES,
    SMALL_SIZES,
    STEPPED,
    Places,
    as_units,
    highest_bytes,
    ordered,
    pieces,
    rest_bits,
)
from dcformat.codecs.value_block_writer import Context, plan, put_planes, write_block
from dcformat.codecs.value_blocks import BY_AXIS, CODED, SYMBOLS, Bytes, Head
from dcformat.cursor import varint
from dcformat.floats import bit_patterns

Array = npt.NDArray[Any]


def write_difference(new: Array, origin: Array, dtype: str, shape: Sequence[int]) -> bytes:
    """Return the difference between two tensors of one dtype and shape, given as 1-D arrays of ``STORAGE[dtype]``."""
    plain = b"\0" + _pieces(new, origin, dtype, shape)
    table = _table(new, origin)
    if table is None:
        return plain
    values, codes = table
    block = write_block(values, dtype, "small")
    moved = b"\1" + varint(len(block)) + block + _pieces(new, values[codes], dtype, shape)
    return min(plain, moved, key=len)


def _table(new: Array, origin: Array) -> tuple[Array, Array] | None:
    """Return what the values of a tensor with few values usually become, and each element's number among them."""
    bits = bit_patterns(np.ascontiguousarray(origin))
    known, codes = np.unique(bits, return_inverse=True)
    if not 1 <= len(known) <= layout.MAX_CODEBOOK // 16 or len(known) * 16 > len(bits):
        return None
    # Of the pairs of an old and a new value, the most frequent one for each old value.
    target, places = np.unique(bit_patterns(np.ascontiguousarray(new)), return_inverse=True)
    pairs, counts = np.unique(codes * len(target) + places, return_counts=True)
    order = np.lexsort((-counts, pairs // len(target)))
    first = order[np.unique((pairs // len(target))[order], return_index=True)[1]]
    becomes = target[pairs[first] % len(target)]
    return None if np.array_equal(becomes, known) else (becomes.view(origin.dtype), codes)


def _pieces(new: Array, predicted: Array, dtype: str, shape: Sequence[int]) -> bytes:
    made, base = as_units(np.ascontiguousarray(new), dtype), as_units(np.ascontiguousarray(predicted), dtype)
    each = planes.units_of(dtype)[0]
    axes = [(each * prod(shape[axis + 1 :]), size) for axis, size in enumerate(shape)]
    out = bytearray()
    for piece in pieces(len(made)):
        block = _piece(made[piece], base[piece], piece.start, dtype, axes)
        out += varint(len(block)) + block
    return bytes(out)


def _piece(new: Array, predicted: Array, first: int, dtype: str, axes: list[tuple[int, int]]) -> bytes:
    places = Places(first, highest_bytes(predicted, dtype))
    marks = np.where(new == predicted, KEPT, np.where(new == 0, CLEARED, STEPPED)).astype(np.uint8)
    there = np.flatnonzero(marks == STEPPED)
    parts = [marks]
    plans = [plan(marks, _contexts(places, axes), "small")]
    rests = b""
    if len(there):
        sizes, rests = _steps(ordered(new[there], dtype) - ordered(predicted[there], dtype))
        parts.append(sizes)
        plans.append(plan(sizes, _contexts(places, axes, there), "small"))
    return varint(len(there)) + put_planes(parts, plans) + rests


def _contexts(places: Places, axes: list[tuple[int, int]], only: Array | None = None) -> Iterator[Context]:
    heads = [(SYMBOLS, Head(CODED, context=BY_PREDICTION))]
    heads += [(n, Head(CODED, context=BY_AXIS, inner=inner, lines=n)) for inner, n in axes if n <= MAX_LINES]
    for lines, head in heads:

        def chosen(head: Head = head) -> Array:
            found = places.chosen(head)
            return found if only is None else found[only]

        yield Context(head, lines, chosen)


def _steps(steps: Array) -> tuple[Bytes, bytes]:
    """Return the sizes of steps, given modulo their width, and the bits that these leave open."""
    width = 8 * steps.itemsize
    values = ((steps << 1 ^ (0 - (steps >> (width - 1)))) - 1).astype(np.uint64)
    length = _bit_length(values)
    rest = np.maximum(length - 3, 0)
    top = (values >> rest.astype(np.uint64)).astype(np.int64)
    sizes = np.where(values < SMALL_SIZES, top, 4 * length - 8 + (top & 3)).astype(np.uint8)
    return sizes, _packed(values & ((np.uint64(1) << rest.astype(np.uint64)) - np.uint64(1)), rest_bits(sizes))


def _bit_length(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    high = (values >> np.uint64(32)).astype(np.float64)
    low = (values & np.uint64(0xFFFFFFFF)).astype(np.float64)
    return np.where(high > 0, 32 + np.frexp(high)[1], np.frexp(low)[1]).astype(np.int64)


def _packed(values: npt.NDArray[np.uint64], bits: npt.NDArray[np.int64]) -> bytes:
    """Return the low `bits` of each value, one field after the other, low bits first."""
    ends = np.cumsum(bits)
    size = -(-int(ends[-1]) // 8)
    starts = ends - bits
    shift = (starts & 7).astype(np.uint64)
    low, beyond = values << shift, np.where(shift > 0, values >> (np.uint64(64) - shift) % np.uint64(64), 0)
    out = np.zeros(size + 16)
    for byte in range(-(-(int(bits.max()) + 7) // 8)):
        part = low >> np.uint64(8 * byte) & np.uint64(255) if byte < 8 else beyond
        # Fields share no bits, so adding them up sets each bit once.
        out += np.bincount((starts >> 3) + byte, weights=part, minlength=len(out))
    return out[:size].astype(np.uint8).tobytes()
