"""Emits the products of one image, whose positions lie side by side."""

from __future__ import annotations

from math import prod

from dcformat.graph import Conv
from dcformat_runtime import isa
from dcformat_runtime.compile.arena import ArenaBuffer, Planes
from dcformat_runtime.compile.choices import ROW_BLOCK_NS, column_ns, has_row_blocks, is_depthwise, window_kernel
from dcformat_runtime.compile.constants import ConvPlace, CsrPlace, QuadPlace, RowBlockPlace, ShiftedPlace, aligned
from dcformat_runtime.compile.emitter import (
    ENDLESS,
    SCRATCHES,
    WEIGHT_NS,
    CsrLoop,
    Emitter,
    Place,
    emit_pad_copy,
    pools_pairs,
)
from dcformat_runtime.compile.shifts import quarters, shift_copies
from dcformat_runtime.compile.tiling import is_split
from dcformat_runtime.compile.weights import VectorTables
from dcformat_runtime.kernels.simd_widths import (
    BLOCK,
    HALF,
    HALF_POOLS,
    PLANE_BLOCKS,
    QUAD_WIDTHS,
    ROW_BLOCK_POSITIONS,
    ZEROS,
)
from dcformat_runtime.network import Layer

#: Estimated nanoseconds of an entry of a product of quads of sparse rows, and of each block of 16 multiply-adds.
_QUAD_ENTRY_NS, _QUAD_BLOCK_NS = 0.1 + WEIGHT_NS, 0.2
#: The same for a convolution that shifts its sums.
_SHIFTED_ENTRY_NS, _SHIFTED_BLOCK_NS = 0.2 + 2 * WEIGHT_NS, 0.22


class OneImage(Emitter):
    """Makes operators that treat each image by itself."""

    def linear(self, layer: Layer) -> None:
        """Emit sparse gathers, or sums of the dense columns of nonzero inputs."""
        value = layer.inputs[0]
        source, target = self.place(value).at, self.place(layer.output)
        if has_row_blocks(layer, True):
            self._row_blocks(layer, self.weights.row_blocks(layer, self.orders.get(value)), source, target)
            return
        tables = self.weights.vector(layer, self.orders.get(value))
        sell = tables.sell
        order = sell.order_at
        if self._may_reorder(layer) and not target.group:
            self.orders[layer.output] = sell.order
            order = 0
        scratch = self.arena.take(BLOCK * sell.groups)
        fields: dict[str, float] = {
            "groups": sell.groups, "indptr": sell.indptr, "indices": sell.indices, "values": sell.values,
            "bias": sell.bias, "bounds": self.weights.bounds(layer), "wide": sell.wide, "rows": sell.rows,
            "order": order, "scratch": scratch.at,
        }  # fmt: skip
        if tables.permuted is not None:
            self.emit("permute", source, target, tables.cost, **fields, **tables.permuted._asdict())
        elif tables.columns is not None and not order:
            self._columns(layer, tables, source, target, fields)
        else:
            self.emit("sell16_product", source, target, tables.cost, **fields)
        self.arena.give(scratch)

    def _columns(
        self, layer: Layer, tables: VectorTables, source: int, target: Place, instead: dict[str, float]
    ) -> None:
        """Emit a sum of dense columns; `instead`: the fields of the gather that runs for too many nonzero inputs."""
        assert tables.columns is not None
        features, groups = aligned(layer.in_shapes[0][0]), tables.sell.groups
        found = self.arena.take(features + BLOCK)
        record = isa.record("sell16_product", source, target.at, target.group, instead)
        self.emit(
            "csc_product", source, target, tables.cost, features=features, columns=tables.columns, blocks=groups,
            bias=tables.sell.bias, bounds=self.weights.bounds(layer), found=found.at,
            limit=int(tables.cost / (groups * column_ns(64 * features * groups))),
            instead=self.weights.room.put_words(record),
        )  # fmt: skip
        self.arena.give(found)

    def _row_blocks(self, layer: Layer, table: RowBlockPlace, source: int, target: Place) -> None:
        """Emit a dense product of few positions."""
        shape, max_blocks = layer.conv_shape or layer.out_shape, self.weights.vectors.max_blocks
        positions, step = prod(shape[1:]), table.row_blocks * BLOCK * BLOCK
        scratch = self.arena.take(SCRATCHES * step)
        # Narrower vectors have registers for fewer sums.
        max_positions = max(ROW_BLOCK_POSITIONS) if max_blocks >= 12 else 6 if max_blocks >= 6 else 2
        self.emit(
            "row_block_product", source, target,
            table.rows * table.columns * (positions * ROW_BLOCK_NS / BLOCK + WEIGHT_NS),
            **table._asdict(), target_row=self.planes.step(shape), positions=positions, max_positions=max_positions,
            bounds=self.weights.bounds(layer), residual=self.residual(layer), scratch=scratch.at, scratches=SCRATCHES,
            scratch_step=step,
        )  # fmt: skip
        self.arena.give(scratch)

    def _may_reorder(self, layer: Layer) -> bool:
        """Return whether a layer's output may lie in any order, because only linear layers read it."""
        return layer.output in self.homes.linear and not self.weights.exact

    def convolution(self, layer: Layer) -> None:
        """Emit a convolution: the positions of an output channel form one row."""
        if is_depthwise(layer):
            self._depthwise(layer)
            return
        table = self.weights.convolution(layer, True)
        source, copy = emit_pad_copy(self, layer, self.place(layer.inputs[0]).at)
        target, pool = self.place(layer.output), layer.pool
        channels, step = layer.conv_shape[0], self.planes.step(layer.conv_shape)
        pooled = self._pooled_halves(layer, table)
        buffer = None if pool is None or pooled else self.arena.take(channels * step)
        place = target if buffer is None else Place(buffer.at, 1)
        if isinstance(table.table, ShiftedPlace):
            self._shifted(layer, table.table, place)
        elif isinstance(table.table, RowBlockPlace):
            self._row_blocks(layer, table.table, source, place)
        else:
            self._blocks(layer, table, source, place, pooled)
        if pool is not None and buffer is not None:
            self.emit_pool(pool, buffer.at, layer.conv_shape, target, layer.out_shape, step=step)
            self.arena.give(buffer)
        if copy is not None:
            self.arena.give(copy)

    def _blocks(self, layer: Layer, table: ConvPlace, source: int, place: Place, pooled: int) -> None:
        """Emit a product of blocks of positions."""
        _, height, width = layer.conv_shape
        step = self.planes.step(layer.conv_shape)
        if table.window.half:
            loop = _half_loop(layer, table, pooled, self.planes)
        else:
            view = table.window
            lines = height if view.width == width else 1
            blocks = lines * view.line_blocks
            # A single line may be filled up, because its plane is.
            kept = view.width if lines > 1 else step
            loop = CsrLoop(1, step, 16, blocks, view.line_blocks, kept, max_blocks=table.max_blocks)
        loop = loop._replace(residual=self.residual(layer))
        bounds = self.weights.bounds(layer)
        if isinstance(table.table, QuadPlace):
            self._quads(table.table, source, place, loop, bounds)
        else:
            self.emit_convolution(table, source, place, loop, bounds)

    def _quads(self, table: QuadPlace, source: int, target: Place, loop: CsrLoop, bounds: int) -> None:
        """Emit a product of quads of sparse rows and blocks."""
        cost = table.entries * (_QUAD_ENTRY_NS + loop.blocks * _QUAD_BLOCK_NS)
        self.emit(
            "quad_product", source, target, cost, rows=table.rows, ends=table.ends, starts=table.starts,
            indices=table.indices, values=table.values, bias=table.bias, target_row=loop.target_row,
            blocks=loop.blocks, max_blocks=max(QUAD_WIDTHS), line_blocks=loop.line_blocks, width=loop.width,
            bounds=bounds, runs=table.runs, residual=loop.residual,
        )  # fmt: skip

    def _shifted(self, layer: Layer, table: ShiftedPlace, place: Place) -> None:
        """Emit a product that shifts sums."""
        buffer = self._split(layer) if is_split(layer) else None
        source = self._cleared(layer) if buffer is None else buffer.at
        blocks = -(-prod(layer.conv_shape[1:]) // BLOCK)
        tiles = -(-blocks // table.max_blocks)
        cost = table.entries * (_SHIFTED_ENTRY_NS + blocks * _SHIFTED_BLOCK_NS) + table.rows * table.runs * tiles * 10.0
        fields = {name: getattr(table, name) for name in ShiftedPlace._fields if name != "entries"}
        self.emit(
            "shifted_product", source, place, cost, **fields, target_row=self.planes.step(layer.conv_shape),
            blocks=blocks, bounds=self.weights.bounds(layer), residual=self.residual(layer),
        )  # fmt: skip
        if buffer is not None:
            self.arena.give(buffer)

    def _cleared(self, layer: Layer) -> int:
        """Clear the lines between the channels of a layer's input, and copy it; return where it begins."""
        shape, source = layer.in_shapes[0], self.place(layer.inputs[0]).at
        step, lead = self.planes.step(shape), self.planes.lead(shape)
        between = step - prod(shape[1:])
        self.emit("clear", 0, Place(source - between, 1), shape[0], count=between, times=shape[0] + 1, step=step)
        blocks = (lead + self.planes.size(shape)) // BLOCK
        for phase, distance in shift_copies(shape, self.planes):
            self.emit("block_copy", source - lead + phase, Place(source - lead + distance, 1), blocks, blocks=blocks)
        return source - lead

    def _split(self, layer: Layer) -> ArenaBuffer:
        """Split each channel of a layer's input into quarters."""
        (channels, height, width), (step, lead) = layer.in_shapes[0], quarters(layer)
        buffer = self.arena.take(channels * 4 * step)
        self.emit(
            "split", self.place(layer.inputs[0]).at, Place(buffer.at, 1), channels * height * width / 8,
            channels=channels, height=height, width=width, plane=self.plane(layer.inputs[0]), quarter=step, lead=lead,
        )  # fmt: skip
        return buffer

    def _depthwise(self, layer: Layer) -> None:
        """Emit a depthwise convolution, which copies each channel just before it multiplies it."""
        table, target, value = self.weights.depthwise(layer), self.place(layer.output), layer.inputs[0]
        assert isinstance(layer.node, Conv) and layer.matrix is not None
        (stride_h, stride_w), (top, left) = layer.node.stride, layer.node.padding
        channels, height, columns = layer.in_shapes[0]
        _, lines, width = layer.conv_shape
        rows = (lines - 1) * stride_h + (layer.matrix.shape[2] - 1) * layer.node.dilation[0] + 1
        kernel = window_kernel(layer)
        # Entries may read to the left of the first line and to the right of the last.
        lead, scratch_step = aligned(left), ZEROS
        if not kernel:
            scratch_step = 2 * lead + aligned(max(rows, top + height) * columns + 16 * max(PLANE_BLOCKS) * stride_w)
        scratch = self.arena.take(SCRATCHES * scratch_step)
        wide = self.weights.vectors.max_blocks >= 12
        cost = channels * rows * columns / 16 + table.entries * lines * -(-width // 16) * 0.4 * stride_w
        self.emit(
            "depthwise_product", self.place(value).at, target, cost, channels=channels,
            channel_rows=layer.matrix.rows // channels, indptr=table.indptr, offsets=table.offsets,
            shifts=table.shifts, values=table.values, bias=table.bias, plane=self.plane(value), height=height,
            columns=columns, rows=rows, top=top, left=left, kernel=kernel,
            scratch=scratch.at + (0 if kernel else lead), scratches=SCRATCHES,
            scratch_step=scratch_step, stride_h=stride_h, stride_w=stride_w, lines=lines, width=width,
            target_row=self.planes.step(layer.conv_shape), max_blocks=max(PLANE_BLOCKS) if wide else 1,
            bounds=self.weights.bounds(layer), residual=self.residual(layer),
        )  # fmt: skip
        self.arena.give(scratch)

    def _pooled_halves(self, layer: Layer, table: ConvPlace) -> int:
        """Return the number of half blocks in a convolution's line if they are pooled in registers, otherwise 0."""
        view, pool = table.window, layer.pool
        _, height, width = layer.conv_shape
        line = width // HALF
        widths, step = HALF_POOLS.get(line, ((ENDLESS,), 0))
        if pool is None or view.half != step or width % 8 or not pools_pairs(layer, pool):
            return 0
        if not isinstance(table.table, CsrPlace) or table.table.runs > 1:
            return 0
        fits = height * line % min(widths) == 0 and min(widths) <= 2 * self.weights.vectors.max_blocks
        return line if fits else 0


def _half_loop(layer: Layer, table: ConvPlace, pooled: int, planes: Planes) -> CsrLoop:
    """Return the loop over half blocks: one for each line, or over all lines packed closely."""
    view = table.window
    _, height, width = layer.conv_shape
    positions = height * width
    gap, blocks = (width, height) if view.half == BLOCK else (HALF, -(-positions // HALF))
    row = planes.step(layer.conv_shape)
    if pooled:
        row, gap = planes.step(layer.out_shape), width // 2
    return CsrLoop(1, row, gap, blocks, 0, min(gap, positions), step=view.half, pool=pooled)
