"""Lays out sparse 3 x 3 convolutions of one image that shift sums instead of copying their input.

The products of a kernel column are summed at the places of the operands, where loads are aligned and lines need no
padding. Then the sums move by one position. The lines above and below an image are zeros between its channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dcformat.graph import Shape
from dcformat_runtime.compile.arena import Planes
from dcformat_runtime.compile.choices import ConvProduct, matrix_of
from dcformat_runtime.compile.constants import Room, ShiftedPlace, aligned
from dcformat_runtime.compile.sparse_rows import write_rows
from dcformat_runtime.compile.tables import EntryTable, Window
from dcformat_runtime.compile.tiling import is_split, phases, shifted_tiling, shifted_widths
from dcformat_runtime.kernels.simd_widths import BLOCK, MASK, WIDTHS
from dcformat_runtime.network import Layer, Network
from dcformat_runtime.weight_matrices import Floats, Sparse

#: The number of columns of a kernel.
_COLUMNS = 3


def image_planes(network: Network, products: Mapping[int, ConvProduct]) -> Planes:
    """Return how the values of one image lie: those that shifted convolutions read in place have lines of zeros."""
    layers = (each for each in network.layers if products.get(each.output) == "shifted" and not is_split(each))
    shapes = {layer.inputs[0]: layer.in_shapes[0] for layer in layers}
    lined = frozenset((height, width) for _, height, width in shapes.values())
    return Planes(True, lined, {value: len(phases(shape[2])) for value, shape in shapes.items()})


class ShiftCopy(NamedTuple):
    """A copy of a value that begins `phase` floats later, and lies `distance` floats after it."""

    phase: int
    distance: int


def shift_copies(shape: Shape, planes: Planes) -> list[ShiftCopy]:
    """Return the copies of a value of this shape that a convolution reads."""
    apart = planes.lead(shape) + planes.size(shape)
    return [ShiftCopy(phase, k * apart) for k, phase in enumerate(phases(shape[2]), 1)]


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


def _next_tiles(most: int, fitting: list[int]) -> list[int]:
    """Return the blocks of the next tile if 0 to `most` blocks are left; only the last may end within a line."""
    return [k if k in WIDTHS else max((fit for fit in fitting if fit <= k), default=0) for k in range(most + 1)]


def place_shifted(room: Room, layer: Layer, max_blocks: int) -> ShiftedPlace:
    """Reserve memory for the tables of a convolution."""
    matrix, skip = matrix_of(layer), room.skip
    width = layer.conv_shape[2]
    most, runs, _ = shifted_tiling(layer, max_blocks)
    indptr, order = skip(_COLUMNS * (runs * matrix.rows + 1)), skip(matrix.rows)
    indices, values, bias = skip(matrix.nnz), skip(matrix.nnz), skip(matrix.rows)
    place = ShiftedPlace(
        matrix.rows, matrix.nnz, runs, indptr, order, indices, values, bias, most, skip(most + 1), skip(2 * MASK)
    )  # fmt: skip
    room.fill(place.tiles, np.array(_next_tiles(most, shifted_widths(width, max_blocks)), np.int64))
    column = np.arange(MASK) % width
    kept = np.concatenate([column > 0, column < width - 1])
    room.fill(place.masks, np.where(kept, np.int32(-1), np.int32(0)))
    return place


def write_shifted(out: Floats, place: ShiftedPlace, weight: Sparse, bias: Floats, table: EntryTable) -> None:
    """Lay out the rows for each column of the kernel."""
    write_rows(out, place, weight, bias, table, _COLUMNS)
