"""The tables of a network's layers among its constants: each kind is made once, however many plans use it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeVar

import numpy as np

from dcformat.graph import Conv2d, Shape
from dcformat.records import record, replace
from dcformat_runtime.blocks import PERMUTE_SLOTS
from dcformat_runtime.network import Floats, Layer, Sparse
from dcformat_runtime.storage import Constants, aligned, plane
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
    """Makes tables among `constants` on demand."""

    def __init__(self, constants: Constants, exact: bool, most: int, permutes: bool, halves: bool) -> None:
        self.constants, self.exact, self.most, self.permutes = constants, exact, most, permutes
        self.halves = halves
        self._made: dict[tuple[object, ...], object] = {}

    def _once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def linear_rows(self, layer: Layer) -> Rows:
        """Return the rows of a linear layer for many images."""
        return self._once((id(layer), "rows"), lambda: self._linear_rows(layer))

    def _linear_rows(self, layer: Layer) -> Rows:
        weight, bias = _parameters(layer)
        runs = linear_runs(weight.shape, weight.nnz)
        row, position = row_numbers(weight), weight.indices.astype(np.int64)
        table = row_table(row, position, weight.values, bias, position * runs // weight.columns, runs)
        return self._put_rows(table, runs, None)

    def conv_rows(self, layer: Layer, flat: bool) -> Rows:
        """Return the rows of a convolution: for one image (`flat`), or with each image a lane."""
        return self._once((id(layer), "flat" if flat else "lanes"), lambda: self._conv_rows(layer, flat))

    def _conv_rows(self, layer: Layer, flat: bool) -> Rows:
        weight, bias = _parameters(layer)
        view = conv_window(layer, weight.shape, flat, self.halves)
        row, channel, position, values = conv_entries(weight, layer, view, flat)
        runs = conv_runs(layer, weight.shape, values.size, view, flat, self.most)
        # By channel, so that entries stay in the order of the weight's columns however many runs there are.
        table = row_table(row, position, values, bias, channel * runs // layer.in_shapes[0][0], runs)
        return self._put_rows(table, runs, view)

    def _put_rows(self, table: RowTable, runs: int, view: Window | None) -> Rows:
        put = self.constants.put
        return Rows(
            table.bias.size, table.values.size, runs, put(table.pointers), put(table.order), put(table.indices),
            put(table.values), put(table.bias), view, put(view.starts) if view is not None else 0,
        )  # fmt: skip

    def gather(self, layer: Layer, renamed: Int32s | None) -> Gather:
        """Return the tables of a linear layer for one image; `renamed`: its input's order, if not its own."""
        return self._once((id(layer), "gather"), lambda: self._gather(layer, renamed))

    def _gather(self, layer: Layer, renamed: Int32s | None) -> Gather:
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
                return self._put_permute(weight, permute_table(weight, bias, columns, found, each), permuted)
        table = gather_table(weight, bias, columns)
        place = self._put_gather(weight, table, gathers)
        if not dense:
            return place
        return replace(
            place, columns=self.constants.put(dense_columns(weight, table.order, columns, aligned(weight.columns)))
        )

    def _put_gather(self, weight: Sparse, table: GatherTable, cost: float) -> Gather:
        put = self.constants.put
        return Gather(
            weight.rows, table.bias.size // 16, table.values.size // 16, put(table.pointers), put(table.indices),
            put(table.values), put(table.bias), table.indices.dtype == np.int32, table.order, put(table.order), cost,
        )  # fmt: skip

    def _put_permute(self, weight: Sparse, table: PermuteTable, cost: float) -> Gather:
        put = self.constants.put
        return replace(
            self._put_gather(weight, table.rest, cost), blocks=table.blocks, each=table.each,
            block_indices=put(table.indices), block_values=put(table.values),
        )  # fmt: skip


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
