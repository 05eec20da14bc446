"""The vector helpers that compute tiles of several rows or lines, in plain Python.

The compiled form of a helper is the LLVM IR that the function with the same name writes in `simd_tiles`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic
from dcformat_runtime.kernels.simd import Destination, Sum, clipped, compiled_form, word
from dcformat_runtime.kernels.simd_widths import BLOCK

Array = npt.NDArray[Any]


class DenseTile(NamedTuple):
    """The weights of quads of dense rows for `columns` columns, and the place of the values that they multiply.

    Column p multiplies the floats from ``x + unit * word(offsets + p)`` on by the weights of four rows from
    ``values + 4 * p`` on; those of the next quad lie `quad` floats after them. Of the rows, `rows` are kept, and their
    results lie `apart`.
    """

    x: int
    unit: int
    offsets: int
    values: int
    columns: int
    quad: int
    rows: int
    apart: int


@intrinsic(compiled_form("dense_rows"))
def dense_rows(
    k: int, quads: int, a: Array, mem: Array, tile: DenseTile, bias: int, how: Sum, out: Destination
) -> None:
    """Multiply `quads` quads of dense rows by `k` blocks; the sums begin with the floats from `bias` on.

    A row's blocks lie in one line; `out.width` determines how many floats of the last block are kept.
    """
    count = BLOCK * (k - 1) + min(BLOCK, out.width - BLOCK * (out.column + k - 1))
    acc = np.repeat(mem[bias : bias + 4 * quads, None], BLOCK * k, axis=1)
    kept: list[Array] = []
    for r in range(min(4 * quads, tile.rows)):
        starts = [out.y + r * tile.apart + out.gap * (out.column + b) for b in range(k)]
        kept.append(np.concatenate([np.arange(at, at + BLOCK) for at in starts])[:count])
    if how.resume:
        for r, places in enumerate(kept):
            acc[r, :count] = a[places]
    if how.residual_first:
        for r, places in enumerate(kept):
            acc[r, :count] += a[places + out.residual]
    for p in range(tile.columns):
        at = tile.x + tile.unit * word(mem, tile.offsets + p)
        for r in range(4 * quads):
            acc[r] += mem[tile.values + r // 4 * tile.quad + 4 * p + r % 4] * a[at : at + BLOCK * k]
    for r, places in enumerate(kept):
        total = acc[r, :count]
        if how.residual_last:
            total = total + a[places + out.residual]
        a[places] = clipped(mem, how.bounds, total)


class RowBlocks(NamedTuple):
    """The weights of some blocks of 16 rows for `columns` columns, and the place of the values that they multiply.

    Column p multiplies the floats of the positions from ``x + word(offsets + p)`` on by the weights of all these rows,
    which follow one another from `values` on. The sums begin with the floats from `bias` on.
    """

    x: int
    offsets: int
    values: int
    columns: int
    bias: int


@intrinsic(compiled_form("row_blocks"))
def row_blocks(positions: int, blocks: int, a: Array, mem: Array, tile: RowBlocks, exact: int, to: int) -> None:
    """Multiply `blocks` blocks of rows by the values of some positions.

    Write the sums of position j and block b to ``to + 16 * (16 * b + j)``. If `exact` is set, products are rounded
    before they are added.
    """
    rows = blocks * BLOCK
    acc = np.repeat(mem[None, tile.bias : tile.bias + rows], positions, axis=0)
    for p in range(tile.columns):
        at = tile.x + word(mem, tile.offsets + p)
        acc += a[at : at + positions, None] * mem[tile.values + rows * p :][:rows]
    for b in range(blocks):
        part = acc[:, BLOCK * b : BLOCK * (b + 1)]
        a[to + BLOCK * BLOCK * b :][: part.size] = part.reshape(-1)


class Ending(NamedTuple):
    """The last steps of sums.

    If `adds` is set, the floats that lie `residual` after their place are added; then they are clipped to the bounds at
    `bounds`.
    """

    adds: int
    residual: int
    bounds: int


@intrinsic(compiled_form("store_sums"))
def store_sums(a: Array, mem: Array, at: int, y: int, count: int, how: Ending) -> None:
    """Move `count` floats of the block of sums at `at` to `y`."""
    total = a[at : at + count].copy()
    if how.adds:
        total += a[y + how.residual :][:count]
    a[y : y + count] = clipped(mem, how.bounds, total)


class Taps(NamedTuple):
    """The entries, from `start` to before `end`, of a row that belongs to one channel.

    Entry p multiplies the floats from ``x + word(offsets + p)`` on by ``mem[values + p]``; the next line of outputs
    reads `pitch` floats further on. An output in column c gets nothing from an entry for which ``stride * c +
    word(shifts + p)`` is not in ``range(columns)``.
    """

    x: int
    pitch: int
    columns: int
    offsets: int
    shifts: int
    values: int
    start: int
    end: int


@intrinsic(compiled_form("plane_rows"))
def plane_rows(
    stride: int, lines: int, k: int, a: Array, mem: Array, taps: Taps, bias: float, how: Sum, out: Destination
) -> None:
    """Compute `k` adjacent blocks of each of some lines of one channel, from every `stride`-th float (1 or 2).

    Lines of outputs have `out.width` floats and follow one another; `out.column` is the place of the first block.
    """
    first = BLOCK * out.column
    count = min(BLOCK * k, out.width - first)
    for line in range(lines):
        acc = np.full(count, bias, np.float32)
        for p in range(taps.start, taps.end):
            at = taps.x + line * taps.pitch + word(mem, taps.offsets + p)
            column = stride * np.arange(first, first + count) + word(mem, taps.shifts + p)
            inside = (column >= 0) & (column < taps.columns)
            acc += mem[taps.values + p] * np.where(inside, a[at::stride][:count], np.float32(0))
        y = out.y + line * out.width + first
        if how.residual_last:
            acc += a[y + out.residual :][:count]
        a[y : y + count] = clipped(mem, how.bounds, acc)


class PlaneWindows(NamedTuple):
    """Square windows over one channel: `height` lines of `columns` floats, from `x` on.

    The weights follow one another from `values` on. The first window's first line is number `top`, its first column
    number `left`; elements outside the channel count as 0. From `zeros` on, there are `ZEROS` zeros.
    """

    x: int
    height: int
    columns: int
    top: int
    left: int
    values: int
    zeros: int


@intrinsic(compiled_form("plane_windows"))
def plane_windows(
    kernel: int,
    stride: int,
    lines: int,
    a: Array,
    mem: Array,
    windows: PlaneWindows,
    bias: float,
    how: Sum,
    out: Destination,
) -> None:
    """Compute one block of each of some lines of one channel, from windows of `kernel` x `kernel` with all weights.

    Lines of outputs have `out.width` floats and follow one another; `out.column` is the place of the block.
    """
    x, height, columns, top, left, values, _ = windows
    first = BLOCK * out.column
    count = min(BLOCK, out.width - first)
    column = left + stride * np.arange(count)
    for line in range(lines):
        acc = np.full(count, bias, np.float32)
        for tap in range(kernel * kernel):
            y, at = top + stride * line + tap // kernel, column + tap % kernel
            inside = (at >= 0) & (at < columns) & (0 <= y < height)
            read = a[x + y * columns + np.where(inside, at, 0)] if 0 <= y < height else np.float32(0)
            acc += mem[values + tap] * np.where(inside, read, np.float32(0))
        place = out.y + line * out.width + first
        if how.residual_last:
            acc += a[place + out.residual :][:count]
        a[place : place + count] = clipped(mem, how.bounds, acc)
