"""Lays out the weights of dense and of depthwise convolutions, which kernels compute by tiles."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Conv
from dcformat_runtime.compile.tables import Int32s, Window, conv_taps
from dcformat_runtime.kernels.simd_widths import QUAD
from dcformat_runtime.network import Layer
from dcformat_runtime.weight_matrices import Floats, Sparse

#: The number of columns in a run of a `DenseTable`, whose tile fits into the first-level cache; and the number of
#: positions up to which storing and resuming sums takes longer than loading from the second level.
_RUN_COLUMNS, _FEW_POSITIONS = 96, 96


class DenseTable(NamedTuple):
    """A dense weight by run of columns, then by quad of rows; see the opcode "dense_product".

    `offsets` has the shape ``(columns,)``, `values` ``(quads, columns, 4)`` for each run, and `bias` ``(quads * 4,)``.
    """

    offsets: Int32s
    values: Floats
    bias: Floats


def dense_table(weight: Sparse, bias: Floats, layer: Layer, view: Window, flat: bool) -> DenseTable:
    """Lay out a convolution without groups; its columns are those that meet the image at all."""
    position, seen = conv_offsets(weight, layer, view, flat)
    matrix = weight.dense().reshape(weight.rows, weight.columns)
    if seen is not None:
        matrix, position = matrix[:, seen], position[seen]
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
    return DenseTable(position, values, biases)


class Offsets(NamedTuple):
    """The place that each column of a weight multiplies, and whether it ever meets the image (None: all do)."""

    places: Int32s
    seen: npt.NDArray[np.bool_] | None


def conv_offsets(weight: Sparse, layer: Layer, view: Window, flat: bool) -> Offsets:
    """Return the places that the columns of a convolution without groups multiply."""
    channels, size = weight.shape[1], prod(weight.shape[2:])
    taps = conv_taps(layer, view, flat, np.arange(size))
    places = np.add.outer(view.plane * np.arange(channels), taps.places).reshape(-1).astype(np.int32)
    return Offsets(places, None if taps.seen.all() else np.tile(taps.seen, channels))


def fill_row_blocks(weight: Sparse, seen: npt.NDArray[np.bool_] | None, values: Floats) -> None:
    """Lay out a weight in the zeros of `values`, which has the shape ``(groups, columns, rows of a group)``.

    Of its columns, only those that are `seen` are kept.
    """
    matrix = weight.dense().reshape(weight.rows, weight.columns)
    if seen is not None:
        matrix = matrix[:, seen]
    _, columns, each = values.shape
    whole = weight.rows // each
    values[:whole] = matrix[: whole * each].reshape(whole, each, columns).transpose(0, 2, 1)
    values[whole:, :, : weight.rows - whole * each] = matrix[whole * each :].T


def dense_runs(layer: Layer, columns: int) -> int:
    """Return the number of runs of columns in a `DenseTable`: one if there are few positions for each weight."""
    return max(1, round(columns / _RUN_COLUMNS)) if prod(layer.conv_shape[1:]) > _FEW_POSITIONS else 1


class DepthwiseTable(NamedTuple):
    """A depthwise weight by row; see the opcode "depthwise_product"."""

    indptr: Int32s
    offsets: Int32s
    shifts: Int32s
    values: Floats
    bias: Floats


def depthwise_table(weight: Sparse, bias: Floats, node: Conv, columns: int) -> DepthwiseTable:
    """Lay out a convolution whose rows have one input channel each, with lines of `columns` floats."""
    y, x = np.divmod(weight.indices.astype(np.int64), weight.shape[3])
    shift = x * node.dilation[1] - node.padding[1]
    offset = y * node.dilation[0] * columns + shift
    indptr, offsets, shifts = (array.astype(np.int32) for array in (weight.indptr, offset, shift))
    return DepthwiseTable(indptr, offsets, shifts, weight.values, bias)
