"""Makes the operators of one stage of a plan, and places the values in the arena as they come and go.

`Emitter` makes the operators that are alike for one image and for many; `one_image` and `many_images` make products.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from dcformat import graph
from dcformat_runtime import isa
from dcformat_runtime.bounds import Bound
from dcformat_runtime.compile.arena import Arena, ArenaBuffer, Homes, Planes
from dcformat_runtime.compile.constants import ConvPlace, CsrPlace, DensePlace, aligned
from dcformat_runtime.compile.tables import Int32s
from dcformat_runtime.compile.weights import Weights
from dcformat_runtime.elementwise_layers import Elementwise
from dcformat_runtime.kernels import map_functions
from dcformat_runtime.kernels.simd_widths import BLOCK, TILE_QUADS
from dcformat_runtime.network import Layer, Network

#: Estimated nanoseconds of a block of 16 multiply-adds, and of an operator's overhead.
_BLOCK_NS, _OPERATOR_NS = 0.32, 15.0
#: The same for a block of a dense product, and for each weight, which comes from memory if there are many.
_DENSE_BLOCK_NS, WEIGHT_NS = 0.16, 0.06

#: Maximum number of threads that compute an operator that needs a buffer for each.
SCRATCHES = 4
#: A number greater than that of the blocks or floats in any line.
ENDLESS = 1 << 30


class Place(NamedTuple):
    """The place of a value in the arena: positions lie `gap` floats apart, groups of images `group` floats."""

    at: int
    gap: int
    group: int = 0


class CsrLoop(NamedTuple):
    """How the rows of a product go over blocks; the fields are those of the opcode ``"csr_product"``."""

    unit: int
    target_row: int
    gap: int
    blocks: int
    line_blocks: int
    width: int
    step: int = BLOCK
    outer: int = 1
    source_outer: int = 0
    target_outer: int = 0
    pool: int = 0
    max_blocks: int = 0
    """Maximum number of blocks to compute at a time; 0 for the number in `Vectors`."""
    residual: int = isa.NO_RESIDUAL


class Emitter:
    """Makes operators for groups of `lanes` images.

    Parameters
    ----------
    network : Network
    weights : Weights
    arena : Arena
    lanes : int
        The number of images in a group, which lie side by side at each position.
    homes : Homes
        The homes of the values, for one image or for many.

    Attributes
    ----------
    records : list of list of int
        The operators, in order.
    names : list of str
        The layer to which each operator belongs.
    costs : list of float
        The estimated nanoseconds of each operator.
    """

    def __init__(self, network: Network, weights: Weights, arena: Arena, lanes: int, homes: Homes) -> None:
        self.network, self.weights, self.arena, self.lanes, self.homes = network, weights, arena, lanes, homes
        self.flat = lanes == 1
        self.planes: Planes = homes.planes
        self.records: list[list[int]] = []
        self.names: list[str] = []
        self.costs: list[float] = []
        #: The order of each value that does not lie in its own.
        self.orders: dict[int, Int32s] = {}
        self._name = ""
        self._places: dict[int, Place] = {}  # by storage
        self._buffers: dict[int, ArenaBuffer] = {}

    # --- the steps of a plan ----------------------------------------------------------------------------------------

    def bring_in(self) -> None:
        """Copy images from the caller's array."""
        self._name = "input"
        self._hold(0)
        features = prod(self.network.input_shape)
        self.emit("input", 0, self.place(0), features * self.lanes / 16, features=features, lanes=self.lanes)

    def run(self, start: int, stop: int) -> None:
        """Emit the layers from `start` up to, but not including, `stop`."""
        for k in range(start, stop):
            layer = self.network.layers[k]
            self._name = layer.name
            self._hold(self.homes.of[layer.output].storage)
            self._layer(layer)
            for storage in self.homes.ends.get(k, ()):
                if storage in self._buffers:
                    self.arena.give(self._buffers.pop(storage))
                    del self._places[storage]

    def give_out(self) -> None:
        """Copy the results to the caller's array."""
        self._name = "output"
        value, shape = self.network.output, self.network.output_shape
        at = self.place(value).at
        features = self.network.outputs
        if self._is_padded(value, shape):
            at = self.arena.take(features).at
            self._pack(value, shape, Place(at, 1))
        self.emit("output", at, Place(0, 1), features * self.lanes, features=features, lanes=self.lanes)

    def make_bridge(self, value: int, tile: int) -> ArenaBuffer:
        """Take space for `value` in the next stage's order: by image (one lane), or by position with all lanes."""
        shape = self.network.shape(value)
        buffer = self.arena.take(tile * prod(shape))
        if not self._is_padded(value, shape):
            group = prod(shape) if self.flat else self.lanes
            self._places[self.homes.of[value].storage] = Place(buffer.at, 1 if self.flat else tile, group)
        return buffer

    def enter_bridge(self, value: int, bridge: ArenaBuffer) -> None:
        """Copy `value` to the bridge unless it was made there."""
        shape = self.network.shape(value)
        if self._is_padded(value, shape):
            self._pack(value, shape, Place(bridge.at, 1, prod(shape)))

    def leave_bridge(self, value: int, bridge: ArenaBuffer, by_image: bool) -> None:
        """Begin with the result of the previous stage: every image becomes a lane."""
        storage = self.homes.of[value].storage
        if by_image:
            self._name = "transpose"
            self._hold(storage)
            features = self.homes.sizes[storage]
            cost = features * self.lanes / 8
            self.emit("transpose", bridge.at, self.place(value), cost, features=features, lanes=self.lanes)
            self.arena.give(bridge)
        else:
            self._buffers[storage], self._places[storage] = bridge, Place(bridge.at, self.lanes)

    # --- the parts of layers ----------------------------------------------------------------------------------------

    def emit(self, opcode: str, source: int, target: Place, cost: float, **fields: float) -> None:
        """Add an operator; `cost` is in nanoseconds, and `isa.FIELDS` names the `fields`."""
        self.records.append(isa.record(opcode, source, target.at, target.group, fields))
        self.names.append(self._name)
        self.costs.append(cost + _OPERATOR_NS)

    def emit_csr(self, table: CsrPlace, source: int, target: Place, loop: CsrLoop, bounds: int) -> None:
        """Emit a product of sparse rows and blocks."""
        max_blocks = loop.max_blocks or self.weights.vectors.max_blocks
        full = loop.blocks if loop.line_blocks else loop.blocks / 2
        entries, ends = table.entries * full * _BLOCK_NS, table.rows * table.runs * 5.0 * -(-full // max_blocks)
        fields = {**loop._asdict(), "max_blocks": max_blocks, "bounds": bounds}
        fields |= {name: getattr(table, name) for name in _TABLE_FIELDS}
        self.emit("csr_product", source, target, loop.outer * (entries + ends), **fields)

    def emit_convolution(self, table: ConvPlace, source: int, target: Place, loop: CsrLoop, bounds: int) -> None:
        """Emit the product of a convolution's weights, dense or sparse, and blocks."""
        if isinstance(table.table, CsrPlace):
            self.emit_csr(table.table, source, target, loop, bounds)
            return
        place = table.table
        assert isinstance(place, DensePlace)  # only one image has tables of another kind
        max_blocks = max(TILE_QUADS) if self.weights.vectors.max_blocks >= 12 else 1
        cost = loop.outer * loop.blocks * (place.rows * (place.columns * _DENSE_BLOCK_NS + 1.0))
        cost += place.rows * place.columns * WEIGHT_NS
        self.emit(
            "dense_product", source, target, cost, **place._asdict(), unit=loop.unit, outer=loop.outer,
            source_outer=loop.source_outer, target_row=loop.target_row, target_outer=loop.target_outer, gap=loop.gap,
            blocks=loop.blocks, max_blocks=max_blocks, width=loop.width, bounds=bounds, residual=loop.residual,
        )  # fmt: skip

    def emit_pool(
        self, node: graph.MaxPool | graph.AvgPool, source: int, in_shape: graph.Shape, target: Place,
        out_shape: graph.Shape, *, step: int, bounds: int = isa.UNBOUNDED,
    ) -> None:  # fmt: skip
        """Emit a pool; the source's channels are `step` positions apart."""
        (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w) = node.kernel, node.stride, node.padding
        channels, height, width = in_shape
        cost = prod(out_shape) * self.lanes * prod(node.kernel) * 0.4
        kind = 0 if isinstance(node, graph.MaxPool) else 1 if node.count_include_pad else 2
        self.emit(
            "pool", source, target, cost, channels=channels, height=height, width=width, lanes=self.lanes,
            kernel_h=kernel_h, kernel_w=kernel_w, stride_h=stride_h, stride_w=stride_w, pad_h=pad_h, pad_w=pad_w,
            out_h=out_shape[1], out_w=out_shape[2], kind=kind, bounds=bounds, plane=step,
            out_plane=self.planes.step(out_shape),
        )  # fmt: skip

    def emit_scatter(self, source: int, target: Place, count: int, cost: float) -> None:
        """Move `count` positions from a place with adjacent lanes to one where lanes are spread."""
        self.emit("scatter", source, target, cost, count=count, lanes=self.lanes, gap=target.gap)

    def place(self, value: int) -> Place:
        """Return the place of a value."""
        home = self.homes.of[value]
        place = self._places[home.storage]
        return Place(place.at + home.offset * place.gap, place.gap, place.group)

    def plane(self, value: int) -> int:
        """Return the distance between a value's channels, in positions."""
        shape = self.network.shape(value)
        return self.planes.step(shape) if value else prod(shape[1:])

    def residual(self, layer: Layer) -> int:
        """Return the address of the value that a convolution adds, or `isa.NO_RESIDUAL`."""
        return isa.NO_RESIDUAL if layer.residual is None else self.place(layer.residual).at

    def linear(self, layer: Layer) -> None:
        """Emit a linear layer."""
        raise NotImplementedError

    def convolution(self, layer: Layer) -> None:
        """Emit a convolution and its pool."""
        raise NotImplementedError

    # --- layers -----------------------------------------------------------------------------------------------------

    def _hold(self, storage: int) -> None:
        if storage not in self._places:
            lead = self.planes.lead(self.network.shape(storage)) if storage else 0
            buffer = self.arena.take(lead + self.lanes * aligned(self.homes.sizes[storage]))
            self._buffers[storage] = buffer
            self._places[storage] = Place(buffer.at + lead, self.lanes)

    def _is_padded(self, value: int, shape: graph.Shape) -> bool:
        """Return whether a value's channels are filled up to whole cache lines."""
        return self.flat and value != 0 and self.plane(value) != prod(shape[1:])

    def _pack(self, value: int, shape: graph.Shape, target: Place) -> None:
        """Copy a value without the padding of its channels."""
        count, step = prod(shape[1:]), self.plane(value)
        self._emit_copy(self.place(value).at, target, prod(shape) / 8, (count, shape[0], step, count))

    def _emit_copy(self, source: int, target: Place, cost: float, how: tuple[int, int, int, int]) -> None:
        count, times, source_step, target_step = how
        self.emit(
            "copy", source, target, cost, count=count, times=times, source_step=source_step, target_step=target_step
        )

    def _layer(self, layer: Layer) -> None:
        node = layer.node
        if isinstance(node, graph.Flatten):
            if self.homes.of[layer.output] != self.homes.of[layer.inputs[0]]:
                self._pack(layer.inputs[0], layer.in_shapes[0], self.place(layer.output))
        elif isinstance(node, graph.Conv):
            self.convolution(layer)
        elif isinstance(node, graph.Linear):
            self.linear(layer)
        elif isinstance(node, graph.Concat):
            self._concat(layer)
        else:
            target = self.place(layer.output)
            if target.gap == self.lanes and not (target.group and len(layer.inputs) > 2):
                self._simple(layer, target)
            else:
                self._simple_then_scatter(layer, target)

    def _simple_then_scatter(self, layer: Layer, target: Place) -> None:
        """Make a value in a buffer where lanes are adjacent, and move it to its place."""
        count = self.planes.size(layer.out_shape)
        buffer = self.arena.take(count * self.lanes)
        self._simple(layer, Place(buffer.at, self.lanes))
        self.emit_scatter(buffer.at, target, count, count * self.lanes / 16)
        self.arena.give(buffer)

    def _simple(self, layer: Layer, target: Place) -> None:
        node, lanes, value = layer.node, self.lanes, layer.inputs[0]
        source = self.place(value).at
        count = self.planes.size(layer.out_shape) * lanes
        if isinstance(node, (graph.MaxPool, graph.AvgPool)):
            shape, step = layer.in_shapes[0], self.plane(value)
            self.emit_pool(node, source, shape, target, layer.out_shape, step=step, bounds=self.weights.bounds(layer))
        elif isinstance(node, graph.Reduce):
            channels, height, width = layer.in_shapes[0]
            self.emit(
                "global_pool", source, target, channels * height * width * lanes * 0.3, channels=channels,
                positions=height * width, lanes=lanes, mean=node.function == "mean", plane=self.plane(value),
            )  # fmt: skip
        elif isinstance(node, (graph.Add, Bound, Elementwise)):
            self._elementwise(layer, target, count)
        elif isinstance(node, graph.Softmax):
            self.emit("softmax", source, target, count * 20.0, features=layer.out_shape[0], lanes=lanes)
        else:
            raise NotImplementedError(node.kind)

    def _elementwise(self, layer: Layer, target: Place, count: int) -> None:
        """Emit operators of `count` elements; they work on filled-up channels, and the input's are not filled up."""
        operands, buffer = {value: self.place(value).at for value in layer.inputs}, None
        if 0 in operands and self.flat and count != prod(layer.out_shape):
            buffer = self.arena.take(count)
            positions, step = prod(layer.out_shape[1:]), self.planes.step(layer.out_shape)
            how = positions, layer.out_shape[0], positions, step
            self._emit_copy(operands[0], Place(buffer.at, 1), count / 8, how)
            operands[0] = buffer.at
        addresses = [operands[value] for value in layer.inputs]
        if isinstance(layer.node, Elementwise):
            self._map(layer, layer.node, addresses, target, count)
        else:
            self._sum(layer, addresses, target, count)
        if buffer is not None:
            self.arena.give(buffer)

    def _sum(self, layer: Layer, operands: Sequence[int], target: Place, count: int) -> None:
        """Emit a sum or a clip."""
        if isinstance(layer.node, Bound):
            bounds = self.weights.bounds(layer)
            self.emit("clip", operands[0], target, count / 16, count=count, bounds=bounds)
        total = operands[0]
        for k, at in enumerate(operands[1:], 2):
            bounds = self.weights.bounds(layer) if k == len(operands) else isa.UNBOUNDED
            self.emit("add", total, target, count / 16, second=at, count=count, bounds=bounds)
            total = target.at

    def _map(self, layer: Layer, node: Elementwise, operands: Sequence[int], target: Place, count: int) -> None:
        """Emit the instructions of an elementwise layer."""
        code, at = self.weights.elementwise(layer, node)
        repeats = self.planes.step(layer.out_shape) * self.lanes
        loads: list[int] = []
        for operand in code.operands:
            assert isinstance(operand, int)  # layers have no tensors as operands
            loads += operands[operand], 0 if layer.in_shapes[operand] == layer.out_shape else repeats
        step = code.registers * map_functions.BLOCK
        scratch = self.arena.take(SCRATCHES * step)
        self.emit(
            "map", 0, target, count * len(code.program) / 16, count=count, lanes=self.lanes,
            instructions=len(code.program), program=at.program, loads=self.weights.room.put_words(loads),
            constants=at.constants, constant_count=len(code.constants), scratch=scratch.at, scratches=SCRATCHES,
            scratch_step=step,
        )  # fmt: skip
        self.arena.give(scratch)

    def _concat(self, layer: Layer) -> None:
        target, offset = self.place(layer.output), 0
        for value, shape in zip(layer.inputs, layer.in_shapes, strict=True):
            here = Place(target.at + offset * target.gap, target.gap, target.group)
            floats = self.planes.size(shape)
            offset += floats
            if self.homes.of[value].storage == self.homes.of[layer.output].storage:
                continue
            source, cost = self.place(value).at, floats * self.lanes / 16
            if target.gap != self.lanes:
                self.emit_scatter(source, here, floats, cost)
                continue
            count = prod(shape[1:]) * self.lanes
            steps = self.plane(value) * self.lanes, self.planes.step(shape) * self.lanes
            times = shape[0]
            if steps == (count, count):
                count, times = count * times, 1
            self._emit_copy(source, here, cost, (count, times, *steps))


#: The fields of the opcode ``"csr_product"`` that locate its table.
_TABLE_FIELDS = ("rows", "indptr", "order", "indices", "values", "bias", "runs")


def emit_pad_copy(emitter: Emitter, layer: Layer, source: int) -> tuple[int, ArenaBuffer | None]:
    """Copy a convolution's input if its window requires it; return where it reads, and the copy's buffer."""
    table = emitter.weights.convolution(layer, emitter.flat)
    view = table.window
    if not view.copied:
        return source, None
    channels, height, width = layer.in_shapes[0]
    lanes = emitter.lanes
    buffer = emitter.arena.take(channels * view.plane * lanes)
    variants, phases, rows, cols = view.shape
    emitter.emit(
        "pad_copy", source, Place(buffer.at, lanes), channels * view.plane * lanes / 8, channels=channels,
        height=height, width=width, lanes=lanes, variants=variants, starts=table.starts, stride=view.stride,
        phases=phases, top=view.top, rows=rows, cols=cols, plane=emitter.plane(layer.inputs[0]),
        copy_plane=view.plane, needed=view.needed,
    )  # fmt: skip
    return buffer.at, buffer


def pools_pairs(layer: Layer, pool: graph.MaxPool) -> bool:
    """Return whether a convolution's pool covers its result with 2 x 2 windows that do not overlap."""
    _, height, width = layer.conv_shape
    return (
        pool.kernel == pool.stride == (2, 2)
        and pool.padding == (0, 0)
        and layer.out_shape[1:] == (height // 2, width // 2)
    )
