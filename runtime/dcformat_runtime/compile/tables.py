"""Lays out a layer's weights in the order in which a kernel reads them. Only `dense_columns` makes anything dense."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Conv, Pair, Shape
from dcformat.records import record
from dcformat_runtime.kernels.simd_widths import BLOCK
from dcformat_runtime.network import Layer
from dcformat_runtime.weight_matrices import Floats, Ints, Sparse

Int32s = npt.NDArray[np.int32]
#: The number of kernel rows from which the best layout of lines is judged.
_MANY_ROWS = 64


class ColumnTable(NamedTuple):
    """Some columns of a weight, in ascending order.

    `places` (int32) is what the entries of each column multiply, or -1 if they never meet the input. `bounds` (int64)
    has the first column of each run, and the end of the last. `lists` has the number of each column's list, or is 0 if
    there is a single one.
    """

    places: Int32s
    bounds: Ints
    lists: Ints | int = 0


class EntryTable(NamedTuple):
    """The entries of a weight: `keys` (int32) gives for each of them which of the `columns` is its own."""

    keys: Int32s
    columns: ColumnTable


@record(eq=False)
class Sell16Table:
    """Sixteen rows side by side, longest first, filled up with zeros; see the opcode "sell16_product".

    `indices` and `values` have the shape ``(slots * 16,)``. Place p of the result is row ``order[p]``.
    """

    indptr: Int32s
    indices: npt.NDArray[Any]
    values: Floats
    bias: Floats
    order: Int32s


def row_numbers(weight: Sparse) -> Int32s:
    """Return the row of each entry."""
    return np.repeat(np.arange(weight.rows, dtype=np.int32), np.diff(weight.indptr))


def longest_first(counts: Ints) -> Ints:
    """Return the order of rows by length, longest first. Sorting by NumPy would load half a megabyte of code."""
    lengths = counts.tolist()
    return np.array(sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True), np.int64)


def places_of(order: Int32s) -> Int32s:
    """Return the place of each column in `order`."""
    places = np.empty(order.size, np.int32)
    places[order] = np.arange(order.size)
    return places


def slots(counts: Ints) -> int:
    """Return the number of slots for rows of these lengths, 16 rows side by side, longest rows first."""
    return sum(sorted(counts.tolist(), reverse=True)[::BLOCK])


def run_bounds(size: int, runs: int) -> Ints:
    """Return where all runs but the first begin if `size` items are cut into runs of about the same size."""
    return np.array([-(-run * size // runs) for run in range(1, runs)], np.int64)


def linear_entries(weight: Sparse, runs: int) -> EntryTable:
    """Describe the entries of a linear layer in some runs of columns."""
    keys, columns = weight_keys(weight, weight.columns)
    return EntryTable(keys, ColumnTable(columns.astype(np.int32), _bounds(columns, weight.columns, runs)))


def weight_keys(weight: Sparse, columns: int) -> tuple[Int32s, Ints]:
    """Return the keys of an `EntryTable`, and the numbers of its columns: all of them, or those that have entries."""
    if columns <= weight.nnz:
        return weight.indices.astype(np.int32, copy=False), np.arange(columns)
    found, keys = np.unique(weight.indices, return_inverse=True)
    return keys.astype(np.int32), found.astype(np.int64)


def _bounds(ascending: Ints, size: int, runs: int) -> Ints:
    """Return where the runs begin among ascending numbers, of which there are at most `size`; the last has no end."""
    return np.array([0, *np.searchsorted(ascending, run_bounds(size, runs)), ascending.size + 1], np.int64)


def sell16_table(weight: Sparse, bias: Floats, columns: Int32s | None = None) -> Sell16Table:
    """Lay out a matrix for one input vector; `columns` renames its columns."""
    counts = np.diff(weight.indptr)
    order = longest_first(counts)
    groups = -(-weight.rows // BLOCK)
    indptr = np.zeros(groups + 1, np.int64)
    np.cumsum(counts[order[::BLOCK]], out=indptr[1:])
    first = np.empty(weight.rows, np.int64)  # the place of each row's first entry
    first[order] = indptr[:-1].repeat(BLOCK)[: weight.rows] * BLOCK + np.arange(weight.rows) % BLOCK
    place = np.repeat(first - BLOCK * weight.indptr[:-1], counts) + BLOCK * np.arange(weight.nnz)
    wide = weight.columns > 1 << 16
    indices = np.zeros(int(indptr[-1]) * BLOCK, np.int32 if wide else np.uint16)
    values = np.zeros(indices.size, np.float32)
    indices[place] = weight.indices if columns is None else columns[weight.indices]
    values[place] = weight.values
    biases = np.zeros(groups * BLOCK, np.float32)
    biases[: bias.size] = bias[order]
    return Sell16Table(indptr.astype(np.int32), indices, values, biases, order.astype(np.int32))


@record(eq=False)
class PermuteTable:
    """Entries by block of 16 columns, then by group of 16 rows, in `each` slots; see the opcode "permute".

    `indices` (uint8) and `values` have the shape ``(blocks * groups * each * 16,)``. `rest` holds the entries without a
    slot; its order of rows is that of the whole table.
    """

    each: int
    blocks: int
    indices: npt.NDArray[np.uint8]
    values: Floats
    rest: Sell16Table


@record(eq=False)
class Occurrences:
    """For each entry, its row, its place among the columns, and the number of earlier entries of its row and block."""

    row: Int32s
    place: Int32s
    before: Int32s


def occurrences(weight: Sparse, columns: Int32s | None) -> Occurrences:
    """Count the entries in each row and block of 16 columns; `columns` renames columns."""
    row = row_numbers(weight)
    place = weight.indices if columns is None else columns[weight.indices]
    blocks = -(-weight.columns // BLOCK)
    key = row.astype(np.int32 if weight.rows * blocks < 1 << 31 else np.int64) * blocks + place // BLOCK
    # Unless columns are renamed, entries are in this order already.
    sort = slice(None) if columns is None else np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[sort], prepend=key.dtype.type(-1))).astype(np.int32)
    before = np.empty(key.size, np.int32)
    before[sort] = np.arange(key.size, dtype=np.int32) - np.repeat(first, np.diff(first, append=np.int32(key.size)))
    return Occurrences(row, place, before)


def permute_table(weight: Sparse, bias: Floats, columns: Int32s | None, found: Occurrences, each: int) -> PermuteTable:
    """Lay out a matrix for one input vector with `each` slots for 16 rows and 16 columns; `columns` renames columns."""
    rest = found.before >= each
    indptr = np.zeros(weight.rows + 1, np.int64)
    np.cumsum(np.bincount(found.row[rest], minlength=weight.rows), out=indptr[1:])
    table = sell16_table(Sparse(weight.shape, indptr, weight.indices[rest], weight.values[rest]), bias, columns)
    rank = np.empty(weight.rows, np.int32)
    rank[table.order] = np.arange(weight.rows)
    blocks, groups = -(-weight.columns // BLOCK), -(-weight.rows // BLOCK)
    row, place, before = rank[found.row[~rest]], found.place[~rest], found.before[~rest]
    slot = (place // BLOCK * groups + row // BLOCK) * each + before
    indices = np.zeros(blocks * groups * each * BLOCK, np.uint8)
    values = np.zeros(indices.size, np.float32)
    indices[slot * BLOCK + row % BLOCK] = place % BLOCK
    values[slot * BLOCK + row % BLOCK] = weight.values[~rest]
    return PermuteTable(each, blocks, indices, values, table)


def dense_columns(weight: Sparse, order: Int32s, columns: Int32s | None, places: int) -> Floats:
    """Return the transposed matrix ``(places, rows up to a multiple of 16)``, rows in `order`, columns renamed."""
    out = np.zeros((places, -(-weight.rows // BLOCK) * BLOCK), np.float32)
    rank = np.empty(weight.rows, np.int64)
    rank[order] = np.arange(weight.rows)
    where = weight.indices if columns is None else columns[weight.indices]
    out[where, rank[row_numbers(weight)]] = weight.values
    return out


class Window(NamedTuple):
    """How a convolution's input is copied (opcode "pad_copy"), and where each weight reads the copy.

    `starts` lists the first source column of each variant. `shape` is ``(variants, phases, rows, cols)`` of each
    channel's copy, or of the input if it is not copied. `plane` is the distance between channels in positions.
    `line_blocks` and `width` say how outputs lie in lines (opcode "csr_product"). `half` is the distance between half
    blocks in the copy, if outputs are half blocks. `needed` is the number of columns of the copy that are read.
    If sums are shifted, `taps` has the place that each element of the kernel reads, and `lists` the list to which its
    entries belong.
    """

    starts: range
    stride: int
    phases: int
    top: int
    shape: tuple[int, int, int, int]
    copied: bool
    plane: int
    line_blocks: int
    width: int
    half: int = 0
    needed: int = 0
    taps: tuple[int, ...] = ()
    lists: tuple[int, ...] = ()


class ConvManner(NamedTuple):
    """How a convolution is computed.

    Attributes
    ----------
    flat : bool
        Whether there is one image: it is copied once for each kernel column, so that all outputs lie in one row, or, if
        lines of outputs are half blocks, once with a cache line for each line. Otherwise every position holds many
        images.
    halves : bool
        Whether two half blocks take no longer than a block.
    dense : bool
        Whether the product is dense. It takes no half blocks and does not fill lines up, because it loads each block
        once for several rows.
    pools : bool
        Whether a pool follows, which may be computed in registers that hold a line each.
    """

    flat: bool
    halves: bool
    dense: bool
    pools: bool


def window(node: Conv, kernel: Pair, source: Shape, plane: int, out: Pair, manner: ConvManner) -> Window:
    """Choose how to copy a convolution's input.

    `plane` is the distance between channels of the source in positions.
    """
    flat, halves, dense, pools = manner
    (stride_h, stride_w), (down, right) = node.stride, node.dilation
    _, height, width = source
    plain = node.stride == (1, 1) and node.padding == (0, 0)
    positions = out[0] * out[1]
    if plain and (not flat or kernel == (1, 1)):
        blocks, half = -(-positions // BLOCK), 8 * (positions <= 8 and not dense)
        return Window(range(0), 1, 1, 0, (1, 1, height, width), False, plane, blocks, positions, half)
    rows = out[0] + (kernel[0] - 1) * down // stride_h
    needed = cols = out[1] + (kernel[1] - 1) * right // stride_w
    narrow = flat and not dense and (halves or pools) and 4 < out[1] <= 8 < positions and cols <= BLOCK
    short = flat and not dense and (positions <= 8 or (halves and out[1] % BLOCK == 8))
    half = 16 if narrow else 8 if short else 0
    per = kept = 0
    shifted = range(-node.padding[1], kernel[1] * right - node.padding[1], right)  # one for each kernel column
    if narrow:
        starts, cols = range(-node.padding[1], stride_w - node.padding[1]), BLOCK
    elif half:
        starts, cols = shifted, out[1]
        needed = cols
    elif flat:
        starts = shifted
        cols, per, kept = out[1], -(-positions // BLOCK), positions
        if not dense:
            cols, per, kept = _lines(out, [ky * down // stride_h for ky in range(min(kernel[0], _MANY_ROWS))])
        needed = cols
    else:
        starts = range(-node.padding[1], stride_w - node.padding[1])
    copied = len(starts) * stride_h * rows * cols
    if flat:
        # The copy goes by half blocks, and the last one must not write into another channel.
        beyond = 7 if cols % 8 else _beyond(starts[-1], width, cols, stride_w)
        copied = -(-(copied + beyond) // BLOCK) * BLOCK
    shape = (len(starts), stride_h, rows, cols)
    return Window(starts, stride_w, stride_h, node.padding[0], shape, True, copied, per, kept, half, needed)


def _beyond(start: int, width: int, cols: int, stride: int) -> int:
    """Return how many floats a copy by half blocks writes beyond a line of `cols` that begins at column `start`."""
    if stride > 2:  # such lines are copied one by one
        return 0
    low = min(cols, max(0, -(start // stride)))
    high = max(low, min(cols, -((start - width) // stride)))
    return max(0, low + -(-(high - low) // 8) * 8 - cols)


def _lines(out: Pair, shifts: Sequence[int]) -> tuple[int, int, int]:
    """Return the number of columns in a line of the copy, and the blocks and the kept floats in a line of outputs.

    If lines follow one another closely and a kernel row moves by less than whole cache lines, every load touches two of
    them and takes half as long again. If lines are filled up to blocks, some work is wasted.
    """
    height, width = out
    close = -(-height * width // BLOCK)
    across = sum(shift * width % BLOCK != 0 for shift in shifts) / len(shifts)
    filled = -(-width // BLOCK)
    if close * (1 + across / 2) <= height * filled:
        return width, close, height * width
    return filled * BLOCK, filled, width


def numbered_by_group(weight: Sparse, groups: int) -> Sparse:
    """Return the weight of a convolution with the columns of all groups one after another."""
    if groups == 1:
        return weight
    group = row_numbers(weight) // (weight.rows // groups)
    indices = weight.indices + group.astype(np.int64) * weight.columns
    return Sparse(weight.shape, weight.indptr, indices, weight.values)


def conv_columns(columns: Ints, layer: Layer, view: Window, flat: bool, runs: int) -> ColumnTable:
    """Describe columns of a convolution, numbered over all groups, in some runs of channels."""
    assert layer.matrix is not None  # network.outline gives one to convolutions
    size = prod(layer.matrix.shape[2:])
    channel = columns // size
    element = columns - channel * size
    # A kernel may have more elements than there are entries.
    elements, each = (np.arange(size), element) if size <= columns.size else (element, np.arange(columns.size))
    taps = conv_taps(layer, view, flat, elements)
    places = taps.places[each] + channel * view.plane
    if not taps.seen.all():
        places[~taps.seen[each]] = -1
    lists = np.array(view.lists)[elements][each] if view.lists else 0
    return ColumnTable(places.astype(np.int32), _bounds(channel, layer.in_shapes[0][0], runs), lists)


class ConvTaps(NamedTuple):
    """Where elements of a convolution's kernel read the copy of the first channel, and whether they do at all."""

    places: Ints
    seen: npt.NDArray[np.bool_]


def conv_taps(layer: Layer, view: Window, flat: bool, elements: Ints) -> ConvTaps:
    """Return what some elements of a convolution's kernel read."""
    node, source, out = layer.node, layer.in_shapes[0], layer.conv_shape[1:]
    assert isinstance(node, Conv) and layer.matrix is not None
    ky, kx = np.divmod(elements, layer.matrix.shape[3])
    seen_y, seen_x = (
        _seen(each, node.dilation[k], node.stride[k], node.padding[k], source[1 + k], out[k])
        for k, each in enumerate((ky, kx))
    )
    if view.taps:
        return ConvTaps(np.array(view.taps, np.int64)[elements], seen_y & seen_x)
    (stride_h, stride_w), (down, right) = node.stride, node.dilation
    _, phases, rows, cols = view.shape
    y, x = ky * down, kx * right
    variant, x = (kx, 0 * x) if flat and view.copied and view.half != BLOCK else (x % stride_w, x // stride_w)
    if not view.copied:
        variant = 0 * x
    places = ((variant * phases + y % stride_h) * rows + y // stride_h) * cols + x
    return ConvTaps(np.asarray(places, np.int64), seen_y & seen_x)


def _seen(rows: Ints, dilation: int, stride: int, padding: int, size: int, out: int) -> npt.NDArray[np.bool_]:
    """Return, for each of some kernel rows (or columns), whether it reads inside the image at all."""
    offset = rows * dilation - padding
    first = np.maximum(0, -(offset // stride))  # the first output for which it reads nothing before the image
    return np.asarray((first < out) & (offset + first * stride < size))
