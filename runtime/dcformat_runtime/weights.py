"""The tables of a network's layers among its constants: each kind is made once, however many plans use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from dcformat.graph import Conv2d
from dcformat_runtime.network import Floats, Ints, Layer, Sparse
from dcformat_runtime.storage import Constants, plane
from dcformat_runtime.tables import (
    GatherTable,
    Int32s,
    RowTable,
    Window,
    conv_entries,
    dense_columns,
    gather_table,
    row_numbers,
    row_table,
    window,
)

T = TypeVar("T")

#: Bytes of the copy of a source that one run of columns should read, so that it stays in the first-level cache.
_RUN_BYTES = 24 << 10
#: Blocks of multiply-adds that one run of a row should have at least, so that sums are seldom stored and loaded again.
_RUN_BLOCKS = 160
#: Floats that a layer's dense columns may take.
_DENSE_LIMIT = 1 << 21


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """Where a `GatherTable` lies, and its layer's dense columns (0: none)."""

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
    columns: int


class Weights:
    """Makes tables among `constants` on demand."""

    def __init__(self, constants: Constants, exact: bool, most: int) -> None:
        self.constants, self.exact, self.most = constants, exact, most
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
        runs = _runs(weight.columns * 256, 4 * weight.nnz / weight.rows)
        row = row_numbers(weight)
        position = weight.indices.astype(np.int64)
        table = row_table(row, position, weight.values, bias, position * runs // weight.columns, runs)
        return self._put_rows(table, runs, None)

    def conv_rows(self, layer: Layer, flat: bool) -> Rows:
        """Return the rows of a convolution: for one image (`flat`), or with each image a lane."""
        return self._once((id(layer), "flat" if flat else "lanes"), lambda: self._conv_rows(layer, flat))

    def _conv_rows(self, layer: Layer, flat: bool) -> Rows:
        weight, bias = _parameters(layer)
        assert isinstance(layer.node, Conv2d)
        out = (layer.conv_shape[1], layer.conv_shape[2])
        kernel = (weight.shape[2], weight.shape[3])
        shape = layer.in_shapes[0]
        step = prod(shape[1:]) if layer.inputs[0] == 0 else plane(shape, flat)
        view = window(layer.node, kernel, shape, step, out, flat)
        row, channel, position, values = conv_entries(weight, layer.node, shape, out, view, flat)
        channels = shape[0]
        runs = 1
        if layer.pool is None or flat:
            used = min(view.plane, 16 * self.most + (kernel[0] - 1) * view.shape[3]) if flat else 16 * view.plane
            blocks = min(self.most, -(-out[0] * out[1] // 16) if flat else out[1])
            runs = _runs(4 * channels * view.shape[0] * used, blocks * values.size / weight.rows)
        # By channel, so that entries stay in the order of the weight's columns however many runs there are.
        table = row_table(row, position, values, bias, channel * runs // channels, runs)
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
        columns: Ints | None = None
        if renamed is not None:
            columns = np.empty(weight.columns, np.int64)
            columns[renamed] = np.arange(weight.columns)
        table = gather_table(weight, bias, columns)
        put = self.constants.put
        dense = 0
        if weight.columns % 16 == 0 or renamed is not None:
            dense = self._dense(weight, table, columns)
        return Gather(
            weight.rows, table.bias.size // 16, table.values.size // 16, put(table.pointers), put(table.indices),
            put(table.values), put(table.bias), table.indices.dtype == np.int32, table.order, put(table.order), dense,
        )  # fmt: skip

    def _dense(self, weight: Sparse, table: GatherTable, columns: Ints | None) -> int:
        places = -(-weight.columns // 16) * 16
        floats = places * table.bias.size
        # Twice the time of a column is what an entry's gather takes at this density if half of the inputs are zero.
        if floats > _DENSE_LIMIT or weight.density < 0.02:
            return 0
        return self.constants.put(dense_columns(weight, table.order, columns, places))


def _parameters(layer: Layer) -> tuple[Sparse, Floats]:
    assert layer.weight is not None and layer.bias is not None  # network.lower gives both to such layers
    return layer.weight, layer.bias + np.float32(0)  # no negative zero: adding zeros must change nothing


def _runs(source_bytes: int, blocks: float) -> int:
    """Return in how many runs of columns to cut a layer; `blocks`: a row's multiply-adds each time it is read."""
    return max(1, min(round(source_bytes / _RUN_BYTES), int(blocks / _RUN_BLOCKS)))
