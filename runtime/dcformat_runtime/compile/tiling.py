"""Chooses how many blocks of a layer to compute at a time, and into how many runs of columns to cut it."""

from __future__ import annotations

from functools import lru_cache
from math import gcd, inf, prod
from typing import Any, NamedTuple

import numpy as np

from dcformat.graph import Conv, Shape
from dcformat_runtime.compile.tables import Window
from dcformat_runtime.kernels.simd_widths import BLOCK, QUAD, QUAD_WIDTHS, WIDTHS
from dcformat_runtime.network import Layer

#: Number of bytes of a source's copy that one run of columns should read, so that they stay in the first-level cache.
_RUN_BYTES = 24 << 10
#: The least blocks of multiply-adds in one run of a row, so that sums are seldom stored and loaded again.
_RUN_BLOCKS = 300
#: Estimated nanoseconds of the end of a sparse row, of an entry, and of a block of sums that is stored and resumed.
_ROW_NS, _ENTRY_NS, _RESUME_NS = 3.2, 0.27, 0.53
#: The bytes that several rows read, and the estimated nanoseconds of a block of 16 multiply-adds.
_BLOCK_NS = tuple(1024 * kib for kib in (32, 64, 128, 512, 1024, 4096)), (0.166, 0.2, 0.247, 0.336, 0.336, 0.69)
#: Maximum number of blocks of a sparse product, if registers hold twelve with some to spare.
_MANY = max(WIDTHS)
#: The same for quads of rows: the end of a quad, and its branches that are predicted badly in each of the first tiles;
#: a multiply-add of a block, and its load, which several rows may share, by the bytes that several quads read; the
#: least time of both; and how much longer they take if loads cross cache lines.
_QUAD_NS, _QUAD_BRANCHES_NS, _QUAD_LEARNING = 20.0, 20.0, 4.0
_QUAD_ADD_NS, _QUAD_LEAST_NS = 0.03, 0.132
_QUAD_LOAD_NS = tuple(1024 * kib for kib in (36, 48, 64, 128, 512)), (0.205, 0.225, 0.25, 0.28, 0.32)
_QUAD_ACROSS = 1.25
#: The same for rows of a convolution that shifts its sums: the end of a row in a run, each block of sums there, which
#: is shifted and may be stored and resumed; an entry; a block, by the bytes that several rows read; and how much longer
#: it takes if its loads cross cache lines.
_SHIFTED_ROW_NS, _SHIFTED_SUM_NS, _SHIFTED_ENTRY_NS = 8.0, 0.5, 0.2
_SHIFTED_BLOCK_NS = tuple(1024 * kib for kib in (24, 40, 80, 144, 1024, 4096)), (0.16, 0.18, 0.23, 0.28, 0.32, 0.69)
_SHIFTED_ACROSS = 1.18
#: Estimated nanoseconds of each float of the copies before a convolution that shifts its sums, and before another one.
_SHIFT_COPY_NS, _PAD_COPY_NS = 0.1, 0.0625
#: The numbers of runs to choose from.
RUNS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Tiling(NamedTuple):
    """How a convolution is cut: the maximum number of blocks of a row at a time, the runs of channels, and the time."""

    max_blocks: int
    runs: int
    ns: float


def linear_runs(shape: Shape, entries: int) -> int:
    """Return the number of runs of columns into which a linear layer is cut."""
    return _runs(shape[1] * 256, 4 * entries / shape[0])


def conv_tiling(layer: Layer, view: Window, flat: bool, max_blocks: int) -> Tiling:
    """Return how a convolution's rows are cut into tiles and runs; one with pooling in registers has no runs."""
    if layer.pool is not None and not flat:
        return Tiling(max_blocks, 1, inf)
    assert layer.matrix is not None  # network.outline gives one to convolutions
    matrix, channels = layer.matrix, layer.in_shapes[0][0]
    entries = matrix.nnz  # not those that were seen, which a prediction does not know
    _, height, width = layer.conv_shape
    if flat and not view.half:
        # Weights of the same shape and about the same number of entries share a choice.
        about = round(entries, 1 - len(str(entries)))
        return _tiling(matrix.shape, about, channels, view, line_blocks(layer, view), max_blocks)
    each = prod(view.shape[1:])  # of one channel, the floats of one variant
    used = min(each, 16 * max_blocks + (matrix.shape[2] - 1) * view.shape[3]) if flat else 16 * view.plane
    blocks = min(max_blocks, -(-height * width // 16) if flat else width)
    runs = _runs(4 * channels * view.shape[0] * used, blocks * entries / matrix.rows)
    return Tiling(max_blocks, runs, inf)


def quad_tiling(layer: Layer, view: Window) -> Tiling:
    """Return the fastest tiling of a convolution of one image whose rows are taken four at a time.

    More runs read less at a time, but the end of each mask of a quad is a branch that the processor must predict, which
    it learns only if many tiles repeat it.
    """
    assert layer.matrix is not None  # network.outline gives one to convolutions
    matrix, channels, blocks = layer.matrix, layer.in_shapes[0][0], line_blocks(layer, view)
    runs = np.array([n for n in RUNS if n <= channels])
    pieces = -(-blocks // max(QUAD_WIDTHS))
    size = _operand_bytes(matrix.shape, view, -(-blocks // pieces)) * channels / runs
    end = _QUAD_NS + _QUAD_BRANCHES_NS * min(1.0, _QUAD_LEARNING / pieces)
    crosses = view.copied and matrix.shape[2] > 1 and view.shape[3] % BLOCK != 0
    share = matrix.nnz / matrix.size
    loads = (1 - (1 - share) ** QUAD) / (QUAD * share)  # for each entry
    across = _QUAD_ACROSS if crosses else 1.0
    block = np.maximum(_QUAD_LEAST_NS * across, _QUAD_ADD_NS + loads * across * np.interp(size, *_QUAD_LOAD_NS))
    costs = pieces * runs * -(-matrix.rows // QUAD) * end + matrix.nnz * blocks * block
    best = costs.argmin()
    return Tiling(max(QUAD_WIDTHS), int(runs[best]), float(costs[best]))


def fitting_widths(max_blocks: int) -> list[int]:
    """Return the numbers of blocks that a row's sums may have, if registers hold `max_blocks` with some to spare."""
    most = _MANY if max_blocks >= 12 else max_blocks
    return [width for width in WIDTHS if width <= most]


def line_blocks(layer: Layer, view: Window) -> int:
    """Return the number of blocks of a row of results of one image."""
    _, height, width = layer.conv_shape
    return (height if view.width == width else 1) * view.line_blocks


def _operand_bytes(matrix: Shape, view: Window, blocks: Any) -> Any:
    """Return how many bytes of a channel's copy are read for a number of blocks of results, or for each of several."""
    variants, phases, _, cols = view.shape
    used = BLOCK * blocks
    if view.copied:  # a tile also reads the lines of the other kernel rows
        used = np.minimum(phases * used + (matrix[2] - 1) * cols, prod(view.shape[1:]))
    return 4 * max(1, variants) * used


@lru_cache(256)
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
    k, runs = np.meshgrid(fitting_widths(max_blocks), [n for n in RUNS if n <= channels])
    pieces = -(-blocks // k)
    each = -(-blocks // pieces)
    size = _operand_bytes(matrix, view, each) * channels / runs
    ends = matrix[0] * (runs * _ROW_NS + (runs - 1) * each * _RESUME_NS)
    costs = pieces * (ends + entries * (_ENTRY_NS + each * np.interp(size, *_BLOCK_NS)))
    best = costs.argmin()
    return Tiling(int(k.flat[best]), int(runs.flat[best]), float(costs.flat[best]))


def _runs(source_bytes: int, blocks: float) -> int:
    """Return the number of runs into which a layer is cut; `blocks`: a row's multiply-adds each time it is read."""
    return max(1, min(round(source_bytes / _RUN_BYTES), int(blocks / _RUN_BLOCKS)))


def is_split(layer: Layer) -> bool:
    """Return whether a shifted convolution reads its input by quarters: with a stride of 2."""
    assert isinstance(layer.node, Conv)
    return layer.node.stride == (2, 2)


def phases(width: int) -> list[int]:
    """Return the offsets from blocks of the lines before and after a block, if they differ.

    A copy of the value that begins so much later brings them into step, so that no load crosses cache lines.
    """
    return sorted({-width % BLOCK, width % BLOCK} - {0})


def granule(width: int) -> int:
    """Return the smallest number of blocks that hold whole lines."""
    return width // gcd(width, BLOCK)


def shifted_widths(width: int, max_blocks: int) -> list[int]:
    """Return the numbers of blocks that hold whole lines, if registers hold `max_blocks` with some to spare."""
    return [k for k in fitting_widths(max_blocks) if k % granule(width) == 0]


def shifted_tiling(layer: Layer, max_blocks: int) -> Tiling:
    """Return the fastest tiling of a sparse convolution of one image that shifts its sums."""
    assert layer.matrix is not None  # network.outline gives one to convolutions
    _, height, width = layer.conv_shape
    source = layer.in_shapes[0][0], height, width
    return _shifted_tiling(layer.matrix.shape, layer.matrix.nnz, source, is_split(layer), max_blocks)


def shift_copy_ns(layer: Layer) -> float:
    """Return the estimated nanoseconds of the copies that a convolution needs to shift its sums."""
    _, width = layer.conv_shape[1:]
    copies = 1 if is_split(layer) else len(phases(width))
    return copies * prod(layer.in_shapes[0]) * _SHIFT_COPY_NS


def pad_copy_ns(layer: Layer, view: Window) -> float:
    """Return the estimated nanoseconds of the copy of a convolution's input."""
    return layer.in_shapes[0][0] * view.plane * view.stride * _PAD_COPY_NS if view.copied else 0.0


@lru_cache(256)
def _shifted_tiling(matrix: Shape, entries: int, source: Shape, split: bool, max_blocks: int) -> Tiling:
    """Return the fastest tiling for `entries` entries; large tiles have fewer ends of rows, and read more at a time."""
    channels, height, width = source
    blocks = -(-height * width // BLOCK)
    k, runs = np.meshgrid(shifted_widths(width, max_blocks), [n for n in RUNS if n <= channels])
    pieces = -(-blocks // k)
    each = -(-blocks // pieces)
    # A copy of a value is read by a third of the entries or less, and so is not read as a whole.
    read = 4.0 if split else 1 + 0.5 * len(phases(width))
    size = 4 * channels / runs * (read * BLOCK * each + 2 * width)
    across = _SHIFTED_ACROSS if split and width % BLOCK else 1.0
    ends = matrix[0] * runs * (_SHIFTED_ROW_NS + each * _SHIFTED_SUM_NS)
    costs = pieces * (ends + entries * (_SHIFTED_ENTRY_NS + each * across * np.interp(size, *_SHIFTED_BLOCK_NS)))
    best = costs.argmin()
    return Tiling(int(k.flat[best]), int(runs.flat[best]), float(costs.flat[best]))
