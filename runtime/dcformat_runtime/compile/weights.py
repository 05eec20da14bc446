"""Puts the tables of a network's layers among its constants, each once for all plans that use it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from dcformat.graph import Conv
from dcformat_runtime import isa
from dcformat_runtime.bounds import UNBOUNDED
from dcformat_runtime.compile.choices import (
    column_ns,
    conv_product,
    conv_window,
    has_dense_columns,
    image_products,
    matrix_of,
    row_blocks,
)
from dcformat_runtime.compile.constants import (
    ConvPlace,
    CsrPlace,
    DensePlace,
    DepthwisePlace,
    MapPlace,
    PermutePlace,
    QuadPlace,
    Room,
    RowBlockPlace,
    SellPlace,
    ShiftedPlace,
    aligned,
)
from dcformat_runtime.compile.shifts import (
    image_planes,
    place_shifted,
    shifted_window,
    write_shifted,
)
from dcformat_runtime.compile.sparse_rows import place_quads, place_rows, put_quads, put_rows
from dcformat_runtime.compile.tables import (
    ColumnTable,
    EntryTable,
    Int32s,
    Occurrences,
    PermuteTable,
    Sell16Table,
    Window,
    conv_columns,
    dense_columns,
    linear_entries,
    numbered_by_group,
    occurrences,
    permute_table,
    places_of,
    sell16_table,
    slots,
    weight_keys,
)
from dcformat_runtime.compile.tile_tables import (
    DenseTable,
    Offsets,
    conv_offsets,
    dense_runs,
    dense_table,
    depthwise_table,
    fill_row_blocks,
)
from dcformat_runtime.compile.tiling import conv_tiling, linear_runs, quad_tiling
from dcformat_runtime.cpu import Vectors
from dcformat_runtime.elementwise_layers import Elementwise
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF, PERMUTE_SLOTS, QUAD
from dcformat_runtime.network import Layer, Network
from dcformat_runtime.weight_matrices import Floats, Sparse

if TYPE_CHECKING:
    from dcformat_runtime.compile.map_builder import MapCode

T = TypeVar("T")

#: Maximum number of entries of a layer with a `PermuteTable`; in a larger one, gathers are as fast and laid out sooner.
_PERMUTED = 1 << 17
#: An order of rows that is not known yet.
_UNKNOWN: Int32s = np.empty(0, np.int32)
#: Estimated nanoseconds of 16 gathered multiply-adds.
SLOT_NS = 4.5


class VectorTables(NamedTuple):
    """The tables of a linear layer for one image; `cost` is in nanoseconds.

    If there is a `permuted` table, `sell` holds its rest. `columns` is the address of the same matrix as dense columns.
    """

    sell: SellPlace
    cost: float
    permuted: PermutePlace | None = None
    columns: int | None = None


class Weights:
    """Makes tables on demand; for layers without weights yet, it only numbers the places of their tables.

    In that case the spread of entries over rows is unknown. It assumes the worst, so these tables take at least as much
    space as the real ones.
    """

    def __init__(self, network: Network, room: Room, exact: bool, vectors: Vectors) -> None:
        self.room, self.exact, self.vectors = room, exact, vectors
        self._products = image_products(network, exact, vectors)
        self.planes = image_planes(network, self._products)
        self._made: dict[tuple[object, ...], object] = {}

    def _once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def bounds(self, layer: Layer) -> int:
        """Return the address of the bounds to which the results of a layer are clipped."""
        if layer.bounds == UNBOUNDED:
            return isa.UNBOUNDED

        def put() -> int:
            at = self.room.skip(2)
            self.room.fill(at, np.array(layer.bounds, np.float32))
            return at

        return self._once(("bounds", layer.bounds), put)

    def elementwise(self, layer: Layer, node: Elementwise) -> tuple[MapCode, MapPlace]:
        """Return the instructions of an elementwise layer, and where they are."""
        return self._once((layer.output, "map"), lambda: self._elementwise(node))

    def linear(self, layer: Layer) -> CsrPlace:
        """Return the table of a linear layer for many images."""
        return self._once((layer.output, "linear"), lambda: self._linear(layer))

    def convolution(self, layer: Layer, flat: bool) -> ConvPlace:
        """Return the table of a convolution, for one image (`flat`) or with each image in a lane."""
        return self._once((layer.output, "flat" if flat else "lanes"), lambda: self._convolution(layer, flat))

    def depthwise(self, layer: Layer) -> DepthwisePlace:
        """Return the table of a depthwise convolution of one image."""
        return self._once((layer.output, "depthwise"), lambda: self._depthwise(layer))

    def vector(self, layer: Layer, renamed: Int32s | None) -> VectorTables:
        """Return the tables of a linear layer for one image; `renamed` is the order of its input, if it was changed."""
        return self._once((layer.output, "vector"), lambda: self._vector(layer, renamed))

    def row_blocks(self, layer: Layer, renamed: Int32s | None) -> RowBlockPlace:
        """Return the table of a linear layer for one image that runs by blocks of rows; see `vector` for `renamed`."""

        def offsets(weight: Sparse) -> Offsets:
            return Offsets(np.arange(weight.columns, dtype=np.int32) if renamed is None else places_of(renamed), None)

        return self._once((layer.output, "row blocks"), lambda: self._row_blocks(layer, offsets))

    def _elementwise(self, node: Elementwise) -> tuple[MapCode, MapPlace]:
        from dcformat_runtime.compile.map_builder import MapBuilder

        builder, values = MapBuilder(lambda operand: ()), len(node.inputs)
        for number, each in enumerate(node.nodes):
            builder.add(each, values + number)
        code = builder.finish(values + len(node.nodes) - 1)
        constants = self.room.skip(code.constants.size)
        self.room.fill(constants, code.constants)
        return code, MapPlace(self.room.put_words(code.program.reshape(-1).tolist()), constants)

    def _linear(self, layer: Layer) -> CsrPlace:
        if layer.weight is None:
            matrix = matrix_of(layer)
            return place_rows(self.room, matrix.rows, matrix.nnz, linear_runs(matrix.shape, matrix.nnz))
        weight, bias = _parameters(layer)
        runs = linear_runs(weight.shape, weight.nnz)
        return put_rows(self.room, weight, bias, linear_entries(weight, runs), runs)

    def _convolution(self, layer: Layer, flat: bool) -> ConvPlace:
        matrix, max_blocks = matrix_of(layer), self.vectors.max_blocks
        product = self._products[layer.output] if flat else conv_product(layer, flat, self.exact, self.vectors)
        if product == "shifted":
            view = shifted_window(layer, self.planes)
            return ConvPlace(self._shifted(layer, view), view, 0, max_blocks)
        dense = product in ("dense", "row blocks")
        source = layer.in_shapes[0]
        step = self.planes.step(source) if flat and layer.inputs[0] else prod(source[1:])
        view = conv_window(layer, step, flat, self.vectors.half_vectors, dense)
        place: CsrPlace | QuadPlace | DensePlace | RowBlockPlace
        cut = quad_tiling(layer, view) if product == "quads" else conv_tiling(layer, view, flat, max_blocks)
        if product == "row blocks":
            place = self._row_blocks(layer, lambda weight: conv_offsets(weight, layer, view, flat))
        elif product == "dense":
            place = self._dense(layer, view, flat)
        elif layer.weight is None:
            make = place_quads if product == "quads" else place_rows
            place = make(self.room, matrix.rows, matrix.nnz, cut.runs)
        else:
            weight, bias = _parameters(layer)
            put = put_quads if product == "quads" else put_rows
            place = put(self.room, weight, bias, self._entries(layer, view, flat, cut.runs), cut.runs)
        starts = self.room.skip(len(view.starts))
        if layer.weight is not None:  # a prediction must not make the list, which may be long
            self.room.fill(starts, np.array(view.starts, np.int64))
        return ConvPlace(place, view, starts, cut.max_blocks)

    def _entries(self, layer: Layer, view: Window, flat: bool, runs: int) -> EntryTable:
        """Describe a convolution's entries in some runs of channels, which keep the order of the weight's columns."""
        (weight, _), node = _parameters(layer), layer.node
        assert isinstance(node, Conv)
        keys, columns = weight_keys(numbered_by_group(weight, node.groups), node.groups * weight.columns)

        def describe() -> ColumnTable:
            return conv_columns(columns, layer, view, flat, runs)

        if columns.size < node.groups * weight.columns:
            return EntryTable(keys, describe())
        shapes = weight.shape, layer.in_shapes[0], layer.conv_shape
        like = shapes, node.stride, node.dilation, node.padding, node.groups, view, flat, runs
        return EntryTable(keys, self._once(("columns", *like), describe))

    def _shifted(self, layer: Layer, view: Window) -> ShiftedPlace:
        place = place_shifted(self.room, layer, self.vectors.max_blocks)
        if layer.weight is not None:
            weight, bias = _parameters(layer)
            table = self._entries(layer, view, True, place.runs)
            self.room.write_later(lambda out: write_shifted(out, place, weight, bias, table))
        return place

    def _depthwise(self, layer: Layer) -> DepthwisePlace:
        matrix, skip, node = matrix_of(layer), self.room.skip, layer.node
        assert isinstance(node, Conv)
        entries = matrix.nnz if layer.weight is None else layer.weight.nnz
        indptr, offsets, shifts, values = skip(matrix.rows + 1), skip(entries), skip(entries), skip(entries)
        place = DepthwisePlace(entries, indptr, offsets, shifts, values, skip(matrix.rows))
        if layer.weight is not None:
            table = depthwise_table(*_parameters(layer), node, layer.in_shapes[0][2])
            self._fill(place, table, *table._fields)
        return place

    def _dense(self, layer: Layer, view: Window, flat: bool) -> DensePlace:
        matrix, skip = matrix_of(layer), self.room.skip
        table: DenseTable | None = None
        columns = matrix.size // matrix.rows
        if layer.weight is not None:
            table = dense_table(*_parameters(layer), layer, view, flat)
            columns = table.offsets.size
        rows = -(-matrix.rows // QUAD) * QUAD
        place = DensePlace(
            matrix.rows, columns, dense_runs(layer, columns), skip(columns), skip(rows * columns), skip(rows)
        )
        if table is not None:
            self._fill(place, table, "offsets", "values", "bias")
        return place

    def _row_blocks(self, layer: Layer, offsets: Callable[[Sparse], Offsets]) -> RowBlockPlace:
        matrix, skip = matrix_of(layer), self.room.skip
        blocks = row_blocks(matrix.rows) if self.vectors.max_blocks >= 12 else 1
        each, columns, found = blocks * BLOCK, matrix.size // matrix.rows, None
        if layer.weight is not None:
            found = offsets(layer.weight)
            columns = columns if found.seen is None else int(np.count_nonzero(found.seen))
        groups = -(-matrix.rows // each)
        shape = groups, columns, each
        place = RowBlockPlace(matrix.rows, columns, blocks, skip(columns), skip(prod(shape)), skip(groups * each))
        if found is not None:
            (weight, bias), (places, seen) = _parameters(layer), found
            self.room.fill(place.offsets, places if seen is None else places[seen])
            self.room.fill(place.bias, bias)
            self.room.write_later(
                lambda out: fill_row_blocks(weight, seen, out[place.values :][: prod(shape)].reshape(shape))
            )
        return place

    def _fill(self, place: NamedTuple, table: object, *names: str) -> None:
        for name in names:
            self.room.fill(getattr(place, name), getattr(table, name))

    def _vector(self, layer: Layer, renamed: Int32s | None) -> VectorTables:
        if layer.weight is None:
            return self._vector_at_most(layer, renamed is not None)
        weight, bias = _parameters(layer)
        columns = None if renamed is None else places_of(renamed)
        gathers = cost = slots(np.diff(weight.indptr)) * SLOT_NS
        zeros = 0.5 if layer.inputs[0] == 0 else 0.1  # share of blocks of 16 zero inputs: images have many
        dense = has_dense_columns(weight.shape, weight.nnz, renamed is not None)
        if dense:
            # An estimate of the share of nonzero inputs.
            share, floats = 0.2 if layer.inputs[0] == 0 else 0.5, weight.columns * aligned(weight.rows)
            cost = min(cost, 50 + share * floats / 16 * column_ns(4 * floats))
        if self._permutes(layer):
            found = occurrences(weight, columns)
            each, permuted = _slots(weight, found, zeros)
            if permuted < cost:
                return self._put_permute(permute_table(weight, bias, columns, found, each), permuted)
        table = sell16_table(weight, bias, columns)
        place = self._put_sell(table)
        if not dense:
            return VectorTables(place, gathers)
        made = dense_columns(weight, table.order, columns, aligned(weight.columns))
        at = self.room.skip(made.size)
        self.room.fill(at, made)
        return VectorTables(place, gathers, columns=at)

    def _permutes(self, layer: Layer) -> bool:
        return self.vectors.permutes and not self.exact and matrix_of(layer).nnz <= _PERMUTED

    def _vector_at_most(self, layer: Layer, renamed: bool) -> VectorTables:
        matrix = matrix_of(layer)
        rows, columns = matrix.shape
        groups = -(-rows // BLOCK)
        # A group is as long as its longest row, which is no longer than any row of the previous group.
        slots = min(matrix.nnz, groups * columns, columns + matrix.nnz // BLOCK)
        place = self._place_sell(rows, slots, columns > 1 << 16, _UNKNOWN)
        # A layer has dense columns, or blocks, or neither.
        dense = aligned(rows) * aligned(columns) if has_dense_columns(matrix.shape, matrix.nnz, renamed) else 0
        limit = min(permute_limit(matrix.nnz), 4 * groups * -(-columns // BLOCK))
        extra = self.room.skip(max(dense, 20 * limit if self._permutes(layer) else 0))
        return VectorTables(place, 0.0, columns=extra if dense else None)

    def _place_sell(self, rows: int, slots: int, wide: bool, order: Int32s) -> SellPlace:
        skip, groups = self.room.skip, -(-rows // BLOCK)
        indptr, indices, values = skip(groups + 1), skip(slots * (BLOCK if wide else HALF)), skip(BLOCK * slots)
        return SellPlace(rows, groups, wide, indptr, indices, values, skip(BLOCK * groups), order, skip(rows))

    def _put_sell(self, table: Sell16Table) -> SellPlace:
        wide, slots = table.indices.dtype == np.int32, table.values.size // BLOCK
        place = self._place_sell(table.order.size, slots, wide, table.order)
        self._fill(place, table, "indptr", "indices", "values", "bias")
        self.room.fill(place.order_at, table.order)
        return place

    def _put_permute(self, table: PermuteTable, cost: float) -> VectorTables:
        sell = self._put_sell(table.rest)
        indices, values = self.room.skip(table.indices.size // 4), self.room.skip(table.values.size)
        self.room.fill(indices, table.indices)
        self.room.fill(values, table.values)
        return VectorTables(sell, cost, PermutePlace(table.blocks, table.each, indices, values))


def _slots(weight: Sparse, found: Occurrences, zeros: float) -> tuple[int, float]:
    """Return the fastest number of slots for a `PermuteTable`, and its nanoseconds (infinite if it is too large)."""
    groups, blocks = -(-weight.rows // BLOCK), -(-weight.columns // BLOCK)
    best, least = 0, float("inf")
    for each in PERMUTE_SLOTS:
        if groups * blocks * each > permute_limit(weight.nnz):
            break
        rest = slots(np.bincount(found.row[found.before >= each], minlength=weight.rows))
        cost = (1 - zeros) * groups * blocks * (each * 0.7 + 0.5) + rest * SLOT_NS + 20
        if cost < least:
            best, least = each, cost
    return best, least


def permute_limit(entries: int) -> int:
    """Return the maximum number of slots in a `PermuteTable`, whose entries must fill a quarter of the lanes."""
    return entries // 4


def _parameters(layer: Layer) -> tuple[Sparse, Floats]:
    assert layer.weight is not None and layer.bias is not None  # network.lower gives both to such layers
    return layer.weight, layer.bias + np.float32(0)  # no negative zero: adding zeros must change nothing
