"""Writes the operators of one stage of a plan, and places the values in the arena as they come and go."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from dcformat.graph import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Linear,
    MaxPool2d,
    ReLU,
    Shape,
    Softmax,
)
from dcformat_runtime import ops
from dcformat_runtime.blocks import HALF_POOLS
from dcformat_runtime.network import Layer, Network
from dcformat_runtime.storage import Arena, Homes, aligned, plane, size
from dcformat_runtime.tables import Int32s, Window
from dcformat_runtime.weights import Gather, Rows, Weights, column_ns

#: Estimated nanoseconds: a block of 16 multiply-adds, what comes with each operator.
_BLOCK_NS, _OPERATOR_NS = 0.32, 15.0

#: Bytes of the first-level cache.
_FIRST_LEVEL = 32 << 10

#: More blocks or floats than any line has.
_ENDLESS = 1 << 30


class Place(NamedTuple):
    """A value in the arena. Positions are `gap` floats apart; groups of images `group`."""

    at: int
    gap: int
    group: int = 0


class Stage:
    """Operators for groups of `lanes` images; `records`, `names` and `costs` (nanoseconds) are in order.

    `values`: the values' homes, of one image or of many.
    """

    def __init__(self, network: Network, weights: Weights, arena: Arena, lanes: int, values: Homes) -> None:
        self.network, self.weights, self.arena, self.lanes = network, weights, arena, lanes
        self.flat = lanes == 1
        self.values = values
        self._ends: dict[int, list[int]] = {}  # layer -> the storages that nobody reads after it
        for storage, layer in self.values.last.items():
            self._ends.setdefault(layer, []).append(storage)
        self._readers: dict[int, list[Layer]] = {}
        for reader in network.layers:
            for value in reader.inputs:
                self._readers.setdefault(value, []).append(reader)
        self.records: list[list[int]] = []
        self.names: list[str] = []
        self.costs: list[float] = []
        self._name = ""
        self._places: dict[int, Place] = {}  # storage -> where
        self._buffers: dict[int, tuple[int, int]] = {}
        self._orders: dict[int, Int32s] = {}  # value -> the order in which its elements lie, if not their own

    def input(self) -> None:
        """Bring in images from the caller's array."""
        self._name = "input"
        self._hold(0)
        features = prod(self.network.input_shape)
        self._emit("input", 0, self._at(0), features * self.lanes / 16, features, self.lanes)

    def output(self) -> None:
        """Give the results to the caller's array."""
        self._name = "output"
        value, shape = self.network.output, self.network.output_shape
        at = self._at(value).at
        features = self.network.outputs
        if self._is_filled(value, shape):
            buffer = self.arena.take(features)
            self._pack(value, shape, Place(buffer[0], 1))
            at = buffer[0]
        self._emit("output", at, Place(0, 1), features * self.lanes, features, self.lanes)

    def bridge(self, value: int, tile: int) -> tuple[int, int]:
        """Take room for `value` where the next stage reads it: by image (one lane), or by position with all lanes."""
        shape = self._shape(value)
        buffer = self.arena.take(tile * prod(shape))
        if not self._is_filled(value, shape):
            group = prod(shape) if self.flat else self.lanes
            self._places[self.values.of[value].storage] = Place(buffer[0], 1 if self.flat else tile, group)
        return buffer

    def leave(self, value: int, buffer: tuple[int, int]) -> None:
        """Finish the bridge, where `value` could not be made in its place."""
        shape = self._shape(value)
        if self._is_filled(value, shape):
            self._pack(value, shape, Place(buffer[0], 1, prod(shape)))

    def resume(self, value: int, buffer: tuple[int, int], before: Stage) -> None:
        """Begin with what the stage before made: every image becomes a lane."""
        storage = self.values.of[value].storage
        if before.flat:
            self._name = "turn"
            self._hold(storage)
            size = self.values.sizes[storage]
            self._emit("turn", buffer[0], self._at(value), size * self.lanes / 8, size, self.lanes)
            self.arena.give(buffer)
        else:
            self._buffers[storage], self._places[storage] = buffer, Place(buffer[0], self.lanes)

    def _shape(self, value: int) -> Shape:
        return self.network.layers[value - 1].out_shape if value else self.network.input_shape

    def _plane(self, value: int) -> int:
        """Positions from one channel to the next."""
        return plane(self._shape(value), self.flat and value != 0)

    def _is_filled(self, value: int, shape: Shape) -> bool:
        return self.flat and value != 0 and self._plane(value) != prod(shape[1:])

    def _pack(self, value: int, shape: Shape, target: Place) -> None:
        """Copy a value without what fills up its planes."""
        count = prod(shape[1:])
        self._emit("copy", self._at(value).at, target, prod(shape) / 8, count, shape[0], self._plane(value), count)

    def run(self, start: int, stop: int) -> None:
        """Write the layers `start` to `stop`."""
        for k in range(start, stop):
            layer = self.network.layers[k]
            self._name = layer.name
            self._hold(self.values.of[layer.output].storage)
            self._layer(layer)
            for storage in self._ends.get(k, ()):
                if storage in self._buffers:
                    self.arena.give(self._buffers.pop(storage))
                    del self._places[storage]

    def _hold(self, storage: int) -> None:
        if storage not in self._places:
            buffer = self.arena.take(self.lanes * aligned(self.values.sizes[storage]))
            self._buffers[storage] = buffer
            self._places[storage] = Place(buffer[0], self.lanes)

    def _at(self, value: int) -> Place:
        home = self.values.of[value]
        place = self._places[home.storage]
        return Place(place.at + home.offset * place.gap, place.gap, place.group)

    def _emit(self, code: str, source: int, target: Place, cost: float, *words: int) -> None:
        self.records.append([ops.CODES[code], source, target.at, target.group, *map(int, words)])
        self.names.append(self._name)
        self.costs.append(cost + _OPERATOR_NS)

    def _layer(self, layer: Layer) -> None:
        node = layer.node
        if isinstance(node, Flatten):
            if self.values.of[layer.output] != self.values.of[layer.inputs[0]]:
                self._pack(layer.inputs[0], layer.in_shapes[0], self._at(layer.output))
            return
        if isinstance(node, Conv2d):
            self._convolution(layer)
        elif isinstance(node, Linear):
            self._linear(layer)
        elif isinstance(node, Concat):
            self._concat(layer)
        else:
            target = self._at(layer.output)
            if target.gap == self.lanes and not (target.group and len(layer.inputs) > 2):
                self._simple(layer, target)
            else:
                self._spread(layer, target)

    def _spread(self, layer: Layer, target: Place) -> None:
        """Make a value beside its place, where lanes are next to one another, and move it there."""
        count = size(layer.out_shape, self.flat)
        buffer = self.arena.take(count * self.lanes)
        self._simple(layer, Place(buffer[0], self.lanes))
        self._emit("spread", buffer[0], target, count * self.lanes / 16, count, self.lanes, target.gap)
        self.arena.give(buffer)

    def _simple(self, layer: Layer, target: Place) -> None:
        node, lanes = layer.node, self.lanes
        source = self._at(layer.inputs[0]).at
        count = size(layer.out_shape, self.flat) * lanes
        if isinstance(node, (MaxPool2d, AvgPool2d)):
            step = self._plane(layer.inputs[0])
            self._pool(node, layer.in_shapes[0], step, layer.out_shape, source, target, layer.relu)
        elif isinstance(node, (GlobalAvgPool, GlobalMaxPool)):
            channels, height, width = layer.in_shapes[0]
            mean = isinstance(node, GlobalAvgPool)
            cost = channels * height * width * lanes * 0.3
            step = self._plane(layer.inputs[0])
            self._emit("global", source, target, cost, channels, height * width, lanes, mean, step)
        elif isinstance(node, (Add, ReLU)):
            self._elementwise(layer, target, count)
        elif isinstance(node, Softmax):
            self._emit("softmax", source, target, count * 20.0, layer.out_shape[0], lanes)
        else:
            raise NotImplementedError(node.kind)

    def _elementwise(self, layer: Layer, target: Place, count: int) -> None:
        """Write a sum or a ReLU; both work on planes that are filled up, which the input's are not."""
        operands, buffer = [self._at(value).at for value in layer.inputs], None
        if 0 in layer.inputs and self.flat and count != prod(layer.out_shape):
            buffer = self.arena.take(count)
            positions = prod(layer.out_shape[1:])
            steps = positions, plane(layer.out_shape, True)
            source = self._at(0).at
            self._emit("copy", source, Place(buffer[0], 1), count / 8, positions, layer.out_shape[0], *steps)
            operands = [at if value else buffer[0] for at, value in zip(operands, layer.inputs, strict=True)]
        if isinstance(layer.node, ReLU):
            self._emit("relu", operands[0], target, count / 16, count)
        total = operands[0]
        for k, at in enumerate(operands[1:], 2):
            self._emit("add", total, target, count / 16, at, count, layer.relu and k == len(operands))
            total = target.at
        if buffer is not None:
            self.arena.give(buffer)

    def _pool(
        self, node: MaxPool2d | AvgPool2d, source_shape: Shape, step: int, out_shape: Shape, source: int,
        target: Place, relu: bool,
    ) -> None:  # fmt: skip
        kind = 0 if isinstance(node, MaxPool2d) else 1 if node.count_include_pad else 2
        cost = prod(out_shape) * self.lanes * prod(node.kernel) * 0.4
        self._emit(
            "pool", source, target, cost, *source_shape, self.lanes, *node.kernel, *node.stride, *node.padding,
            *out_shape[1:], kind, relu, step, plane(out_shape, self.flat),
        )  # fmt: skip

    def _concat(self, layer: Layer) -> None:
        target, offset = self._at(layer.output), 0
        for value, shape in zip(layer.inputs, layer.in_shapes, strict=True):
            here = Place(target.at + offset * target.gap, target.gap, target.group)
            floats = size(shape, self.flat)
            offset += floats
            if self.values.of[value].storage == self.values.of[layer.output].storage:
                continue
            source, cost = self._at(value).at, floats * self.lanes / 16
            if target.gap != self.lanes:
                self._emit("spread", source, here, cost, floats, self.lanes, target.gap)
            else:
                count = prod(shape[1:]) * self.lanes
                steps = self._plane(value) * self.lanes, plane(shape, self.flat) * self.lanes
                times = shape[0]
                if steps == (count, count):
                    count, times = count * times, 1
                self._emit("copy", source, here, cost, count, times, *steps)

    def _linear(self, layer: Layer) -> None:
        source, target = self._at(layer.inputs[0]), self._at(layer.output)
        if self.lanes == 1:
            self._vector(layer, source.at, target)
            return
        table = self.weights.linear_rows(layer)
        half = self.lanes < 16
        blocks = max(1, self.lanes // 16)
        self._rows(
            table, source.at, target, unit=self.lanes, row=target.gap, gap=8 if half else 16, blocks=blocks,
            per=0 if half else _ENDLESS, width=8 if half else _ENDLESS, relu=layer.relu, step=8 if half else 16,
        )  # fmt: skip

    def _vector(self, layer: Layer, source: int, target: Place) -> None:
        """Write a linear layer for one image: sparse gathers, or dense columns of the inputs that are not zero."""
        value = layer.inputs[0]
        table = self.weights.gather(layer, self._orders.get(value))
        if self._may_reorder(layer) and not target.group:
            self._orders[layer.output] = table.order
            order = 0
        else:
            order = table.order_at
        scratch = self.arena.take(16 * table.groups)
        words = (
            table.groups, table.pointers, table.indices, table.values, table.bias, layer.relu, table.wide,
            table.rows, order, scratch[0],
        )  # fmt: skip
        if table.each:
            extra = table.blocks, table.each, table.block_indices, table.block_values
            self._emit("permute", source, target, table.cost, *words, *extra)
        elif table.columns and not order:
            self._columns(layer, table, source, target, words)
        else:
            self._emit("gather", source, target, table.cost, *words)
        self.arena.give(scratch)

    def _columns(self, layer: Layer, table: Gather, source: int, target: Place, words: tuple[int, ...]) -> None:
        features = aligned(layer.in_shapes[0][0])
        found = self.arena.take(features + 16)
        # The gather's record is put among the constants: it is run only when too many inputs are not zero.
        instead = self.weights.room.put_words([ops.CODES["gather"], source, target.at, target.group, *map(int, words)])
        limit = int(table.cost / (table.groups * column_ns(64 * features * table.groups)))
        self._emit(
            "columns", source, target, table.cost, features, table.columns, table.groups, table.bias, layer.relu,
            found[0], limit, instead,
        )  # fmt: skip
        self.arena.give(found)

    def _may_reorder(self, layer: Layer) -> bool:
        """Whether all that read a layer's output are linear layers, which can read it in any order."""
        readers = self._readers.get(layer.output, [])
        linear = all(isinstance(reader.node, Linear) for reader in readers)
        return bool(readers) and linear and layer.output != self.network.output and not self.weights.exact

    def _convolution(self, layer: Layer) -> None:
        flat = self.lanes == 1
        table = self.weights.conv_rows(layer, flat)
        source, target = self._at(layer.inputs[0]).at, self._at(layer.output)
        copy = self._shift(layer, table, source)
        source = copy[0] if copy else source
        if flat:
            self._flat(layer, table, source, target)
        else:
            self._lanes(layer, table, source, target)
        if copy:
            self.arena.give(copy)

    def _shift(self, layer: Layer, table: Rows, source: int) -> tuple[int, int] | None:
        view = table.window
        assert view is not None  # conv_rows gives one
        if not view.copied:
            return None
        channels, height, width = layer.in_shapes[0]
        buffer = self.arena.take(channels * view.plane * self.lanes)
        variants, phases, rows, cols = view.shape
        cost = channels * view.plane * self.lanes / 8
        self._emit(
            "shift", source, Place(buffer[0], self.lanes), cost, channels, height, width, self.lanes, variants,
            table.starts, view.stride, phases, view.top, rows, cols, self._plane(layer.inputs[0]), view.plane,
            view.needed,
        )  # fmt: skip
        return buffer

    def _flat(self, layer: Layer, table: Rows, source: int, target: Place) -> None:
        """One image: the positions of an output channel are one row."""
        view, pool = table.window, layer.pool
        assert view is not None
        channels, height, width = layer.conv_shape
        positions, step = height * width, plane(layer.conv_shape, True)
        lines = height if view.width == width else 1
        pooled = self._halves_pooled(layer, table)
        buffer = None if pool is None or pooled else self.arena.take(channels * step)
        place = target if buffer is None else Place(buffer[0], 1)
        if view.half:
            # One line each, or all lines close together.
            gap, blocks = (width, height) if view.half == 16 else (8, -(-positions // 8))
            row, gap = (plane(layer.out_shape, True), width // 2) if pooled else (step, gap)
            self._rows(
                table, source, place, unit=1, row=row, gap=gap, blocks=blocks, per=0, width=min(gap, positions),
                relu=layer.relu, step=view.half, pool=pooled,
            )  # fmt: skip
        else:
            self._rows(
                table, source, place, unit=1, row=step, gap=16, blocks=lines * view.per, per=view.per,
                width=view.width, relu=layer.relu,
            )  # fmt: skip
        if pool is not None and buffer is not None:
            self._pool(pool, layer.conv_shape, step, layer.out_shape, buffer[0], target, False)
            self.arena.give(buffer)

    def _halves_pooled(self, layer: Layer, table: Rows) -> int:
        """Return how many half blocks a line of a convolution has, if these are pooled in registers; else 0."""
        view, pool = table.window, layer.pool
        assert view is not None
        _, height, width = layer.conv_shape
        lines = width // 8
        widths, step = HALF_POOLS.get(lines, ((_ENDLESS,), 0))
        if pool is None or view.half != step or width % 8 or table.runs > 1 or not _is_plain(layer, pool):
            return 0
        return lines if height * lines % min(widths) == 0 and min(widths) <= 2 * self.weights.most else 0

    def _lanes(self, layer: Layer, table: Rows, source: int, target: Place) -> None:
        """Sixteen images: a position is a block."""
        view, pool = table.window, layer.pool
        assert view is not None
        _, height, width = layer.conv_shape
        across = 16 * view.shape[3]
        fused = pool is not None and _is_plain(layer, pool)
        if pool is None or fused:
            out_h, out_w = layer.out_shape[1:]
            self._rows(
                table, source, target, unit=16, row=out_h * out_w * target.gap, gap=target.gap,
                blocks=4 * out_w if fused else out_w, per=_ENDLESS, width=_ENDLESS, relu=layer.relu, outer=out_h,
                source_outer=2 * across if fused else across, target_outer=out_w * target.gap, pool=fused,
                step=8 if fused else 16, most=_pooled_most(layer, view) if fused else _ENDLESS,
            )  # fmt: skip
            return
        buffer = self.arena.take(prod(layer.conv_shape) * 16)
        self._rows(
            table, source, Place(buffer[0], 16), unit=16, row=height * width * 16, gap=16, blocks=width,
            per=_ENDLESS, width=_ENDLESS, relu=layer.relu, outer=height, source_outer=across, target_outer=16 * width,
        )  # fmt: skip
        self._pool_beside(pool, layer, buffer[0], target)
        self.arena.give(buffer)

    def _pool_beside(self, pool: MaxPool2d, layer: Layer, source: int, target: Place) -> None:
        """Pool sixteen images into their place, or beside it where lanes are not next to one another there."""
        step = prod(layer.conv_shape[1:])
        if target.gap == 16:
            self._pool(pool, layer.conv_shape, step, layer.out_shape, source, target, False)
            return
        count = prod(layer.out_shape)
        buffer = self.arena.take(count * 16)
        self._pool(pool, layer.conv_shape, step, layer.out_shape, source, Place(buffer[0], 16), False)
        self._emit("spread", buffer[0], target, count, count, 16, target.gap)
        self.arena.give(buffer)

    def _rows(
        self, table: Rows, source: int, target: Place, *, unit: int, row: int, gap: int, blocks: int, per: int,
        width: int, relu: bool, outer: int = 1, source_outer: int = 0, target_outer: int = 0, pool: int = 0,
        step: int = 16, most: int = _ENDLESS,
    ) -> None:  # fmt: skip
        most = min(most, 24 if pool and self.weights.most >= 12 else self.weights.most)
        full = blocks if per else blocks / 2
        cost = outer * (table.entries * full * _BLOCK_NS + table.rows * table.runs * 5.0 * -(-full // most))
        self._emit(
            "rows", source, target, cost, table.rows, table.pointers, table.order, table.indices, table.values,
            table.bias, unit, outer, source_outer, row, target_outer, gap, blocks, most, per, width, relu, pool,
            table.runs, step,
        )  # fmt: skip


def _pooled_most(layer: Layer, view: Window) -> int:
    """Return of how many blocks two lines of a convolution are best pooled at a time: all that registers hold, or few.

    Where what twelve columns read does not fit in the first-level cache, four columns read less for each sum.
    """
    variants, phases, rows, cols = view.shape
    _, height, width = layer.conv_shape
    positions = (rows - height + 2) * (cols - width + min(width, 12))
    return 8 if 64 * layer.in_shapes[0][0] * variants * phases * positions > _FIRST_LEVEL else _ENDLESS


def _is_plain(layer: Layer, pool: MaxPool2d) -> bool:
    """Whether a convolution's pool takes all of each 2 x 2, and nothing twice."""
    _, height, width = layer.conv_shape
    return (
        pool.kernel == pool.stride == (2, 2)
        and pool.padding == (0, 0)
        and layer.out_shape[1:] == (height // 2, width // 2)
    )
