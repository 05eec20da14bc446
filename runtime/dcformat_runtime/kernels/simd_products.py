"""The compiled form of the helpers that multiply weights by values; `simd` says what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import config

from dcformat.jit.compiler.ir_writer import pointer_name
from dcformat_runtime.kernels.simd_widths import (
    BLOCK,
    HALF,
    HALF_CASES,
    POOL_WIDTHS,
    WIDTHS,
)
from dcformat_runtime.kernels.simd_writer import I32, Writer, helper, i64, vector


def _unrolled(k: int, n: int) -> int:
    """Return how many sets of accumulators hide the latency of a multiply-add for few vectors of `n` floats."""
    least = 64 // n
    return 4 if k == 1 else 2 if k < least else 1


class Operands(NamedTuple):
    """The vectors of `n` floats that entries multiply; they are `step` floats apart.

    `across` is the distance from the first half of the vectors to the second, if they are not adjacent.
    """

    n: int
    step: int
    across: Any = None


def _entry(w: Writer, sums: list[Any], operands: Operands, a: Any, mem: Any, row: Any, p: Any, exactly: bool) -> None:
    """Add the products of entry p of a row to the sums, one for each operand."""
    n, step, across = operands
    at = w.b.add(row.x, w.b.mul(w.word(mem, w.b.add(row.indices, p)), row.unit))
    value = w.splat(w.load(mem, w.b.add(row.values, p)), n)
    lines = [at] if across is None else [at, w.b.add(at, across)]
    per_line = len(sums) // len(lines)
    for b, total in enumerate(sums):
        product = w.load(a, w.plus(lines[b // per_line], b % per_line * step), vector(n))
        w.b.store(w.step(exactly, value, product, w.b.load(total)), total)


def _accumulate(w: Writer, acc: list[Any], operands: Operands, exact: Any, a: Any, mem: Any, row: Any) -> None:
    """Add the products of a row's entries to the accumulators, one for each operand."""
    with w.b.if_else(exact) as (then, otherwise):
        with then, w.loop(row.start, row.end, 1) as p:
            _entry(w, acc, operands, a, mem, row, p, True)
        with otherwise:
            fused(w, acc, operands, a, mem, row)


def fused(w: Writer, acc: list[Any], operands: Operands, a: Any, mem: Any, row: Any) -> None:
    """Do what `_accumulate` does, with fused multiply-adds in any order."""
    kind, more = vector(operands.n), _unrolled(len(acc), operands.n)
    sums = [acc] + [w.variables(len(acc), kind) for _ in range(more - 1)]
    for spare in sums[1:]:
        for total in spare:
            w.b.store(ir.Constant(kind, None), total)
    length = w.b.sub(row.end, row.start)
    whole = w.b.sub(row.end, w.b.srem(length, i64(more))) if more > 1 else row.end
    with w.loop(row.start, whole, more) as p:
        for u in range(more):
            _entry(w, sums[u], operands, a, mem, row, w.plus(p, u), False)
    if more > 1:
        with w.loop(whole, row.end, 1) as p:
            _entry(w, acc, operands, a, mem, row, p, False)
    for spare in sums[1:]:
        for total, extra in zip(acc, spare, strict=True):
            add_to(w, total, w.b.load(extra))


def switch(w: Writer, keys: tuple[Any, ...], cases: Sequence[tuple[int, ...]], write: Callable[..., None]) -> None:
    """Write one switch for each key; at run time they select the code of ``write(*case)`` for the case of the keys."""
    end = w.b.append_basic_block("done")
    choice = w.b.switch(keys[0], end)
    for first in dict.fromkeys(case[0] for case in cases):
        block = w.b.append_basic_block(f"case{first}")
        choice.add_case(i64(first), block)
        w.b.position_at_end(block)
        if len(keys) == 1:
            write(first)
        else:
            switch(w, keys[1:], [case[1:] for case in cases if case[0] == first], partial(write, first))
        w.b.branch(end)
    w.b.position_at_end(end)


@contextmanager
def _each(w: Writer, mem: Any, table: Any, y: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Loop over the rows of a table; yield the entries of each, its bias, and the place of its sums."""
    with w.loop(table.first, table.stop, 1) as r:
        at = w.b.add(table.indptr, r)
        row = SimpleNamespace(**vars(table), start=w.word(mem, at), end=w.word(mem, w.plus(at, 1)))
        place = w.b.add(y, w.b.mul(w.word(mem, w.b.add(table.order, r)), table.apart))
        yield row, w.load(mem, w.b.add(table.bias, r)), place


class BlockAddresses(NamedTuple):
    """The places of a row's blocks, and how many floats of each are kept; None: all of them, or others follow."""

    at: list[Any]
    counts: list[Any] | None

    def load(self, w: Writer, a: Any, b: int, distance: Any = None) -> Any:
        """Load the floats that lie `distance` after block b."""
        at = self.at[b] if distance is None else w.b.add(self.at[b], distance)
        return w.load(a, at, vector(BLOCK)) if self.counts is None else load_lanes(w, a, at, self.counts[b])

    def store(self, w: Writer, a: Any, b: int, value: Any) -> None:
        """Store block b."""
        if self.counts is None:
            w.store(value, a, self.at[b])
        else:
            store_lanes(w, value, a, self.at[b], self.counts[b])


def visit(w: Writer, blocks: int, out: Any, run: Callable[[Callable[[Any], BlockAddresses]], None]) -> None:
    """Write ``run(places)`` for each way in which blocks may lie; ``places(y)`` are those of the row that begins at y.

    A line's last block may have more floats than are kept. If further lines follow, it is stored as a whole, because
    the next line overwrites what it writes beyond its own; the last line of all is stored through a mask. Most blocks
    are adjacent and need neither; for those, the code is as short as can be.
    """
    last = w.plus(out.column, blocks)
    one_line = w.b.icmp_signed("<=", last, out.line_blocks)
    whole = w.b.and_(one_line, w.b.icmp_signed("<=", w.b.mul(last, i64(BLOCK)), out.width))
    adjacent = w.b.and_(whole, w.b.icmp_signed("==", out.gap, i64(BLOCK)))
    first = w.b.mul(out.column, i64(BLOCK))

    def plain(y: Any) -> BlockAddresses:
        begin = w.b.add(y, first)
        return BlockAddresses([w.plus(begin, b * BLOCK) for b in range(blocks)], None)

    with w.b.if_else(adjacent, likely=True) as (then, otherwise):
        with then:
            run(plain)
        with otherwise:
            offsets, counts = zip(*_lines(w, blocks, out), strict=True)
            with w.b.if_else(w.flag(out.final)) as (ends, goes_on):
                with ends:
                    run(lambda y: BlockAddresses([w.b.add(y, offset) for offset in offsets], list(counts)))
                with goes_on:
                    run(lambda y: BlockAddresses([w.b.add(y, offset) for offset in offsets], None))


def rows_full() -> Any:
    """Write `simd.rows`."""

    def write(w: Writer, k: Any, a: Any, mem: Any, table: Any, how: Any, out: Any) -> None:
        bounds = load_bounds(w, mem, how)

        def variant(blocks: int) -> None:
            acc = w.variables(blocks, vector(BLOCK))

            def run(places: Callable[[Any], BlockAddresses]) -> None:
                with _each(w, mem, table, out.y) as (row, bias, y):
                    one_row(acc, row, bias, places(y))

            visit(w, blocks, out, run)

        def one_row(acc: list[Any], row: Any, bias: Any, places: BlockAddresses) -> None:
            def add_residual() -> None:
                for b, total in enumerate(acc):
                    add_to(w, total, places.load(w, a, b, out.residual))

            with w.b.if_else(w.flag(how.resume)) as (then, otherwise):
                with then:
                    for b, total in enumerate(acc):
                        w.b.store(places.load(w, a, b), total)
                with otherwise:
                    for total in acc:
                        w.b.store(w.splat(bias, BLOCK), total)
            with w.b.if_then(w.flag(how.residual_first)):
                add_residual()
            _accumulate(w, acc, Operands(BLOCK, BLOCK), w.flag(how.exact), a, mem, row)
            with w.b.if_then(w.flag(how.residual_last)):
                add_residual()
            for b, total in enumerate(acc):
                places.store(w, a, b, w.clip(bounds, w.b.load(total)))

        switch(w, (k,), [(width,) for width in WIDTHS], variant)

    return helper("iAARRR", types.void, write)


#: The least and the largest result.
VectorBounds = tuple[Any, Any]


def load_bounds(w: Writer, mem: Any, how: Any) -> VectorBounds:
    """Load the bounds of results, once before all loops."""
    return w.load(mem, how.bounds), w.load(mem, w.plus(how.bounds, 1))


def add_to(w: Writer, total: Any, value: Any) -> None:
    """Add a value to a variable."""
    w.b.store(w.b.fadd(w.b.load(total), value), total)


def _lines(w: Writer, blocks: int, out: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the offset of each block from the row's first line, and the number of its floats that are kept."""
    line, column = i64(0), out.column
    for _ in range(blocks):
        left = w.b.sub(out.width, w.b.mul(column, i64(BLOCK)))
        count = w.b.select(w.b.icmp_signed("<", left, i64(BLOCK)), left, i64(BLOCK))
        yield w.b.add(line, w.b.mul(column, out.gap)), count
        column = w.plus(column, 1)
        ended = w.b.icmp_signed("==", column, out.line_blocks)
        column = w.b.select(ended, i64(0), column)
        line = w.b.select(ended, w.b.add(line, out.width), line)


def load_lanes(w: Writer, array: Any, index: Any, count: Any, n: int = BLOCK) -> Any:
    """Load the first `count` of `n` floats; the others are zeros."""
    pointer, mask = _masked(w, array, index, count, n)
    kind = vector(n)
    name = f"llvm.masked.load.v{n}f32.{pointer_name(pointer, f'v{n}f32')}"
    return w.call(name, kind, pointer, I32(4), mask, ir.Constant(kind, None))


def store_lanes(w: Writer, value: Any, array: Any, index: Any, count: Any) -> None:
    """Store the first `count` floats of a vector."""
    n = value.type.count
    pointer, mask = _masked(w, array, index, count, n)
    name = f"llvm.masked.store.v{n}f32.{pointer_name(pointer, f'v{n}f32')}"
    w.call(name, ir.VoidType(), value, pointer, I32(4), mask)


def _masked(w: Writer, array: Any, index: Any, count: Any, n: int) -> tuple[Any, Any]:
    if config.BOUNDSCHECK:
        w.at(array, w.b.sub(w.b.add(index, count), i64(1)), 1)
    pointer = w.b.bitcast(w.b.gep(array.data, [index]), vector(n).as_pointer())
    return pointer, w.lanes(count, n)


def rows_halves() -> Any:
    """Write `simd.rows_halves`."""

    def write(w: Writer, halves: Any, a: Any, mem: Any, table: Any, how: Any, out: Any) -> None:
        kind, bounds = vector(HALF), load_bounds(w, mem, how)

        def variant(per_line: int, apart: int, width: int) -> None:
            acc = w.variables(width, kind)
            with _each(w, mem, table, out.y) as (row, bias, y):
                one_row(acc, per_line, apart, row, bias, y)

        def one_row(acc: list[Any], per_line: int, apart: int, row: Any, bias: Any, y: Any) -> None:
            places = [w.b.add(y, w.b.mul(out.gap, i64(b))) for b in range(len(acc))]
            if per_line:
                for total in acc:
                    w.b.store(w.splat(bias, HALF), total)
                _accumulate(w, acc, Operands(HALF, apart), w.flag(how.exact), a, mem, row)
                _store_pooled(w, [w.b.load(total) for total in acc], per_line, bounds, a, y, out.gap)
                return
            with w.b.if_else(w.flag(how.resume)) as (then, otherwise):
                with then:
                    for total, place in zip(acc, places, strict=True):
                        w.b.store(load_lanes(w, a, place, out.width, HALF), total)
                with otherwise:
                    for total in acc:
                        w.b.store(w.splat(bias, HALF), total)

            def add_residual() -> None:
                for total, place in zip(acc, places, strict=True):
                    add_to(w, total, load_lanes(w, a, w.b.add(place, out.residual), out.width, HALF))

            with w.b.if_then(w.flag(how.residual_first)):
                add_residual()
            _accumulate(w, acc, Operands(HALF, apart), w.flag(how.exact), a, mem, row)
            with w.b.if_then(w.flag(how.residual_last)):
                add_residual()
            sums = [w.clip(bounds, w.b.load(total)) for total in acc]
            with w.b.if_else(w.b.icmp_signed("==", out.width, i64(HALF)), likely=True) as (then, otherwise):
                with then:
                    for value, place in zip(sums, places, strict=True):
                        w.store(value, a, place)
                with otherwise:
                    for value, place in zip(sums, places, strict=True):
                        store_lanes(w, value, a, place, out.width)

        switch(w, (halves.pool, halves.step, halves.blocks), HALF_CASES, variant)

    return helper("RAARRR", types.void, write)


def _store_pooled(w: Writer, acc: list[Any], per_line: int, bounds: VectorBounds, a: Any, y: Any, gap: Any) -> None:
    """Store the maxima of 2 x 2 over lines of half blocks."""
    for q in range(0, len(acc), 2 * per_line):
        both = [w.larger(acc[q + b], acc[q + per_line + b]) for b in range(per_line)]
        line = w.b.add(y, w.b.mul(gap, i64(q // (2 * per_line))))
        for b in range(0, per_line, 2):
            count = HALF * len(both[b : b + 2])
            odd, even = (ir.Constant(ir.VectorType(I32, count // 2), list(range(s, count, 2))) for s in (1, 0))
            pairs = [w.b.shuffle_vector(both[b], both[min(b + 1, per_line - 1)], lanes) for lanes in (even, odd)]
            w.store(w.clip(bounds, w.larger(*pairs)), a, w.plus(line, b * HALF // 2))


def rows_pool() -> Any:
    """Write `simd.rows_pool`."""

    def write(w: Writer, lines: Any, a: Any, mem: Any, table: Any, how: Any, out: Any) -> None:
        bounds = load_bounds(w, mem, how)

        def variant(blocks: int) -> None:
            acc = w.variables(blocks, vector(BLOCK))
            with _each(w, mem, table, out.y) as (row, bias, y):
                for total in acc:
                    w.b.store(w.splat(bias, BLOCK), total)
                _accumulate(w, acc, Operands(BLOCK, BLOCK, lines.across), w.flag(how.exact), a, mem, row)
                pairs = [w.larger(w.b.load(acc[b]), w.b.load(acc[b + 1])) for b in range(0, blocks, 2)]
                for b in range(blocks // 4):
                    value = w.clip(bounds, w.larger(pairs[b], pairs[b + blocks // 4]))
                    w.store(value, a, w.b.add(y, w.b.mul(out.gap, i64(b))))

        switch(w, (lines.blocks,), [(width,) for width in POOL_WIDTHS], variant)

    return helper("RAARRR", types.void, write)
