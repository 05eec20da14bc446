"""Chooses how many blocks of a layer to compute at a time, and into how many runs of columns to cut it."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from dcformat.graph import Shape
from dcformat_runtime.compile.tables import Window
from dcformat_runtime.kernels.simd_widths import BLOCK, WIDTHS
from dcformat_runtime.network import Layer

#: How many bytes of a source's copy one run of columns should read, so that they stay in the first-level cache.
_RUN_BYTES = 24 << 10
#: The least blocks of multiply-adds in one run of a row, so that sums are seldom stored and loaded again.
_RUN_BLOCKS = 300
#: Estimated nanoseconds of the end of a sparse row, of an entry, and of a block of sums that is stored and resumed.
_ROW_NS, _ENTRY_NS, _RESUME_NS = 3.2, 0.27, 0.53
#: Estimated nanoseconds of a block of 16 multiply-adds, if several rows read the same KiB.
_BLOCK_NS = ((32, 0.166), (64, 0.2), (128, 0.247), (512, 0.336), (1024, 0.336), (4096, 0.69))
#: The most blocks of a sparse product, if registers hold twelve with some to spare.
_MANY = max(WIDTHS)
#: The numbers of runs to choose from.
_RUNS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Tiling(NamedTuple):
    """The most blocks of each row to compute at a time, and the number of runs of channels."""

    max_blocks: int
    runs: int


def linear_runs(shape: Shape, entries: int) -> int:
    """Return the number of runs of columns into which a linear layer is cut."""
    return _runs(shape[1] * 256, 4 * entries / shape[0])


def conv_tiling(layer: Layer, view: Window, flat: bool, max_blocks: int) -> Tiling:
    """Return how a convolution's rows are cut into tiles and runs; one with pooling in registers has no runs."""
    if layer.pool is not None and not flat:
        return Tiling(max_blocks, 1)
    assert layer.matrix is not None  # network.outline gives one to convolutions
    matrix, channels = layer.matrix, layer.in_shapes[0][0]
    entries = matrix.nnz  # not those that were seen, of which a prediction knows nothing
    _, height, width = layer.conv_shape
    if flat and not view.half:
        lines = height if view.width == width else 1
        return _tiling(matrix.shape, entries, channels, view, lines * view.line_blocks, max_blocks)
    each = prod(view.shape[1:])  # of one channel, the floats of one variant
    used = min(each, 16 * max_blocks + (matrix.shape[2] - 1) * view.shape[3]) if flat else 16 * view.plane
    blocks = min(max_blocks, -(-height * width // 16) if flat else width)
    runs = _runs(4 * channels * view.shape[0] * used, blocks * entries / matrix.rows)
    return Tiling(max_blocks, runs)


def _tiling(matrix: Shape, entries: int, channels: int, view: Window, blocks: int, max_blocks: int) -> Tiling:
    """Return the fastest tiling of a sparse convolution of one image.

    Parameters
    ----------
    matrix : tuple of int
        The shape of its weight.
    entries, channels : int
        The number of entries, and of input channels.
    view : Window
    blocks : int
        The number of blocks in a row of results.
    max_blocks : int
        The number of blocks of sums that fit in registers.

    Notes
    -----
    With more blocks at a time, the ends of rows matter less, but less of what several rows read stays in the
    first-level cache. More runs read less at a time, but store sums and resume them.
    """
    most = _MANY if max_blocks >= 12 else max_blocks
    variants, phases, _, cols = view.shape
    beyond = (matrix[2] - 1) * cols  # of each kernel column, the floats that a tile reads besides its own

    def cost(choice: Tiling) -> float:
        limit, runs = choice
        pieces = -(-blocks // limit)
        k = -(-blocks // pieces)
        used = min(phases * BLOCK * k + beyond, prod(view.shape[1:])) if view.copied else BLOCK * k
        each = _block_ns(4 * max(1, variants) * used * channels / runs)
        ends = matrix[0] * (runs * _ROW_NS + (runs - 1) * k * _RESUME_NS)
        return pieces * (ends + entries * (_ENTRY_NS + k * each))

    choices = [Tiling(k, runs) for k in WIDTHS if k <= most for runs in _RUNS if runs <= channels]
    return min(choices, key=cost)


def _block_ns(size: float) -> float:
    """Return the estimated nanoseconds of a block of which several rows read the same `size` bytes."""
    (before, least), *more = _BLOCK_NS
    if size <= before << 10:
        return least
    for limit, ns in more:
        if size <= limit << 10:
            return least + (ns - least) * (size / 1024 - before) / (limit - before)
        before, least = limit, ns
    return least


def _runs(source_bytes: int, blocks: float) -> int:
    """Return the number of runs into which a layer is cut; `blocks`: a row's multiply-adds each time it is read."""
    return max(1, min(round(source_bytes / _RUN_BYTES), int(blocks / _RUN_BLOCKS)))
