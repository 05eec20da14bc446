"""The tables of a network's layers among its constants: each kind is made once, however many plans use it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dcformat.graph import Conv2d, Shape
from dcformat.records import record, replace
from dcformat_runtime.blocks import PERMUTE_SLOTS
from dcformat_runtime.network import Floats, Layer, Matrix, Sparse
from dcformat_runtime.storage import Constants, Room, aligned, plane
from dcformat_runtime.tables import (
    GatherTable,
    Int32s,
    Occurrences,
    PermuteTable,
    RowTable,
    Window,
    conv_entries,
    dense_columns,
    gather_table,
    occurrences,
    permute_table,
    row_numbers,
    row_table,
    slots,
    window,
)

T = TypeVar("T")

#: Bytes of the copy of a source that one run of columns should read, so that it stays in the first-level cache.
_RUN_BYTES = 24 << 10
#: Blocks of multiply-adds that one run of a row should have at least, so that sums are seldom stored and loaded again.
_RUN_BLOCKS = 160
#: Floats that a layer's dense columns may take, and the density from which they are made. At this density a column's
#: blocks take as long as its entries' gathers if a fifth of the inputs is not zero.
_DENSE_LIMIT = 1 << 21
_LEAST_DENSITY = 0.02
#: The order of rows of which nothing is known yet.
_UNKNOWN: Int32s = np.empty(0, np.int32)
#: Estimated nanoseconds of 16 gathered multiply-adds.
SLOT_NS = 4.5


@record
class Rows:
    """Where a `RowTable` lies; `window`: of a convolution."""

    rows: int
    entries: int
    runs: int
    pointers: int
    order: int
    indices: int
    values: int
    bias: int
    window: Window | None = None
    starts: int = 0


@record(eq=False)
class Gather:
    """Where a `GatherTable` lies; `cost` in nanoseconds.

    `columns`: its layer's dense columns (0: none). `each`: slots of a `PermuteTable` of which this is
    the rest (0: none).
    """

    rows: int
    groups: int
    slots: int
    pointers: int
    indices: int
    values: int
    bias: int
    wide: bool
    order: Int32s
    order_at: int
    cost: float
    columns: int = 0
    blocks: int = 0
    each: int = 0
    block_indices: int = 0
    block_values: int = 0


class Weights:
    """Makes tables on demand: among `constants`, or, where layers have no weights yet, only the room for them.

    Of the latter, only how evenly entries are spread over rows is unknown, and taken to be as bad as can be: they take
    no less room than the tables will.
    """

    def __init__(self, room: Room, exact: bool, most: int, permutes: bool, halves: bool) -> None:
        self.room, self.exact, self.most, self.permutes, self.halves = room, exact, most, permutes, halves
        self._made: dict[tuple[object, ...], object] = {}

    def _once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def linear_rows(self, layer: Layer) -> Rows:
        """Return the rows of a linear layer for many images."""
        return self._once((layer.output, "rows"), lambda: self._linear_rows(layer))

    def _linear_rows(self, layer: Layer) -> Rows:
        if layer.weight is None:
            matrix = _matrix(layer)
            return self._place_rows(matrix.rows, matrix.nnz, linear_runs(matrix.shape, matrix.nnz), None)
        weight, bias = _parameters(layer)
        runs = linear_runs(weight.shape, weight.nnz)
        row, position = row_numbers(weight), weight.indices.astype(np.int64)
        table = row_table(row, position, weight.values, bias, position * runs // weight.columns, runs)
        return self._put_rows(table, runs, None)

    def conv_rows(self, layer: Layer, flat: bool) -> Rows:
        """Return the rows of a convolution: for one image (`flat`), or with each image a lane."""
        return self._once((layer.output, "flat" if flat else "lanes"), lambda: self._conv_rows(layer, flat))

    def _conv_rows(self, layer: Layer, flat: bool) -> Rows:
        matrix = _matrix(layer)
        view = conv_window(layer, matrix.shape, flat, self.halves)
        if layer.weight is None:
            runs = conv_runs(layer, matrix.shape, matrix.nnz, view, flat, self.most)
            return self._place_rows(matrix.rows, matrix.nnz, runs, view)
        weight, bias = _parameters(layer)
        row, channel, position, values = conv_entries(weight, layer, view, flat)
        runs = conv_runs(layer, weight.shape, values.size, view, flat, self.most)
        # By channel, so that entries stay in the order of the weight's columns however many runs there are.
        table = row_table(row, position, values, bias, channel * runs // layer.in_shapes[0][0], runs)
        return self._put_rows(table, runs, view)

    def _place_rows(self, rows: int, entries: int, runs: int, view: Window | None) -> Rows:
        skip = self.room.skip
        return Rows(
            rows, entries, runs, skip(runs * rows + 1), skip(rows), skip(entries), skip(entries), skip(rows), view,
            skip(len(view.starts)) if view is not None else 0,
        )  # fmt: skip

    def _put_rows(self, table: RowTable, runs: int, view: Window | None) -> Rows:
        place = self._place_rows(table.bias.size, table.values.size, runs, view)
        self._fill(place.pointers, table.pointers)
        self._fill(place.order, table.order)
        self._fill(place.indices, table.indices)
        self._fill(place.values, table.values)
        self._fill(place.bias, table.bias)
        if view is not None:
            self._fill(place.starts, np.array(view.starts, np.int64))
        return place

    def _fill(self, at: int, array: npt.NDArray[Any]) -> None:
        assert isinstance(self.room, Constants)  # layers that have weights are built, not predicted
        self.room.fill(at, array)

    def gather(self, layer: Layer, renamed: Int32s | None) -> Gather:
        """Return the tables of a linear layer for one image; `renamed`: its input's order, if not its own."""
        return self._once((layer.output, "gather"), lambda: self._gather(layer, renamed))

    def _gather(self, layer: Layer, renamed: Int32s | None) -> Gather:
        if layer.weight is None:
            return self._gather_at_most(_matrix(layer), renamed is not None)
        weight, bias = _parameters(layer)
        columns: Int32s | None = None
        if renamed is not None:
            columns = np.empty(weight.columns, np.int32)
            columns[renamed] = np.arange(weight.columns)
        gathers = cost = slots(np.diff(weight.indptr)) * SLOT_NS
        zeros = 0.5 if layer.inputs[0] == 0 else 0.1  # blocks of 16 inputs without any but zeros: images have many
        dense = has_dense_columns(weight.shape, weight.nnz, renamed is not None)
        if dense:
            # A guess: what of the inputs is not zero.
            share, floats = 0.2 if layer.inputs[0] == 0 else 0.5, weight.columns * aligned(weight.rows)
            cost = min(cost, 50 + share * floats / 16 * column_ns(4 * floats))
        if self.permutes and not self.exact:
            found = occurrences(weight, columns)
            each, permuted = _slots(weight, found, zeros)
            if permuted < cost:
                return self._put_permute(permute_table(weight, bias, columns, found, each), permuted)
        table = gather_table(weight, bias, columns)
        place = self._put_gather(table, gathers)
        if not dense:
            return place
        made = dense_columns(weight, table.order, columns, aligned(weight.columns))
        at = self.room.skip(made.size)
        self._fill(at, made)
        return replace(place, columns=at)

    def _gather_at_most(self, matrix: Matrix, renamed: bool) -> Gather:
        rows, columns = matrix.shape
        groups = -(-rows // 16)
        # A group is as long as its longest row, which is no longer than the rows of the group before.
        slots = min(matrix.nnz, groups * columns, columns + matrix.nnz // 16)
        place = self._place_gather(rows, slots, columns > 1 << 16, _UNKNOWN, 0.0)
        # One or the other, or neither.
        dense = aligned(rows) * aligned(columns) if has_dense_columns(matrix.shape, matrix.nnz, renamed) else 0
        blocks = 20 * min(permute_limit(matrix.nnz), 4 * groups * -(-columns // 16)) if self.permutes else 0
        extra = self.room.skip(max(dense, blocks))
        return replace(place, columns=extra) if dense else place

    def _place_gather(self, rows: int, slots: int, wide: bool, order: Int32s, cost: float) -> Gather:
        skip, groups = self.room.skip, -(-rows // 16)
        return Gather(
            rows, groups, slots, skip(groups + 1), skip(slots * (16 if wide else 8)), skip(16 * slots),
            skip(16 * groups), wide, order, skip(rows), cost,
        )  # fmt: skip

    def _put_gather(self, table: GatherTable, cost: float) -> Gather:
        wide, slots = table.indices.dtype == np.int32, table.values.size // 16
        place = self._place_gather(table.order.size, slots, wide, table.order, cost)
        self._fill(place.pointers, table.pointers)
        self._fill(place.indices, table.indices)
        self._fill(place.values, table.values)
        self._fill(place.bias, table.bias)
        self._fill(place.order_at, table.order)
        return place

    def _put_permute(self, table: PermuteTable, cost: float) -> Gather:
        place = self._put_gather(table.rest, cost)
        indices, values = self.room.skip(table.indices.size // 4), self.room.skip(table.values.size)
        self._fill(indices, table.indices)
        self._fill(values, table.values)
        return replace(place, blocks=table.blocks, each=table.each, block_indices=indices, block_values=values)


def _slots(weight: Sparse, found: Occurrences, zeros: float) -> tuple[int, float]:
    """Return with how many slots a `PermuteTable` is fastest, and its nanoseconds; infinite if it is too large."""
    groups, blocks = -(-weight.rows // 16), -(-weight.columns // 16)
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
    """Return how many slots a `PermuteTable` may have: for a quarter of their lanes there must be entries."""
    return entries // 4


def _matrix(layer: Layer) -> Matrix:
    assert layer.matrix is not None  # network.outline gives one to such layers
    return layer.matrix


def _parameters(layer: Layer) -> tuple[Sparse, Floats]:
    assert layer.weight is not None and layer.bias is not None  # network.lower gives both to such layers
    return layer.weight, layer.bias + np.float32(0)  # no negative zero: adding zeros must change nothing


def linear_runs(shape: Shape, entries: int) -> int:
    """Return in how many runs of columns to cut a linear layer."""
    return _runs(shape[1] * 256, 4 * entries / shape[0])


def conv_window(layer: Layer, shape: Shape, flat: bool, halves: bool) -> Window:
    """Return how a convolution reads its input."""
    assert isinstance(layer.node, Conv2d)
    source = layer.in_shapes[0]
    step = prod(source[1:]) if layer.inputs[0] == 0 else plane(source, flat)
    out = layer.conv_shape[1], layer.conv_shape[2]
    return window(layer.node, (shape[2], shape[3]), source, step, out, flat, halves)


def conv_runs(layer: Layer, shape: Shape, entries: int, view: Window, flat: bool, most: int) -> int:
    """Return in how many runs of channels to cut a convolution; one that is pooled in registers cannot be cut."""
    if layer.pool is not None and not flat:
        return 1
    _, height, width = layer.conv_shape
    used = min(view.plane, 16 * most + (shape[2] - 1) * view.shape[3]) if flat else 16 * view.plane
    blocks = min(most, -(-height * width // 16) if flat else width)
    return _runs(4 * layer.in_shapes[0][0] * view.shape[0] * used, blocks * entries / shape[0])


def has_dense_columns(shape: Shape, entries: int, reordered: bool) -> bool:
    """Whether a linear layer gets dense columns: not where they are few entries, or too large.

    Inputs must fill whole blocks, as those that a gather wrote do.
    """
    floats = aligned(shape[0]) * aligned(shape[1])
    whole = shape[1] % 16 == 0 or reordered
    return whole and floats <= _DENSE_LIMIT and entries >= _LEAST_DENSITY * shape[0] * shape[1]


def _runs(source_bytes: int, blocks: float) -> int:
    """Return in how many runs of columns to cut a layer; `blocks`: a row's multiply-adds each time it is read."""
    return max(1, min(round(source_bytes / _RUN_BYTES), int(blocks / _RUN_BLOCKS)))


def column_ns(size: int) -> float:
    """Estimated nanoseconds of one block of a dense column, by the size of all columns and so the cache they are in."""
    return 0.35 if size <= 16 << 10 else 0.65 if size <= 1 << 20 else 1.4
