"""Chooses the product that computes a layer, from the shapes and the number of entries of its weight."""

from __future__ import annotations

from math import prod
from typing import Literal

from dcformat.graph import Conv, Shape
from dcformat_runtime.compile.constants import aligned
from dcformat_runtime.compile.tables import ConvManner, Window, window
from dcformat_runtime.compile.tiling import (
    conv_tiling,
    fitting_widths,
    granule,
    is_split,
    line_blocks,
    pad_copy_ns,
    quad_tiling,
    shift_copy_ns,
    shifted_tiling,
)
from dcformat_runtime.cpu import Vectors
from dcformat_runtime.kernels.simd_widths import (
    BLOCK,
    PLANE_KERNELS,
    QUAD,
    QUAD_WIDTHS,
    ROW_BLOCK_POSITIONS,
    ROW_BLOCKS,
)
from dcformat_runtime.network import Layer, Network
from dcformat_runtime.weight_matrices import Matrix

#: Maximum number of floats in a layer's dense columns, and the least density for which they are made: there a column's
#: blocks take as long as the gathers of its entries if a fifth of the inputs are nonzero. Columns that do not fit into
#: the second-level cache are slower, and take long to make: they must be faster if half of the inputs are nonzero.
_DENSE_LIMIT, _CACHED = 1 << 21, 1 << 18
_LEAST_DENSITY, _LEAST_LARGE_DENSITY = 0.02, 0.16
#: The least share of entries with which a convolution runs as a dense one, also if its positions form a single block:
#: there, an entry's index takes as long as its products.
_DENSE_SHARE, _DENSE_SHARE_OF_BLOCK = 0.6, 0.4
#: The least number of weights with which a convolution with a pool may run as a dense one.
_LARGE = 1 << 15
#: Maximum number of positions of a convolution that runs by blocks of rows.
_MANY_POSITIONS = 1 << 10
#: Estimated nanoseconds of a block of 16 multiply-adds of a dense product, whose second operand is a row's weight or a
#: position's value; of a block of weights that is read once; and of the sums that are transposed at a time.
_DENSE_NS, ROW_BLOCK_NS, _WEIGHTS_NS, _TRANSPOSE_NS = 0.14, 0.128, 1.6, 30.0
#: The same of an entry of a sparse product, and of each block that it multiplies.
_ENTRY_NS, _SPARSE_NS = 0.27, 0.18
#: The number of blocks of sums that registers must hold for quads of sparse rows, and the least share of entries with
#: which they are worth it: with fewer, few columns serve several rows.
_QUAD_REGISTERS, _QUAD_SHARE = 12, 0.2
#: How much longer sparse rows with so many entries take than is estimated for few.
_MANY_ENTRIES = 1.12
#: The least number of weights, and the least share of entries, of a linear layer that runs by blocks of rows: fewer
#: weights stay in the second-level cache, from which a sparse product is fast.
_LINEAR_SIZE, _LINEAR_SHARE = 1 << 18, 0.4


#: How a convolution is computed: by sparse rows, one at a time, maybe with shifted sums, or four; or with all its
#: weights, by four rows or by blocks of 16 rows.
ConvProduct = Literal["rows", "shifted", "quads", "dense", "row blocks"]


def matrix_of(layer: Layer) -> Matrix:
    """Return the shape and the number of entries of a layer's weight."""
    assert layer.matrix is not None  # network.outline gives one to such layers
    return layer.matrix


def is_dense(layer: Layer, flat: bool) -> bool:
    """Return whether a convolution runs with all its weights, whether they are zeros or not.

    If there are few zeros, that takes less time than to walk the indices of the others.
    """
    assert isinstance(layer.node, Conv)
    matrix = matrix_of(layer)
    share = _DENSE_SHARE_OF_BLOCK if flat and prod(layer.conv_shape[1:]) <= BLOCK else _DENSE_SHARE
    return (
        layer.node.groups == 1
        and matrix.rows >= QUAD
        and not _pools_in_registers(layer, flat)
        and matrix.nnz >= share * matrix.size
    )


def has_row_blocks(layer: Layer, flat: bool) -> bool:
    """Return whether a layer runs with all its weights, 16 rows at a time for each position.

    That is for few positions, which would leave much of their last block empty, and for large linear layers.
    """
    matrix = matrix_of(layer)
    if not isinstance(layer.node, Conv):
        return flat and matrix.size >= _LINEAR_SIZE and matrix.nnz >= _LINEAR_SHARE * matrix.size
    positions = prod(layer.conv_shape[1:])
    if not flat or layer.node.groups > 1 or positions > _MANY_POSITIONS or _pools_in_registers(layer, flat):
        return False
    sparse = matrix.nnz * (_ENTRY_NS + _blocks(layer) * _SPARSE_NS)
    return _row_block_ns(layer) < min(_dense_ns(layer), sparse)


def _blocks(layer: Layer) -> int:
    """Return the number of blocks of positions if they lie in one line."""
    return -(-prod(layer.conv_shape[1:]) // BLOCK)


def _dense_ns(layer: Layer) -> float:
    """Return the estimated nanoseconds of a convolution that runs as a dense one."""
    return matrix_of(layer).size * _blocks(layer) * _DENSE_NS


def _row_block_ns(layer: Layer) -> float:
    """Return the estimated nanoseconds of a convolution that runs by blocks of rows."""
    matrix, positions = matrix_of(layer), prod(layer.conv_shape[1:])
    tiles = -(-positions // max(ROW_BLOCK_POSITIONS))
    rows = row_blocks(matrix.rows) * -(-matrix.rows // (row_blocks(matrix.rows) * BLOCK))
    return rows * (matrix.size // matrix.rows * max(positions * ROW_BLOCK_NS, _WEIGHTS_NS) + tiles * _TRANSPOSE_NS)


def conv_product(layer: Layer, flat: bool, exact: bool, vectors: Vectors) -> ConvProduct:
    """Return how to compute a convolution.

    Quads of rows need many registers. They add the products of a row in an order that depends on other rows, and
    shifted sums by column of the kernel, so neither is for exact sums.
    """
    product: ConvProduct = "row blocks" if has_row_blocks(layer, flat) else "dense" if is_dense(layer, flat) else "rows"
    if not flat or exact:
        return product
    if product == "rows" and _can_shift(layer, vectors):
        product = "shifted"
    view = conv_window(layer, prod(layer.in_shapes[0][1:]), flat, vectors.half_vectors, dense=False)
    if not _can_share_loads(layer, view, vectors):
        return product
    copy = pad_copy_ns(layer, view)
    if product == "shifted":
        least = shifted_tiling(layer, vectors.max_blocks).ns + shift_copy_ns(layer)
    elif product == "rows":
        least = _MANY_ENTRIES * conv_tiling(layer, view, flat, vectors.max_blocks).ns + copy
    else:  # these estimates have the copy in them
        least = _dense_ns(layer) if product == "dense" else _row_block_ns(layer)
    return "quads" if quad_tiling(layer, view).ns + copy < least else product


def _can_share_loads(layer: Layer, view: Window, vectors: Vectors) -> bool:
    """Return whether quads of a sparse convolution's rows can be computed, and may be worth it."""
    assert isinstance(layer.node, Conv)
    matrix = matrix_of(layer)
    if vectors.max_blocks < _QUAD_REGISTERS or layer.node.groups > 1 or _pools_in_registers(layer, True):
        return False
    if matrix.rows < QUAD or view.half or line_blocks(layer, view) < min(QUAD_WIDTHS):
        return False
    return _QUAD_SHARE <= matrix.nnz / matrix.size < 1


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
    widths = fitting_widths(vectors.max_blocks)
    rest = -(-height * width // BLOCK) % granule(width)
    return height * width > 1 and granule(width) in widths and (not rest or rest in widths)


def image_products(network: Network, exact: bool, vectors: Vectors) -> dict[int, ConvProduct]:
    """Return how each convolution of one image is computed, by the number of its output."""
    return {
        layer.output: conv_product(layer, True, exact, vectors)
        for layer in network.layers
        if isinstance(layer.node, Conv) and not is_depthwise(layer)
    }


def row_blocks(rows: int) -> int:
    """Return how many blocks of rows to compute at a time, if registers suffice."""
    return 1 if rows <= BLOCK else max(ROW_BLOCKS)


def _pools_in_registers(layer: Layer, flat: bool) -> bool:
    """Return whether a small layer's pool may be computed in registers, which only a sparse product can do."""
    return layer.pool is not None and layer.pool.kernel == (2, 2) and not (flat and matrix_of(layer).size >= _LARGE)


def is_depthwise(layer: Layer) -> bool:
    """Return whether a convolution of one image runs channel by channel."""
    node = layer.node
    return (
        isinstance(node, Conv)
        and node.groups == layer.in_shapes[0][0] > 1
        and max(node.stride) <= 2
        and layer.pool is None
    )


def window_kernel(layer: Layer) -> int:
    """Return the size of a depthwise convolution's square windows if they have all their weights; otherwise 0.

    That is also 0 for layers without weights yet, because sparse rows need larger buffers.
    """
    node, matrix = layer.node, matrix_of(layer)
    assert isinstance(node, Conv)
    height, width = matrix.shape[2:]
    plain = node.stride[0] == node.stride[1] and node.dilation == (1, 1) and max(node.padding) < height
    full = layer.weight is not None and layer.weight.nnz == matrix.size
    return height if height == width in PLANE_KERNELS and plain and full else 0


def conv_window(layer: Layer, step: int, flat: bool, halves: bool, dense: bool) -> Window:
    """Return how a convolution reads its input, whose channels lie `step` positions apart."""
    assert isinstance(layer.node, Conv)
    source, shape = layer.in_shapes[0], matrix_of(layer).shape
    out = layer.conv_shape[1], layer.conv_shape[2]
    manner = ConvManner(flat, halves, dense, pools=layer.pool is not None)
    return window(layer.node, (shape[2], shape[3]), source, step, out, manner)


def has_dense_columns(shape: Shape, entries: int, reordered: bool) -> bool:
    """Return whether a linear layer gets dense columns, which must be neither too sparse nor too large.

    Its inputs must fill whole blocks, as the outputs of a gather do.
    """
    floats = aligned(shape[0]) * aligned(shape[1])
    whole = shape[1] % BLOCK == 0 or reordered
    least = _LEAST_DENSITY if floats <= _CACHED else _LEAST_LARGE_DENSITY
    return whole and floats <= _DENSE_LIMIT and entries >= least * shape[0] * shape[1]


def column_ns(size: int) -> float:
    """Return the estimated nanoseconds of one block of a dense column, if all columns take `size` bytes."""
    return 0.35 if size <= 16 << 10 else 0.65 if size <= 1 << 20 else 1.4
