"""Lays out sparse 3 x 3 convolutions of one image that shift sums instead of copying their input.

The products of a kernel column are summed at the places of the operands, where loads are aligned and lines need no
padding. Then the sums move by one position. The lines above and below an image are zeros between its channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from dcformat.graph import Conv, Shape
from dcformat_runtime.compile.arena import Planes
from dcformat_runtime.compile.choices import ConvProduct, conv_product, is_depthwise, matrix_of
from dcformat_runtime.compile.constants import Room, ShiftedPlace, aligned
from dcformat_runtime.compile.sparse_rows import write_rows
from dcformat_runtime.compile.tables import EntryTable, Window
from dcformat_runtime.compile.tiling import RUNS, Tiling, fitting_widths
from dcformat_runtime.cpu import Vectors
from dcformat_runtime.kernels.simd_widths import BLOCK, MASK, WIDTHS
from dcformat_runtime.network import Layer, Network
from dcformat_runtime.weight_matrices import Floats, Sparse

#: The number of columns of a kernel.
_COLUMNS = 3
#: Estimated nanoseconds of the end of a sparse row and of each block of sums there, which is shifted and may be stored
#: and resumed; and of an entry.
_ROW_NS, _SUM_NS, _ENTRY_NS = 2.0, 0.9, 0.27
#: The bytes that several rows read, and the estimated nanoseconds of a block of 16 multiply-adds.
_BLOCK_NS = tuple(1024 * kib for kib in (24, 40, 80, 144, 1024, 4096)), (0.16, 0.2, 0.26, 0.31, 0.36, 0.69)


def image_products(network: Network, exact: bool, vectors: Vectors) -> dict[int, ConvProduct]:
    """Return how each convolution of one image is computed, by the number of its output."""
    products: dict[int, ConvProduct] = {}
    for layer in network.layers:
        if isinstance(layer.node, Conv) and not is_depthwise(layer):
            product = conv_product(layer, True, exact, vectors)
            # Shifted sums are not in the order of exact ones.
            shifts = product == "rows" and not exact and _can_shift(layer, vectors)
            products[layer.output] = "shifted" if shifts else product
    return products


def image_planes(network: Network, products: Mapping[int, ConvProduct]) -> Planes:
    """Return how the values of one image lie: those that shifted convolutions read in place have lines of zeros."""
    layers = (each for each in network.layers if products.get(each.output) == "shifted" and not is_split(each))
    shapes = {layer.inputs[0]: layer.in_shapes[0] for layer in layers}
    lined = frozenset((height, width) for _, height, width in shapes.values())
    return Planes(True, lined, {value: len(_phases(shape[2])) for value, shape in shapes.items()})


def _can_shift(layer: Layer, vectors: Vectors) -> bool:
    """Return whether the sums of a sparse convolution of one image can be shifted."""
    node = layer.node
    assert isinstance(node, Conv)
    if matrix_of(layer).shape[2:] != (3, 3) or not node.dilation == node.padding == (1, 1):
        return False
    _, height, width = layer.in_shapes[0]
    if not (layer.inputs[0] > 0 if node.stride == (1, 1) else is_split(layer) and height % 2 == width % 2 == 0):
        return False
    _, height, width = layer.conv_shape
    granule, widths = _granule(width), fitting_widths(vectors.max_blocks)
    rest = -(-height * width // BLOCK) % granule
    return height * width > 1 and granule in widths and (not rest or rest in widths)


def is_split(layer: Layer) -> bool:
    """Return whether a shifted convolution reads its input by quarters: with a stride of 2."""
    assert isinstance(layer.node, Conv)
    return layer.node.stride == (2, 2)


def _phases(width: int) -> list[int]:
    """Return the offsets from blocks of the lines before and after a block, if they differ.

    A copy of the value that begins so much later brings them into step, so that no load crosses cache lines.
    """
    return sorted({-width % BLOCK, width % BLOCK} - {0})


class ShiftCopy(NamedTuple):
    """A copy of a value that begins `phase` floats later, and lies `distance` floats after it."""

    phase: int
    distance: int


def shift_copies(shape: Shape, planes: Planes) -> list[ShiftCopy]:
    """Return the copies of a value of this shape that a convolution reads."""
    apart = planes.lead(shape) + planes.size(shape)
    return [ShiftCopy(phase, k * apart) for k, phase in enumerate(_phases(shape[2]), 1)]


class Quarters(NamedTuple):
    """How a channel is split: into its even lines, of which each has its even and its odd columns, and its odd lines.

    Quarters lie `step` floats apart and have `lead` floats before them, which end with a line of zeros for odd lines.
    """

    step: int
    lead: int


def quarters(layer: Layer) -> Quarters:
    """Return how the input of a convolution with a stride of 2 is split."""
    _, height, width = layer.conv_shape
    lead = aligned(width)
    return Quarters(lead + aligned(height * width + BLOCK), lead)


def shifted_window(layer: Layer, planes: Planes) -> Window:
    """Return how a convolution reads its quarters, or its input, beginning with the zeros before it."""
    _, height, width = layer.conv_shape
    if is_split(layer):
        step, lead = quarters(layer)
        # An element of the kernel before the middle one reads odd lines or columns, one place earlier.
        taps = tuple(
            lead + step * (2 * (ky != 1) + (kx != 1)) - width * (ky == 0) for ky in range(3) for kx in range(3)
        )
        plane = 4 * step
    else:
        shape = layer.in_shapes[0]
        distances = {0: 0, **dict(shift_copies(shape, planes))}
        taps = tuple(
            planes.lead(shape) + shift // BLOCK * BLOCK + distances[shift % BLOCK]
            for shift in (-width, 0, width)
            for _ in range(3)
        )
        plane = planes.step(shape)
    # The last column of quarters joins the middle one.
    lists = (0, 1, 1 if is_split(layer) else 2) * 3
    return Window(range(0), 1, 1, 0, (1, 1, height, width), False, plane, 0, width, taps=taps, lists=lists)


def _granule(width: int) -> int:
    """Return the smallest number of blocks that hold whole lines."""
    return width // gcd(width, BLOCK)


@lru_cache(256)
def _tiling(matrix: Shape, entries: int, source: Shape, split: bool, max_blocks: int) -> Tiling:
    """Return the fastest tiling for `entries` entries; large tiles have fewer ends of rows, and read more at a time."""
    channels, height, width = source
    blocks = -(-height * width // BLOCK)
    k, runs = np.meshgrid(_fitting(width, max_blocks), [n for n in RUNS if n <= channels])
    pieces = -(-blocks // k)
    each = -(-blocks // pieces)
    size = 4 * channels / runs * ((4 if split else 1) * BLOCK * each + 2 * width)
    ends = matrix[0] * runs * (_ROW_NS + each * _SUM_NS)
    costs = pieces * (ends + entries * (_ENTRY_NS + each * np.interp(size, *_BLOCK_NS)))
    best = costs.argmin()
    return Tiling(int(k.flat[best]), int(runs.flat[best]), float(costs.flat[best]))


def _fitting(width: int, max_blocks: int) -> list[int]:
    """Return the numbers of blocks that hold whole lines."""
    return [k for k in fitting_widths(max_blocks) if k % _granule(width) == 0]


def _next_tiles(most: int, fitting: list[int]) -> list[int]:
    """Return the blocks of the next tile if 0 to `most` blocks are left; only the last may end within a line."""
    return [k if k in WIDTHS else max((fit for fit in fitting if fit <= k), default=0) for k in range(most + 1)]


def place_shifted(room: Room, layer: Layer, max_blocks: int) -> ShiftedPlace:
    """Reserve memory for the tables of a convolution."""
    matrix, skip = matrix_of(layer), room.skip
    _, height, width = layer.conv_shape
    source = layer.in_shapes[0][0], height, width
    most, runs, _ = _tiling(matrix.shape, matrix.nnz, source, is_split(layer), max_blocks)
    indptr, order = skip(_COLUMNS * (runs * matrix.rows + 1)), skip(matrix.rows)
    indices, values, bias = skip(matrix.nnz), skip(matrix.nnz), skip(matrix.rows)
    place = ShiftedPlace(
        matrix.rows, matrix.nnz, runs, indptr, order, indices, values, bias, most, skip(most + 1), skip(2 * MASK)
    )  # fmt: skip
    room.fill(place.tiles, np.array(_next_tiles(most, _fitting(width, max_blocks)), np.int64))
    column = np.arange(MASK) % width
    kept = np.concatenate([column > 0, column < width - 1])
    room.fill(place.masks, np.where(kept, np.int32(-1), np.int32(0)))
    return place


def write_shifted(out: Floats, place: ShiftedPlace, weight: Sparse, bias: Floats, table: EntryTable) -> None:
    """Lay out the rows for each column of the kernel."""
    write_rows(out, place, weight, bias, table, _COLUMNS)
