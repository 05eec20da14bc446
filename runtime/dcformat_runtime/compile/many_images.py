"""Emits the products of many images: at each position, every image is a lane."""

from __future__ import annotations

from math import prod

from dcformat.graph import MaxPool
from dcformat_runtime.compile.emitter import ENDLESS, CsrLoop, Emitter, Place, emit_pad_copy, pools_pairs
from dcformat_runtime.compile.tables import Window
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF
from dcformat_runtime.network import Layer

#: The size of the first-level cache in bytes.
_FIRST_LEVEL = 32 << 10


class ManyImages(Emitter):
    """Makes operators for 8 to 64 images in lanes, and convolutions for 16."""

    def linear(self, layer: Layer) -> None:
        """Emit a linear layer: a row's blocks are those of the lanes."""
        lanes, target = self.lanes, self.place(layer.output)
        if lanes < BLOCK:
            loop = CsrLoop(lanes, target.gap, HALF, 1, 0, HALF, step=HALF)
        else:
            loop = CsrLoop(lanes, target.gap, BLOCK, lanes // BLOCK, ENDLESS, ENDLESS)
        self.emit_csr(
            self.weights.linear(layer), self.place(layer.inputs[0]).at, target, loop, self.weights.bounds(layer)
        )

    def convolution(self, layer: Layer) -> None:
        """Emit a convolution over sixteen images: a position is a block."""
        target = self.place(layer.output)
        if layer.residual is None or target.gap == 16:
            self._convolution(layer, target)
            return
        # The residual's lanes are adjacent, so those of the result must be too.
        count = prod(layer.out_shape)
        buffer = self.arena.take(count * 16)
        self._convolution(layer, Place(buffer.at, 16))
        self.emit_scatter(buffer.at, target, count, count)
        self.arena.give(buffer)

    def _convolution(self, layer: Layer, target: Place) -> None:
        table = self.weights.convolution(layer, False)
        view, pool = table.window, layer.pool
        source, copy = emit_pad_copy(self, layer, self.place(layer.inputs[0]).at)
        _, height, width = layer.conv_shape
        across = BLOCK * view.shape[3]
        out_h, out_w = layer.out_shape[1:]
        if pool is None or pools_pairs(layer, pool):
            loop = CsrLoop(
                BLOCK, out_h * out_w * target.gap, target.gap, out_w, ENDLESS, ENDLESS, outer=out_h,
                source_outer=across, target_outer=out_w * target.gap,
            )  # fmt: skip
            if pool is not None:
                max_blocks = _pooled_blocks(layer, view, self.weights.vectors.max_blocks)
                loop = loop._replace(blocks=4 * out_w, source_outer=2 * across, step=8, pool=1, max_blocks=max_blocks)
            self.emit_convolution(
                table, source, target, loop._replace(residual=self.residual(layer)), self.weights.bounds(layer)
            )
        else:
            buffer = self.arena.take(prod(layer.conv_shape) * BLOCK)
            loop = CsrLoop(
                BLOCK, height * width * BLOCK, BLOCK, width, ENDLESS, ENDLESS, outer=height, source_outer=across,
                target_outer=BLOCK * width,
            )  # fmt: skip
            self.emit_convolution(table, source, Place(buffer.at, 16), loop, self.weights.bounds(layer))
            self._pool_beside(pool, layer, buffer.at, target)
            self.arena.give(buffer)
        if copy is not None:
            self.arena.give(copy)

    def _pool_beside(self, pool: MaxPool, layer: Layer, source: int, target: Place) -> None:
        """Pool sixteen images into their place, or through a buffer if lanes are not adjacent there."""
        step = prod(layer.conv_shape[1:])
        if target.gap == BLOCK:
            self.emit_pool(pool, source, layer.conv_shape, target, layer.out_shape, step=step)
            return
        count = prod(layer.out_shape)
        buffer = self.arena.take(count * BLOCK)
        self.emit_pool(pool, source, layer.conv_shape, Place(buffer.at, BLOCK), layer.out_shape, step=step)
        self.emit_scatter(buffer.at, target, count, count)
        self.arena.give(buffer)


def _pooled_blocks(layer: Layer, view: Window, max_blocks: int) -> int:
    """Return the best number of blocks of two lines to pool at a time: few, or as many as registers hold.

    If the operands of twelve columns do not fit in the first-level cache, four columns read less for each sum.
    """
    variants, phases, rows, cols = view.shape
    _, height, width = layer.conv_shape
    positions = (rows - height + 2) * (cols - width + min(width, 12))
    max_blocks = 24 if max_blocks >= 12 else max_blocks
    return (
        min(8, max_blocks) if 64 * layer.in_shapes[0][0] * variants * phases * positions > _FIRST_LEVEL else max_blocks
    )
