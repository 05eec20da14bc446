"""The parts of the kernel that compute several rows or lines at a time."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dcformat.jit import device
from dcformat_runtime import isa
from dcformat_runtime.kernels.image_forms import clear_lines, copy_lines
from dcformat_runtime.kernels.simd import Destination, Sum, transpose, word
from dcformat_runtime.kernels.simd_widths import ZEROS
from dcformat_runtime.kernels.tile_forms import (
    DenseTile,
    Ending,
    PlaneWindows,
    RowBlocks,
    Taps,
    dense_rows,
    plane_rows,
    plane_windows,
    row_blocks,
    store_sums,
)

Array = npt.NDArray[Any]


@device
def dense_product(a: Array, mem: Array, op: int, source: int, target: int, exact: int, part: int, parts: int) -> None:
    """Multiply dense rows by blocks of positions or of lanes; each part takes adjacent tiles of rows."""
    count = word(mem, op + isa.DENSE_PRODUCT_ROWS)
    columns = word(mem, op + isa.DENSE_PRODUCT_COLUMNS)
    offsets = word(mem, op + isa.DENSE_PRODUCT_OFFSETS)
    values = word(mem, op + isa.DENSE_PRODUCT_VALUES)
    biases = word(mem, op + isa.DENSE_PRODUCT_BIAS)
    unit = word(mem, op + isa.DENSE_PRODUCT_UNIT)
    target_row = word(mem, op + isa.DENSE_PRODUCT_TARGET_ROW)
    gap = word(mem, op + isa.DENSE_PRODUCT_GAP)
    blocks = word(mem, op + isa.DENSE_PRODUCT_BLOCKS)
    max_blocks = word(mem, op + isa.DENSE_PRODUCT_MAX_BLOCKS)
    width = word(mem, op + isa.DENSE_PRODUCT_WIDTH)
    bounds = word(mem, op + isa.DENSE_PRODUCT_BOUNDS)
    runs = word(mem, op + isa.DENSE_PRODUCT_RUNS)
    residual = word(mem, op + isa.DENSE_PRODUCT_RESIDUAL)
    adds = 0 if residual == isa.NO_RESIDUAL else 1
    quads = (count + 3) // 4
    for i in range(word(mem, op + isa.DENSE_PRODUCT_OUTER)):
        row_source = source + i * word(mem, op + isa.DENSE_PRODUCT_SOURCE_OUTER)
        row_target = target + i * word(mem, op + isa.DENSE_PRODUCT_TARGET_OUTER)
        first = 0
        while first < blocks:
            k = tile_blocks(blocks - first, max_blocks)
            together = tile_quads(k, max_blocks)
            x = row_source + 16 * first
            for c in range(runs):
                last = c == runs - 1
                first_adds = adds if c == 0 and not exact else 0
                how = Sum(c, first_adds, adds if last and exact else 0, bounds if last else isa.UNBOUNDED, exact)
                start = c * columns // runs
                end = (c + 1) * columns // runs
                tiles = (quads + together - 1) // together
                q = part * tiles // parts * together
                stop = min((part + 1) * tiles // parts * together, quads)
                while q < stop:
                    n = together if q + together <= quads else 1
                    for at in range(q, min(q + together, quads), n):
                        quad = 4 * (end - start)
                        weights = values + 4 * quads * start + quad * at
                        tile = DenseTile(
                            x, unit, offsets + start, weights, end - start, quad, count - 4 * at, target_row
                        )
                        y = row_target + 4 * at * target_row
                        out = Destination(y, gap, first, 0, width, residual - target, 1)
                        dense_rows(k, n, a, mem, tile, biases + 4 * at, how, out)
                    q += together
            first += k


@device
def tile_blocks(left: int, max_blocks: int) -> int:
    """Return the largest number of blocks in `simd_widths.TILE_QUADS` that is at most `left` and `max_blocks`."""
    k = min(left, max_blocks)
    return 6 if k >= 6 else 4 if k >= 4 else k


@device
def tile_quads(k: int, max_blocks: int) -> int:
    """Return how many quads of rows to compute with `k` blocks at a time, which is one if registers are few."""
    if max_blocks < 6:
        return 1
    return 4 if k == 1 else 2 if k <= 3 else 1


@device
def row_block_product(
    a: Array, mem: Array, op: int, source: int, target: int, exact: int, part: int, parts: int
) -> None:
    """Multiply blocks of 16 dense rows by some positions; each part takes adjacent groups of rows."""
    columns = word(mem, op + isa.ROW_BLOCK_PRODUCT_COLUMNS)
    blocks = word(mem, op + isa.ROW_BLOCK_PRODUCT_ROW_BLOCKS)
    offsets = word(mem, op + isa.ROW_BLOCK_PRODUCT_OFFSETS)
    values = word(mem, op + isa.ROW_BLOCK_PRODUCT_VALUES)
    bias = word(mem, op + isa.ROW_BLOCK_PRODUCT_BIAS)
    positions = word(mem, op + isa.ROW_BLOCK_PRODUCT_POSITIONS)
    max_positions = word(mem, op + isa.ROW_BLOCK_PRODUCT_MAX_POSITIONS)
    # Parts without a scratch buffer of their own leave the work to the others.
    workers = min(parts, word(mem, op + isa.ROW_BLOCK_PRODUCT_SCRATCHES))
    sums = word(mem, op + isa.ROW_BLOCK_PRODUCT_SCRATCH) + part * word(mem, op + isa.ROW_BLOCK_PRODUCT_SCRATCH_STEP)
    rows = 16 * blocks
    groups = (word(mem, op + isa.ROW_BLOCK_PRODUCT_ROWS) + rows - 1) // rows
    for g in range(part * groups // workers, min((part + 1) * groups // workers, groups)):
        weights = values + g * rows * columns
        first = 0
        while first < positions:
            k = row_block_positions(positions - first, max_positions)
            tile = RowBlocks(source + first, offsets, weights, columns, bias + g * rows)
            row_blocks(k, blocks, a, mem, tile, exact, sums)
            for b in range(blocks):
                _store_row_block(a, mem, op, sums + 256 * b, target, g * rows + 16 * b, first, k)
            first += k


@device
def row_block_positions(left: int, max_positions: int) -> int:
    """Return how many of `left` positions to compute at a time, one of `simd_widths.ROW_BLOCK_POSITIONS`.

    The positions are cut into as few pieces as `max_positions` allows, and those are made about equal.
    """
    pieces = (left + max_positions - 1) // max_positions
    k = (left + pieces - 1) // pieces
    if k >= 6:
        return 13 if k >= 13 else 12 if k >= 12 else min(k, 8)
    return 4 if k >= 4 else 2 if k >= 2 else 1


@device
def _store_row_block(a: Array, mem: Array, op: int, sums: int, target: int, row: int, first: int, count: int) -> None:
    """Store the sums of 16 rows from `row` on, each for `count` positions from `first` on."""
    step = word(mem, op + isa.ROW_BLOCK_PRODUCT_TARGET_ROW)
    residual = word(mem, op + isa.ROW_BLOCK_PRODUCT_RESIDUAL)
    adds = 0 if residual == isa.NO_RESIDUAL else 1
    how = Ending(adds, residual - target, word(mem, op + isa.ROW_BLOCK_PRODUCT_BOUNDS))
    kept = min(16, word(mem, op + isa.ROW_BLOCK_PRODUCT_ROWS) - row)
    if step == 1:  # a vector
        if kept > 0:
            store_sums(a, mem, sums, target + row, kept, how)
    else:
        transpose(a, sums, 16, a, sums, 16)
        for r in range(kept):
            store_sums(a, mem, sums + 16 * r, target + (row + r) * step + first, count, how)


@device
def depthwise_product(
    a: Array, mem: Array, op: int, source: int, target: int, exact: int, part: int, parts: int
) -> None:
    """Multiply each channel by rows of its own; each part takes adjacent channels."""
    channels = word(mem, op + isa.DEPTHWISE_PRODUCT_CHANNELS)
    channel_rows = word(mem, op + isa.DEPTHWISE_PRODUCT_CHANNEL_ROWS)
    plane = word(mem, op + isa.DEPTHWISE_PRODUCT_PLANE)
    kernel = word(mem, op + isa.DEPTHWISE_PRODUCT_KERNEL)
    # Parts without a scratch buffer of their own leave the work to the others.
    workers = min(parts, word(mem, op + isa.DEPTHWISE_PRODUCT_SCRATCHES))
    scratch_step = word(mem, op + isa.DEPTHWISE_PRODUCT_SCRATCH_STEP)
    scratch = word(mem, op + isa.DEPTHWISE_PRODUCT_SCRATCH) + part * scratch_step
    start = part * channels // workers
    stop = min((part + 1) * channels // workers, channels)
    if kernel and start < stop:
        clear_lines(a, scratch, 0, 1, ZEROS)
    for c in range(start, stop):
        if kernel == 0:
            _pad_plane(a, mem, op, source + c * plane, scratch)
        for r in range(c * channel_rows, (c + 1) * channel_rows):
            if kernel:
                _windows(a, mem, op, source + c * plane, scratch, target, r, exact)
            else:
                _plane(a, mem, op, scratch, target, r, exact)


@device
def _windows(a: Array, mem: Array, op: int, source: int, zeros: int, target: int, r: int, exact: int) -> None:
    """Compute one channel of the output from square windows with all weights."""
    kernel = word(mem, op + isa.DEPTHWISE_PRODUCT_KERNEL)
    values = word(mem, op + isa.DEPTHWISE_PRODUCT_VALUES) + r * kernel * kernel
    bias = mem[word(mem, op + isa.DEPTHWISE_PRODUCT_BIAS) + r]
    height = word(mem, op + isa.DEPTHWISE_PRODUCT_HEIGHT)
    columns = word(mem, op + isa.DEPTHWISE_PRODUCT_COLUMNS)
    top = word(mem, op + isa.DEPTHWISE_PRODUCT_TOP)
    left = word(mem, op + isa.DEPTHWISE_PRODUCT_LEFT)
    stride = word(mem, op + isa.DEPTHWISE_PRODUCT_STRIDE_W)
    lines = word(mem, op + isa.DEPTHWISE_PRODUCT_LINES)
    width = word(mem, op + isa.DEPTHWISE_PRODUCT_WIDTH)
    residual = word(mem, op + isa.DEPTHWISE_PRODUCT_RESIDUAL)
    how = Sum(0, 0, 0 if residual == isa.NO_RESIDUAL else 1, word(mem, op + isa.DEPTHWISE_PRODUCT_BOUNDS), exact)
    y = target + r * word(mem, op + isa.DEPTHWISE_PRODUCT_TARGET_ROW)
    line = 0
    while line < lines:
        n = plane_lines(lines - line)
        for b in range((width + 15) // 16):
            windows = PlaneWindows(source, height, columns, line * stride - top, 16 * b * stride - left, values, zeros)
            out = Destination(y + line * width, 16, b, 0, width, residual - target, 1)
            plane_windows(kernel, stride, n, a, mem, windows, bias, how, out)
        line += n


@device
def _pad_plane(a: Array, mem: Array, op: int, source: int, scratch: int) -> None:
    """Copy a channel, with lines of zeros before and after it."""
    columns = word(mem, op + isa.DEPTHWISE_PRODUCT_COLUMNS)
    rows = word(mem, op + isa.DEPTHWISE_PRODUCT_ROWS)
    top = min(rows, word(mem, op + isa.DEPTHWISE_PRODUCT_TOP))
    lines = min(rows - top, word(mem, op + isa.DEPTHWISE_PRODUCT_HEIGHT))
    clear_lines(a, scratch, 0, 1, top * columns)
    copy_lines(a, source, 0, scratch + top * columns, 0, 1, lines * columns)
    clear_lines(a, scratch + (top + lines) * columns, 0, 1, (rows - top - lines) * columns)


@device
def _plane(a: Array, mem: Array, op: int, scratch: int, target: int, r: int, exact: int) -> None:
    """Compute one channel of the output from a padded channel of the input."""
    indptr = word(mem, op + isa.DEPTHWISE_PRODUCT_INDPTR)
    offsets = word(mem, op + isa.DEPTHWISE_PRODUCT_OFFSETS)
    shifts = word(mem, op + isa.DEPTHWISE_PRODUCT_SHIFTS)
    values = word(mem, op + isa.DEPTHWISE_PRODUCT_VALUES)
    bias = mem[word(mem, op + isa.DEPTHWISE_PRODUCT_BIAS) + r]
    columns = word(mem, op + isa.DEPTHWISE_PRODUCT_COLUMNS)
    pitch = columns * word(mem, op + isa.DEPTHWISE_PRODUCT_STRIDE_H)
    stride = word(mem, op + isa.DEPTHWISE_PRODUCT_STRIDE_W)
    lines = word(mem, op + isa.DEPTHWISE_PRODUCT_LINES)
    width = word(mem, op + isa.DEPTHWISE_PRODUCT_WIDTH)
    max_blocks = word(mem, op + isa.DEPTHWISE_PRODUCT_MAX_BLOCKS)
    residual = word(mem, op + isa.DEPTHWISE_PRODUCT_RESIDUAL)
    how = Sum(0, 0, 0 if residual == isa.NO_RESIDUAL else 1, word(mem, op + isa.DEPTHWISE_PRODUCT_BOUNDS), exact)
    start = word(mem, indptr + r)
    end = word(mem, indptr + r + 1)
    y = target + r * word(mem, op + isa.DEPTHWISE_PRODUCT_TARGET_ROW)
    blocks = (width + 15) // 16
    line = 0
    while line < lines:
        n = plane_lines(lines - line)
        first = 0
        while first < blocks:
            k = plane_blocks(blocks - first, max_blocks)
            x = scratch + line * pitch + 16 * stride * first
            taps = Taps(x, pitch, columns, offsets, shifts, values, start, end)
            out = Destination(y + line * width, 16, first, 0, width, residual - target, 1)
            plane_rows(stride, n, k, a, mem, taps, bias, how, out)
            first += k
        line += n


@device
def plane_lines(left: int) -> int:
    """Return how many of `left` lines to compute at a time, one of `simd_widths.PLANE_LINES`."""
    if left >= 7 and left % 4:
        return 7
    return 4 if left >= 4 else 2 if left >= 2 else 1


@device
def plane_blocks(left: int, max_blocks: int) -> int:
    """Return the largest of `simd_widths.PLANE_BLOCKS` that is at most `left` and `max_blocks`."""
    k = min(left, max_blocks)
    return 4 if k >= 4 else 2 if k >= 2 else 1
