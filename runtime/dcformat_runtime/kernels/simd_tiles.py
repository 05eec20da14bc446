"""The compiled form of the helpers of `tile_forms`, which says what they do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, product
from typing import Any

from llvmlite import ir
from numba import types

from dcformat_runtime.kernels.simd_products import VectorBounds, add_to, load_bounds, load_lanes, store_lanes, switch
from dcformat_runtime.kernels.simd_widths import (
    BLOCK,
    PLANE_BLOCKS,
    PLANE_KERNELS,
    PLANE_LINES,
    PLANE_STRIDES,
    ROW_BLOCK_POSITIONS,
    ROW_BLOCKS,
    TILES,
)
from dcformat_runtime.kernels.simd_writer import I32, Writer, helper, i64, vector


class Line:
    """The places of the blocks of one line, of whose last block `count` floats are kept."""

    def __init__(self, w: Writer, a: Any, places: list[Any], count: Any) -> None:
        self.w, self.a, self.places, self.count = w, a, places, count
        self.whole = w.b.icmp_signed(">=", count, i64(BLOCK))

    def load(self, acc: list[Any], distance: Any) -> None:
        """Load the floats that lie `distance` after each place."""
        self._add(acc, distance, self.w.b.store)

    def add(self, acc: list[Any], distance: Any) -> None:
        """Add the floats that lie `distance` after each place."""
        self._add(acc, distance, lambda value, total: add_to(self.w, total, value))

    def _add(self, acc: list[Any], distance: Any, put: Callable[[Any, Any], Any]) -> None:
        w, kind = self.w, vector(BLOCK)
        places = [w.b.add(place, distance) for place in self.places]
        for total, place in zip(acc[:-1], places[:-1], strict=True):
            put(w.load(self.a, place, kind), total)
        with w.b.if_else(self.whole, likely=True) as (plain, ragged):
            with plain:
                put(w.load(self.a, places[-1], kind), acc[-1])
            with ragged:
                put(load_lanes(w, self.a, places[-1], self.count), acc[-1])

    def store(self, acc: list[Any], bounds: VectorBounds) -> None:
        """Store the sums, clipped to the bounds."""
        w = self.w
        sums = [w.clip(bounds, w.b.load(total)) for total in acc]
        for value, place in zip(sums[:-1], self.places[:-1], strict=True):
            w.store(value, self.a, place)
        with w.b.if_else(self.whole, likely=True) as (plain, ragged):
            with plain:
                w.store(sums[-1], self.a, self.places[-1])
            with ragged:
                store_lanes(w, sums[-1], self.a, self.places[-1], self.count)


def dense_rows() -> Any:
    """Write `tile_forms.dense_rows`."""

    def write(w: Writer, k: Any, quads: Any, a: Any, mem: Any, tile: Any, bias: Any, how: Any, out: Any) -> None:
        bounds = load_bounds(w, mem, how)

        def variant(blocks: int, quads: int) -> None:
            rows = range(4 * quads)
            acc = [w.variables(blocks, vector(BLOCK)) for _ in rows]
            count = w.b.sub(out.width, w.b.mul(w.plus(out.column, blocks - 1), i64(BLOCK)))
            places = [w.b.mul(out.gap, w.plus(out.column, b)) for b in range(blocks)]
            lines = []
            for r in rows:
                y = w.plus(out.y, tile.apart, r)
                lines.append(Line(w, a, [w.b.add(y, place) for place in places], count))
                for total in acc[r]:
                    w.b.store(w.splat(w.load(mem, w.plus(bias, r)), BLOCK), total)
            with w.b.if_then(w.flag(how.resume)):
                for r in rows:
                    with w.b.if_then(w.b.icmp_signed(">", tile.rows, i64(r))):
                        lines[r].load(acc[r], i64(0))
            with w.b.if_then(w.flag(how.residual_first)):
                for r in rows:
                    with w.b.if_then(w.b.icmp_signed(">", tile.rows, i64(r))):
                        lines[r].add(acc[r], out.residual)
            with w.b.if_else(w.flag(how.exact)) as (then, otherwise):
                with then:
                    _multiply(w, acc, True, a, mem, tile)
                with otherwise:
                    _multiply(w, acc, False, a, mem, tile)
            for r in rows:
                with w.b.if_then(w.b.icmp_signed(">", tile.rows, i64(r))):
                    with w.b.if_then(w.flag(how.residual_last)):
                        lines[r].add(acc[r], out.residual)
                    lines[r].store(acc[r], bounds)

        switch(w, (k, quads), TILES, variant)

    return helper("iiAARiRR", types.void, write)


def _multiply(w: Writer, acc: list[list[Any]], exactly: bool, a: Any, mem: Any, tile: Any) -> None:
    """Add the products of a tile's columns to the sums, which are those of each row."""
    with w.loop(i64(0), tile.columns, 1) as p:
        at = w.b.add(tile.x, w.b.mul(w.word(mem, w.b.add(tile.offsets, p)), tile.unit))
        blocks = [w.load(a, w.plus(at, b * BLOCK), vector(BLOCK)) for b in range(len(acc[0]))]
        first = w.plus(tile.values, p, 4)
        for r, sums in enumerate(acc):
            quad = w.plus(first, tile.quad, r // 4)
            value = w.splat(w.load(mem, w.plus(quad, r % 4)), BLOCK)
            for total, block in zip(sums, blocks, strict=True):
                w.b.store(w.step(exactly, value, block, w.b.load(total)), total)


def row_blocks() -> Any:
    """Write `tile_forms.row_blocks`."""

    def write(w: Writer, positions: Any, blocks: Any, a: Any, mem: Any, tile: Any, exact: Any, to: Any) -> None:
        kind = vector(BLOCK)

        def variant(blocks: int, positions: int) -> None:
            acc = [w.variables(positions, kind) for _ in range(blocks)]
            for b, sums in enumerate(acc):
                bias = w.load(mem, w.plus(tile.bias, b * BLOCK), kind)
                for total in sums:
                    w.b.store(bias, total)

            def run(exactly: bool) -> None:
                with w.loop(i64(0), tile.columns, 1) as p:
                    at = w.b.add(tile.x, w.word(mem, w.b.add(tile.offsets, p)))
                    first = w.plus(tile.values, p, blocks * BLOCK)
                    weights = [w.load(mem, w.plus(first, b * BLOCK), kind) for b in range(blocks)]
                    for j in range(positions):
                        value = w.splat(w.load(a, w.plus(at, j)), BLOCK)
                        for sums, weight in zip(acc, weights, strict=True):
                            w.b.store(w.step(exactly, weight, value, w.b.load(sums[j])), sums[j])

            with w.b.if_else(w.flag(exact)) as (then, otherwise):
                with then:
                    run(True)
                with otherwise:
                    run(False)
            for b, sums in enumerate(acc):
                for j, total in enumerate(sums):
                    w.store(w.b.load(total), a, w.plus(to, (b * BLOCK + j) * BLOCK))

        switch(w, (blocks, positions), list(product(ROW_BLOCKS, ROW_BLOCK_POSITIONS)), variant)

    return helper("iiAARii", types.void, write)


def store_sums() -> Any:
    """Write `tile_forms.store_sums`."""

    def write(w: Writer, a: Any, mem: Any, at: Any, y: Any, count: Any, how: Any) -> None:
        (total,) = w.variables(1, vector(BLOCK))
        w.b.store(w.load(a, at, vector(BLOCK)), total)
        with w.b.if_then(w.flag(how.adds)):
            add_to(w, total, load_lanes(w, a, w.b.add(y, how.residual), count))
        store_lanes(w, w.clip(load_bounds(w, mem, how), w.b.load(total)), a, y, count)

    return helper("AAiiiR", types.void, write)


def plane_rows() -> Any:
    """Write `tile_forms.plane_rows`."""

    def write(
        w: Writer, stride: Any, lines: Any, k: Any, a: Any, mem: Any, taps: Any, bias: Any, how: Any, out: Any
    ) -> None:
        kind, whole = vector(BLOCK), ir.VectorType(I32, BLOCK)
        bounds = load_bounds(w, mem, how)
        even = ir.Constant(whole, list(range(0, 2 * BLOCK, 2)))

        def variant(stride: int, lines: int, blocks: int) -> None:
            acc = [w.variables(blocks, kind) for _ in range(lines)]
            for total in chain.from_iterable(acc):
                w.b.store(w.splat(bias, BLOCK), total)
            lane = ir.Constant(whole, list(range(0, stride * BLOCK, stride)))
            first = w.b.mul(out.column, i64(BLOCK))
            end = w.splat(w.b.trunc(taps.columns, I32), BLOCK)

            def read(at: Any, b: int) -> Any:
                parts = [w.load(a, w.plus(at, (stride * b + part) * BLOCK), kind) for part in range(stride)]
                return parts[0] if stride == 1 else w.b.shuffle_vector(*parts, even)

            def run(exactly: bool) -> None:
                with w.loop(taps.start, taps.end, 1) as p:
                    at = w.b.add(taps.x, w.word(mem, w.b.add(taps.offsets, p)))
                    value = w.splat(w.load(mem, w.b.add(taps.values, p)), BLOCK)
                    column = w.b.add(w.b.mul(first, i64(stride)), w.word(mem, w.b.add(taps.shifts, p)))
                    for b in range(blocks):
                        begin = w.b.trunc(w.plus(column, stride * b * BLOCK), I32)
                        # A negative column is a large number.
                        inside = w.b.icmp_unsigned("<", w.b.add(lane, w.splat(begin, BLOCK)), end)
                        for line, sums in enumerate(acc):
                            block = read(w.plus(at, taps.pitch, line), b)
                            block = w.b.select(inside, block, ir.Constant(kind, None))
                            w.b.store(w.step(exactly, value, block, w.b.load(sums[b])), sums[b])

            with w.b.if_else(w.flag(how.exact)) as (then, otherwise):
                with then:
                    run(True)
                with otherwise:
                    run(False)
            count = w.b.sub(out.width, w.b.mul(w.plus(out.column, blocks - 1), i64(BLOCK)))
            for line, sums in enumerate(acc):
                begin = w.b.add(w.plus(out.y, out.width, line), first)
                kept = Line(w, a, [w.plus(begin, b * BLOCK) for b in range(blocks)], count)
                with w.b.if_then(w.flag(how.residual_last)):
                    kept.add(sums, out.residual)
                kept.store(sums, bounds)

        switch(w, (stride, lines, k), list(product(PLANE_STRIDES, PLANE_LINES, PLANE_BLOCKS)), variant)

    return helper("iiiAARfRR", types.void, write)


def plane_windows() -> Any:
    """Write `tile_forms.plane_windows`."""

    def write(
        w: Writer, kernel: Any, stride: Any, lines: Any, a: Any, mem: Any, windows: Any, bias: Any, how: Any, out: Any
    ) -> None:
        bounds = load_bounds(w, mem, how)
        first = w.b.mul(out.column, i64(BLOCK))
        count = w.b.sub(out.width, first)

        def variant(kernel: int, stride: int, lines: int) -> None:
            acc = w.variables(lines, vector(BLOCK))
            for total in acc:
                w.b.store(w.splat(bias, BLOCK), total)
            weights = [w.splat(w.load(mem, w.plus(windows.values, tap)), BLOCK) for tap in range(kernel * kernel)]
            inside = _inside(w, windows, kernel, stride)

            def run(exactly: bool) -> None:
                for y in range(stride * (lines - 1) + kernel):
                    taps = _taps(w, a, windows, y, kernel, stride)
                    taps = [
                        w.b.select(mask, tap, ir.Constant(tap.type, None))
                        for mask, tap in zip(inside, taps, strict=True)
                    ]
                    for line, total in enumerate(acc):
                        row = y - stride * line
                        if 0 <= row < kernel:
                            for value, tap in zip(weights[row * kernel :], taps, strict=False):
                                w.b.store(w.step(exactly, value, tap, w.b.load(total)), total)

            with w.b.if_else(w.flag(how.exact)) as (then, otherwise):
                with then:
                    run(True)
                with otherwise:
                    run(False)
            for line, total in enumerate(acc):
                kept = Line(w, a, [w.b.add(w.plus(out.y, out.width, line), first)], count)
                with w.b.if_then(w.flag(how.residual_last)):
                    kept.add([total], out.residual)
                kept.store([total], bounds)

        switch(w, (kernel, stride, lines), list(product(PLANE_KERNELS, PLANE_STRIDES, PLANE_LINES)), variant)

    return helper("iiiAARfRR", types.void, write)


def _inside(w: Writer, windows: Any, kernel: int, stride: int) -> list[Any]:
    """Return for each column of a window which of the outputs read a column of the image."""
    lane = ir.Constant(ir.VectorType(I32, BLOCK), list(range(0, stride * BLOCK, stride)))
    end = w.splat(w.b.trunc(windows.columns, I32), BLOCK)
    begins = [w.splat(w.b.trunc(w.plus(windows.left, x), I32), BLOCK) for x in range(kernel)]
    # A negative column is a large number.
    return [w.b.icmp_unsigned("<", w.b.add(lane, begin), end) for begin in begins]


def _taps(w: Writer, a: Any, windows: Any, y: int, kernel: int, stride: int) -> list[Any]:
    """Load what each column of the windows' line `y` reads; a line outside the image is one of zeros."""
    number = w.plus(windows.top, y)
    line = w.b.add(w.b.add(windows.x, w.b.mul(number, windows.columns)), windows.left)
    # A negative number is a large one.
    at = w.b.select(w.b.icmp_unsigned("<", number, windows.height), line, windows.zeros)
    kind = vector(BLOCK)
    if stride == 1:
        return [w.load(a, w.plus(at, x), kind) for x in range(kernel)]
    taps = []
    for x in range(0, kernel, 2):
        both = [w.load(a, w.plus(at, x + part * BLOCK), kind) for part in range(2)]
        for odd in range(min(2, kernel - x)):
            lanes = ir.Constant(ir.VectorType(I32, BLOCK), list(range(odd, 2 * BLOCK, 2)))
            taps.append(w.b.shuffle_vector(*both, lanes))
    return taps
