"""The writer of coder 5: it recognises codebooks and scales of the places along an axis, exact to the bit.

It looks at a sample of places first, so that a tensor without such structure costs little.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import Mode
from dcformat.codecs.axis_tables import CODEBOOKS, MAX_CODES, SCALES
from dcformat.codecs.value_block_writer import write_block
from dcformat.cursor import varint
from dcformat.floats import bit_patterns
from dcformat.model import Tensor
from dcformat.records import replace

Array = npt.NDArray[Any]

#: Sizes of groups of neighbours in a row that are tried, besides the axes.
_GROUPS = (16, 32, 64, 128, 256)
#: The minimum number of elements of a place, and the maximum of a tensor, because all of it is sorted.
_LEAST, MAX_SIZE = 3, 1 << 24
#: Number of places in the sample, and of the first values of each.
_SAMPLE, _BEGINNING = 16, 1 << 12
#: The steps of a float32 around an estimate of a scale that are tried.
_STEPS = range(-3, 4)
#: The places that such scales give are at most this far from those of the estimate: relative to them, and where numbers
#: are denormal.
_CLOSE, _SMALLEST = 2.0**-20, 2.0**-138


class AxisCodes(NamedTuple):
    """A tensor as codes and tables.

    Attributes
    ----------
    kind : CODEBOOKS or SCALES
    inner, lines : int
        As in `axis_tables.AxisTables`.
    size : int
        Number of values in a codebook.
    first, second : ndarrays
        The codebooks or scales, and the zero points.
    codes : Tensor
        The codes as an int8 tensor, sparse if the tensor is.
    """

    kind: int
    inner: int
    lines: int
    size: int
    first: Array
    second: Array
    codes: Tensor

    def head(self, dtype: str, mode: Mode) -> bytes:
        """Return the payload up to the codes' codebook size."""
        front = bytes((layout.CODER_TABLES, self.kind)) + varint(self.inner) + varint(self.lines)
        blocks = [write_block(self.first, dtype, mode)]
        if self.kind == SCALES:
            blocks.append(write_block(self.second, "int16", mode))
        else:
            front += varint(self.size)
        return front + b"".join(varint(len(block)) + block for block in blocks)


def found_in(tensor: Tensor, few: int = MAX_CODES) -> AxisCodes | None:
    """Return a validated plain tensor as codes and tables that are worth coding, or None if it has no such structure.

    All elements of a dense tensor count. The zeros that a sparse tensor leaves out belong to no codebook.

    Parameters
    ----------
    tensor : Tensor
    few : int
        Scales are not worth coding if the tensor has at most so many distinct values, which a codebook holds.
    """
    if tensor.codebook is not None or not 2 * _LEAST <= tensor.size <= MAX_SIZE or tensor.is_constant:
        return None
    dense = np.ascontiguousarray(tensor.data) if not tensor.is_sparse else tensor.to_dense(max_memory=None).reshape(-1)
    best = None
    for inner, lines in _axes(tensor.shape):
        by_place = dense.reshape(-1, lines, inner).transpose(1, 0, 2)
        if not _may_fit(by_place, tensor.dtype):
            continue
        places = by_place.reshape(lines, -1)
        made = _scales(places) if tensor.dtype == "float32" else None
        if made is None:
            made = _codebooks(places, tensor.is_sparse)
        if made is None:
            continue
        kind, size, first, second, codes = made
        if best is None or first.nbytes * size < best.first.nbytes * best.size:
            in_order = codes.reshape(lines, -1, inner).transpose(1, 0, 2).reshape(-1)
            best = AxisCodes(kind, inner, lines, size, first, second, _codes(tensor, in_order))
    # One codebook for the whole tensor is better than one for each place if its codes have eight bits too, and readers
    # can use it.
    if best is not None and len(np.unique(bit_patterns(dense))) <= (few if best.kind == SCALES else MAX_CODES):
        return None
    return best


def _axes(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the inner size and the number of places of each axis, and of groups along the last axis."""
    size = prod(shape)
    seen = set()
    last = shape[-1] if shape else 1
    for axis, lines in enumerate(shape):
        seen.add((prod(shape[axis + 1 :]), lines))
    for group in _GROUPS:
        if last % group == 0 and last > group:
            seen.add((group, size // group))
    for inner, lines in sorted(seen):
        if lines > 1 and size // lines >= _LEAST:
            yield inner, lines


def _may_fit(by_place: Array, dtype: str) -> bool:
    """Return whether a few places have so few distinct values that codes and tables may pay."""
    lines = len(by_place)
    for line in range(0, lines, -(-lines // _SAMPLE)):
        values = bit_patterns(np.ascontiguousarray(by_place[line]).reshape(-1))
        if len(values) > _BEGINNING and len(np.unique(values[:_BEGINNING])) > MAX_CODES:
            return False
        ordered = np.sort(values)
        distinct = 1 + np.count_nonzero(ordered[1:] != ordered[:-1])
        if distinct > MAX_CODES:
            return False
        if 2 * distinct > len(values) and (dtype != "float32" or _scales(values.view("<f4")[None]) is None):
            return False
    return True


def _codes(tensor: Tensor, in_order: Array) -> Tensor:
    """Return the codes of all elements (uint8) as a tensor like `tensor`."""
    data = in_order
    if tensor.indptr is not None and tensor.indices is not None:
        rows = np.repeat(np.arange(tensor.rows), np.diff(tensor.indptr))
        data = in_order[rows * tensor.columns + tensor.indices]
    return replace(tensor, dtype="int8", data=np.ascontiguousarray(data).view(np.int8), scale=1.0)


def _codebooks(places: Array, is_sparse: bool) -> tuple[int, int, Array, Array, Array] | None:
    """Return kind, size, codebooks, nothing, and codes, if each place has few distinct values.

    In a sparse tensor, zero has code 0 and no place in the codebooks.
    """
    bits = bit_patterns(np.ascontiguousarray(places))
    order = np.argsort(bits, axis=1, kind="stable")
    ascending = np.take_along_axis(bits, order, axis=1)
    new = np.zeros(bits.shape, np.int64)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    ranks = np.cumsum(new, axis=1)
    if is_sparse:
        ranks += (ascending[:, :1] != 0).astype(np.int64)
    size = int(ranks.max()) + (0 if is_sparse else 1)
    if not 1 <= size <= MAX_CODES - is_sparse or size * len(places) > places.size // 2:
        return None
    codebooks = np.zeros((len(places), size + is_sparse), bits.dtype)
    np.put_along_axis(codebooks, ranks, ascending, axis=1)
    codes = np.empty(bits.shape, np.uint8)
    np.put_along_axis(codes, order, ranks.astype(np.uint8), axis=1)
    flat = np.ascontiguousarray(codebooks[:, 1:] if is_sparse else codebooks).reshape(-1)
    return CODEBOOKS, size, flat.view(places.dtype), np.zeros(0, np.int16), codes


@np.errstate(all="ignore")  # for the largest and the smallest floats
def _scales(places: Array) -> tuple[int, int, Array, Array, Array] | None:
    """Return kind, 1, scales, zero points and codes, if each place is a scale times integers less than 256 apart."""
    steps = np.abs(places.astype(np.float64))
    steps.sort(axis=1)  # infinity and NaN come last
    largest = steps[:, -1].copy()
    if not np.isfinite(largest).all():
        return None
    steps[:, 1:] -= steps[:, :-1].copy()
    steps[steps <= largest[:, None] / (1 << 12)] = np.inf
    step = steps.min(axis=1)
    if int(np.rint(largest / step).max()) >= MAX_CODES or not np.isfinite(step[largest > 0]).all():
        return None
    if (np.signbit(places) & (places == 0)).any():
        return None
    scales, numbers = np.ones(len(places), np.float32), np.zeros(places.shape, np.int64)
    left = np.flatnonzero(largest)
    # If there are few integers, they may be more than 1 apart: their smallest step is a small multiple of the scale.
    for multiple in range(1, MAX_CODES):
        if not left.size:
            break
        unit = step[left] / multiple
        if int(np.rint(largest[left] / unit).max()) >= MAX_CODES:
            return None
        found, whole = _fitting(places[left], largest[left], unit)
        fits = found > 0
        scales[left[fits]], numbers[left[fits]] = found[fits], whole[fits]
        left = left[~fits]
    if left.size:
        return None
    low, high = numbers.min(axis=1), numbers.max(axis=1)
    if int((high - low).max()) >= MAX_CODES:
        return None
    zeros = np.where((low >= -128) & (high < 128), 0, -128 - low)
    codes = (numbers + zeros[:, None]).astype(np.int8).view(np.uint8)
    return SCALES, 1, scales, zeros.astype(np.int16), codes


def _fitting(places: Array, largest: Array, unit: Array) -> tuple[Array, Array]:
    """Return float32 scales near `unit`, 0 where there is none, and the integers by which they give places exactly."""
    numbers = np.rint(places / unit[:, None]).astype(np.int64)
    exact = largest / np.rint(largest / unit)
    scales = np.zeros(len(places), np.float32)
    # Most units are wrong, and give other places than any scale near a right one would.
    apart = np.abs(exact[:, None] * numbers - places)
    if not (apart <= _CLOSE * np.abs(places) + _SMALLEST).all(axis=1).any():
        return scales, numbers
    estimate = exact.astype(np.float32)
    for offset in sorted(_STEPS, key=abs):
        tried = (estimate.view(np.int32) + offset).view(np.float32)
        made = (tried[:, None].astype(np.float64) * numbers).astype(np.float32)
        fits = (tried > 0) & (made.view(np.uint32) == places.view(np.uint32)).all(axis=1)
        scales = np.where((scales == 0) & fits, tried, scales)
    return scales, numbers
