"""Lays out a layer's weights in the order in which a kernel reads them. Only `dense_columns` makes anything dense."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Conv, Pair, Shape
from dcformat.records import record
from dcformat_runtime.kernels.simd_widths import BLOCK
from dcformat_runtime.network import Floats, Ints, Layer, Sparse

Int32s = npt.NDArray[np.int32]
#: The number of rows in a quad of a `DenseTable`.
QUAD = 4
#: The number of columns in a run of a `DenseTable`: a tile of so many fits into the first-level cache. With at most so
#: many positions, storing and resuming sums takes longer than loading from the second level.
_RUN_COLUMNS, _FEW_POSITIONS = 96, 96
#: The number of kernel rows from which the best layout of lines is judged.
_MANY_ROWS = 64


@record(eq=False)
class CsrTable:
    """Entries by run of columns, then by row, longest rows first; see the opcode "csr_product".

    `indptr` has the shape ``(runs * rows + 1,)``. `order` holds each row's number, and `bias` follows it.
    """

    indptr: Int32s
    order: Int32s
    indices: Int32s
    values: Floats
    bias: Floats


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


def slots(counts: Ints) -> int:
    """Return the number of slots for rows of these lengths, 16 rows side by side, longest rows first."""
    return sum(sorted(counts.tolist(), reverse=True)[::BLOCK])


def csr_table(row: Int32s, positions: Ints, values: Floats, bias: Floats, run: Ints | None, runs: int) -> CsrTable:
    """Lay out entries by run of columns and by row.

    `row` must be ascending, and so must `run` within each row; it is None if there is one run. Within a row and a run,
    entries keep their order.
    """
    rows = bias.size
    key = row if run is None else row.astype(np.int64) * runs + run
    counts = np.bincount(key, minlength=runs * rows)
    starts = np.cumsum(counts) - counts
    order = longest_first(counts if run is None else counts.reshape(rows, runs).sum(axis=1))
    # Pieces of rows move as a whole: piece k begins at `starts` of the old order.
    counts, starts = (array.reshape(rows, runs)[order].T.reshape(-1) for array in (counts, starts))
    indptr = np.zeros(runs * rows + 1, np.int32)
    np.cumsum(counts, out=indptr[1:])
    place = np.arange(row.size, dtype=np.int32) + np.repeat((starts - indptr[:-1]).astype(np.int32), counts)
    return CsrTable(indptr, order.astype(np.int32), positions[place].astype(np.int32), values[place], bias[order])


def sell16_table(weight: Sparse, bias: Floats, columns: Int32s | None = None) -> Sell16Table:
    """Lay out a matrix for one input vector; `columns` renames its columns."""
    counts = np.diff(weight.indptr)
    order = longest_first(counts)
    groups = -(-weight.rows // BLOCK)
    indptr = np.zeros(groups + 1, np.int64)
    np.cumsum(counts[order[::BLOCK]], out=indptr[1:])
    rank = np.empty(weight.rows, np.int64)
    rank[order] = np.arange(weight.rows)
    row = row_numbers(weight)
    slot = indptr[rank[row] // BLOCK] + np.arange(weight.nnz) - weight.indptr[row]
    place = slot * BLOCK + rank[row] % BLOCK
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
    key = row.astype(np.int64) * blocks + place // BLOCK
    # Unless columns are renamed, entries are in this order already.
    sort = np.arange(key.size, dtype=np.int32) if columns is None else np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[sort], prepend=-1)).astype(np.int32)
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


def window(
    node: Conv, kernel: Pair, source: Shape, plane: int, out: Pair, flat: bool, halves: bool, dense: bool, pools: bool
) -> Window:
    """Choose how to copy a convolution's input.

    `plane` is the distance between channels of the source in positions. If `flat`, there is one image: it is copied
    once for each kernel column, so that all outputs lie in one row, or, if lines of outputs are half blocks, once with
    a cache line for each line. Otherwise every position holds many images. `halves` says that two half blocks take no
    longer than a block, and `pools` that a pool follows, which may be computed in registers that hold a line each. A
    `dense` product takes no half blocks and does not fill lines up, because it loads each block once for several rows.
    """
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


def depthwise_window(node: Conv, kernel: Pair, source: Shape, out: Pair) -> Window:
    """Return how each channel of a depthwise convolution is copied.

    The copy is small, so weights may read it at any place. With a stride there is one for each phase; without, its
    lines are those of the image, and entries have shifts instead of padding (opcode "depthwise_product").
    """
    (stride_h, stride_w), (down, right) = node.stride, node.dilation
    rows = out[0] + (kernel[0] - 1) * down // stride_h
    starts, cols = range(1), source[2]
    if stride_w > 1:
        starts = range(-node.padding[1], stride_w - node.padding[1])
        cols = out[1] + (kernel[1] - 1) * right // stride_w
    shape = (len(starts), stride_h, rows, cols)
    return Window(starts, stride_w, stride_h, node.padding[0], shape, True, 0, 0, out[1], 0, cols)


class DepthwiseTable(NamedTuple):
    """A depthwise weight by row; see the opcode "depthwise_product"."""

    indptr: Int32s
    offsets: Int32s
    shifts: Int32s
    values: Floats
    bias: Floats


def depthwise_table(weight: Sparse, bias: Floats, node: Conv, view: Window) -> DepthwiseTable:
    """Lay out a convolution whose rows have one input channel each."""
    y, x = np.divmod(weight.indices.astype(np.int64), weight.shape[3])
    y, x, shift = y * node.dilation[0], x * node.dilation[1], np.zeros(x.size, np.int64)
    _, phases, rows, cols = view.shape
    if view.stride == 1:
        x -= node.padding[1]
        shift, variant = x, 0 * x
    else:
        variant, x = x % view.stride, x // view.stride
    offset = ((variant * phases + y % phases) * rows + y // phases) * cols + x
    indptr, offsets, shifts = (array.astype(np.int32) for array in (weight.indptr, offset, shift))
    return DepthwiseTable(indptr, offsets, shifts, weight.values, bias)


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


class Entries(NamedTuple):
    """Entries of a convolution's weight, except those that only meet padding.

    `channel` and `position` tell where an entry reads the copy of its input.
    """

    row: Int32s
    channel: Ints
    position: Ints
    value: Floats


def conv_entries(weight: Sparse, layer: Layer, view: Window, flat: bool) -> Entries:
    """Return a convolution's entries in the order of the weight's."""
    assert isinstance(layer.node, Conv)
    if weight.columns <= weight.nnz:  # compute each column once
        columns = conv_columns(np.arange(weight.columns), weight.shape, layer, view, flat)
        channel, position, seen = (array[weight.indices] for array in columns)
    else:
        channel, position, seen = conv_columns(weight.indices.astype(np.int64), weight.shape, layer, view, flat)
    row, value = row_numbers(weight), weight.values
    if layer.node.groups > 1:
        first = row // (weight.rows // layer.node.groups) * weight.shape[1]
        channel, position = channel + first, position + first * view.plane
    if not seen.all():
        row, channel, position, value = row[seen], channel[seen], position[seen], value[seen]
    return Entries(row, channel, position, value)


def conv_columns(
    columns: Ints, shape: Shape, layer: Layer, view: Window, flat: bool
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Return, for columns of a weight of this shape, the channel, the position, and whether it ever meets the image.

    They are those of the first group of channels.
    """
    node, source, out = layer.node, layer.in_shapes[0], layer.conv_shape[1:]
    assert isinstance(node, Conv)
    per_group, kernel_h, kernel_w = shape[1:]
    channel, ky, kx = np.unravel_index(columns, (per_group, kernel_h, kernel_w))
    (stride_h, stride_w), (down, right) = node.stride, node.dilation
    _, phases, rows, cols = view.shape
    y, x = ky * down, kx * right
    variant, x = (kx, 0 * x) if flat and view.copied and view.half != BLOCK else (x % stride_w, x // stride_w)
    if not view.copied:
        variant = 0 * x
    position = ((variant * phases + y % stride_h) * rows + y // stride_h) * cols + x + channel * view.plane
    seen_y = _seen(kernel_h, down, stride_h, node.padding[0], source[1], out[0])
    seen_x = _seen(kernel_w, right, stride_w, node.padding[1], source[2], out[1])
    return channel, position, seen_y[ky] & seen_x[kx]


class DenseTable(NamedTuple):
    """A dense weight by run of columns, then by quad of rows; see the opcode "dense_product".

    `offsets` has the shape ``(columns,)``, `values` ``(quads, columns, 4)`` for each run, and `bias` ``(quads * 4,)``.
    """

    offsets: Int32s
    values: Floats
    bias: Floats


def dense_table(weight: Sparse, bias: Floats, layer: Layer, view: Window, flat: bool) -> DenseTable:
    """Lay out a convolution without groups; its columns are those that meet the image at all."""
    _, position, seen = conv_columns(np.arange(weight.columns), weight.shape, layer, view, flat)
    matrix = weight.dense().reshape(weight.rows, weight.columns)
    if not seen.all():
        matrix = matrix[:, seen]
    quads, columns = -(-weight.rows // QUAD), matrix.shape[1]
    whole = weight.rows // QUAD
    values = np.zeros(quads * columns * QUAD, np.float32)
    runs = dense_runs(layer, columns)
    for start, end in pairwise(c * columns // runs for c in range(runs + 1)):
        part = values[quads * QUAD * start : quads * QUAD * end].reshape(quads, end - start, QUAD)
        part[:whole] = matrix[: whole * QUAD, start:end].reshape(whole, QUAD, -1).transpose(0, 2, 1)
        for r in range(whole * QUAD, weight.rows):
            part[whole, :, r % QUAD] = matrix[r, start:end]
    biases = np.zeros(quads * QUAD, np.float32)
    biases[: bias.size] = bias
    return DenseTable(position[seen].astype(np.int32), values, biases)


def dense_runs(layer: Layer, columns: int) -> int:
    """Return the number of runs of columns in a `DenseTable`: one if there are few positions for each weight."""
    return max(1, round(columns / _RUN_COLUMNS)) if prod(layer.conv_shape[1:]) > _FEW_POSITIONS else 1


def _seen(kernel: int, dilation: int, stride: int, padding: int, size: int, out: int) -> npt.NDArray[np.bool_]:
    """Return, for each kernel row (or column), whether it reads inside the image at all."""
    offset = np.arange(kernel, dtype=np.int64) * dilation - padding
    first = np.maximum(0, -(offset // stride))  # the first output for which it reads nothing before the image
    return np.asarray((first < out) & (offset + first * stride < size))
