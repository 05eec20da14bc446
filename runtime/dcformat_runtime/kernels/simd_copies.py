"""The compiled form of the helpers that copy, pool and search; `simd` and `image_forms` say what they do."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba import types

from dcformat_runtime.kernels.simd_products import add_to, switch
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF, MEAN_PLANES
from dcformat_runtime.kernels.simd_writer import F32, I16, I32, I64, Writer, helper, i64, vector

#: The number of interleaved sums of a mean.
_SUMS = 4


def word() -> Any:
    """Write `simd.word`."""
    return helper("Ai", types.int64, lambda w, mem, i: w.word(mem, i))


def copy_block() -> Any:
    """Write `simd.copy_block`."""
    return helper("AiAi", types.void, lambda w, s, i, t, j: w.store(w.load(s, i, vector(BLOCK)), t, j))


def copy_half() -> Any:
    """Write `simd.copy_half`."""
    return helper("AiAi", types.void, lambda w, s, i, t, j: w.store(w.load(s, i, vector(HALF)), t, j))


def copy_lines() -> Any:
    """Write `image_forms.copy_lines`."""

    def write(w: Writer, a: Any, i: Any, source_step: Any, j: Any, target_step: Any, lines: Any, floats: Any) -> None:
        # A column of blocks comes before those to its left, because its last line may write into their next lines. The
        # inner loop has many iterations even if lines are short.
        def column(at: Any, n: int) -> None:
            with w.loop(i64(0), lines, 1) as r:
                value = w.load(a, w.b.add(w.b.add(i, at), w.b.mul(r, source_step)), vector(n))
                w.store(value, a, w.b.add(w.b.add(j, at), w.b.mul(r, target_step)))

        def columns(end: Any, n: int) -> None:
            with w.loop(i64(0), end, n) as before:
                column(w.plus(w.b.sub(end, before), -n), n)

        # Blocks are faster where they do not cross cache lines.
        with w.b.if_else(w.flag(w.b.and_(target_step, i64(BLOCK - 1)))) as (halves, blocks):
            with halves:
                columns(w.b.and_(w.plus(floats, HALF - 1), i64(-HALF)), HALF)
            with blocks:
                whole = w.b.and_(floats, i64(-BLOCK))
                left = w.b.sub(floats, whole)
                with w.b.if_then(w.flag(left)), w.b.if_else(w.b.icmp_signed(">", left, i64(HALF))) as (above, below):
                    with above:
                        column(whole, BLOCK)
                    with below:
                        column(whole, HALF)
                columns(whole, BLOCK)

    return helper("Aiiiiii", types.void, write)


def copy_even_lines() -> Any:
    """Write `image_forms.copy_even_lines`."""

    def write(w: Writer, a: Any, i: Any, source_step: Any, j: Any, target_step: Any, lines: Any, floats: Any) -> None:
        even = ir.Constant(ir.VectorType(I32, HALF), list(range(0, BLOCK, 2)))
        count = w.b.and_(w.plus(floats, HALF - 1), i64(-HALF))
        with w.loop(i64(0), count, HALF) as before, w.loop(i64(0), lines, 1) as r:
            column = w.plus(w.b.sub(count, before), -HALF)
            both = w.load(a, w.plus(w.b.add(i, w.b.mul(r, source_step)), column, 2), vector(BLOCK))
            to = w.b.add(w.b.add(j, column), w.b.mul(r, target_step))
            w.store(w.b.shuffle_vector(both, both, even), a, to)

    return helper("Aiiiiii", types.void, write)


def copy_shifted() -> Any:
    """Write `image_forms.copy_shifted`."""

    def write(w: Writer, a: Any, i: Any, j: Any, lines: Any, how: Any) -> None:
        def column(at: Any, n: int) -> None:
            numbers = ir.Constant(ir.VectorType(I32, n), list(range(n)))
            first, width = (w.splat(w.b.trunc(value, I32), n) for value in (w.b.add(at, how.shift), how.width))
            # A negative column is a large number.
            inside = w.b.icmp_unsigned("<", w.b.add(numbers, first), width)
            source, target = w.b.add(i, at), w.b.add(j, at)
            with w.loop(i64(0), lines, 1) as r:
                value = w.load(a, w.b.add(source, w.b.mul(r, how.source_step)), vector(n))
                value = w.b.select(inside, value, ir.Constant(vector(n), None))
                w.store(value, a, w.b.add(target, w.b.mul(r, how.target_step)))

        # As in `copy_lines`, a column of blocks comes before those to its left.
        whole = w.b.and_(how.floats, i64(-BLOCK))
        left = w.b.sub(how.floats, whole)
        with w.b.if_then(w.flag(left)), w.b.if_else(w.b.icmp_signed(">", left, i64(HALF))) as (above, below):
            with above:
                column(whole, BLOCK)
            with below:
                column(whole, HALF)
        with w.loop(i64(0), whole, BLOCK) as before:
            column(w.plus(w.b.sub(whole, before), -BLOCK), BLOCK)

    return helper("AiiiR", types.void, write)


def clear_lines() -> Any:
    """Write `image_forms.clear_lines`."""

    def write(w: Writer, a: Any, j: Any, step: Any, lines: Any, floats: Any) -> None:
        whole = w.b.and_(floats, i64(-BLOCK))
        with w.loop(i64(0), lines, 1) as r:
            line = w.b.add(j, w.b.mul(r, step))
            with w.loop(i64(0), whole, BLOCK) as at:
                w.store(ir.Constant(vector(BLOCK), None), a, w.b.add(line, at))
            end, left = w.b.add(line, floats), w.b.sub(floats, whole)
            for n in (8, 4, 2, 1):  # the rest in ever smaller pieces
                with w.b.if_then(w.flag(w.b.and_(left, i64(n)))):
                    place = w.b.sub(end, w.b.and_(left, i64(2 * n - 1)))
                    w.store(ir.Constant(vector(n) if n > 1 else F32, None if n > 1 else 0.0), a, place)

    return helper("Aiiii", types.void, write)


def split_lines() -> Any:
    """Write `image_forms.split_lines`."""

    def write(w: Writer, a: Any, i: Any, j: Any, how: Any) -> None:
        even, odd = (ir.Constant(ir.VectorType(I32, BLOCK), list(range(s, 2 * BLOCK, 2))) for s in (0, 1))
        with w.loop(i64(0), how.lines, 1) as r, w.loop(i64(0), how.columns, BLOCK) as column:
            at = w.plus(w.b.add(i, w.b.mul(r, how.source_step)), column, 2)
            pair = w.load(a, at, vector(BLOCK)), w.load(a, w.plus(at, BLOCK), vector(BLOCK))
            to = w.b.add(w.b.add(j, w.b.mul(r, how.columns)), column)
            w.store(w.b.shuffle_vector(*pair, even), a, to)
            w.store(w.b.shuffle_vector(*pair, odd), a, w.b.add(to, how.apart))

    return helper("AiiR", types.void, write)


def transpose() -> Any:
    """Write `simd.transpose`."""

    def write(w: Writer, source: Any, i: Any, rows: Any, target: Any, j: Any, columns: Any) -> None:
        kind = ir.VectorType(I32, BLOCK)
        block = [w.load(source, w.b.add(i, w.b.mul(rows, i64(r))), vector(BLOCK)) for r in range(BLOCK)]
        half = HALF
        while half:  # exchange off-diagonal blocks of half x half floats; half shrinks
            for r in range(BLOCK):
                if not r & half:
                    x, y = block[r], block[r + half]
                    low = [c if not c & half else BLOCK + c - half for c in range(BLOCK)]
                    high = [c + half if not c & half else BLOCK + c for c in range(BLOCK)]
                    block[r] = w.b.shuffle_vector(x, y, ir.Constant(kind, low))
                    block[r + half] = w.b.shuffle_vector(x, y, ir.Constant(kind, high))
            half //= 2
        for r in range(BLOCK):
            w.store(block[r], target, w.b.add(j, w.b.mul(columns, i64(r))))

    return helper("AiiAii", types.void, write)


def nonzeros() -> Any:
    """Write `vector_forms.nonzeros`."""

    def write(w: Writer, a: Any, x: Any, n: Any, found: Any, limit: Any) -> Any:
        total, count = w.variables(2, I64)
        w.b.store(i64(0), total)
        with w.loop(i64(0), n, BLOCK) as block:
            bits = w.call("llvm.ctpop.i16", I16, nonzero_bits(w, a, w.b.add(x, block)))
            w.b.store(w.b.add(w.b.load(total), w.b.zext(bits, I64)), total)
        with w.b.if_then(w.b.icmp_signed("<=", w.b.load(total), limit)):
            w.b.store(i64(0), count)
            with w.loop(i64(0), n, BLOCK) as block:
                bits = w.b.zext(nonzero_bits(w, a, w.b.add(x, block)), I64)
                with w.b.if_then(w.b.icmp_unsigned("!=", bits, i64(0))), w.loop(i64(0), i64(BLOCK), 1) as lane:
                    at = w.b.load(count)
                    # Every lane writes, but the count advances only for some, so no branch can be mispredicted.
                    w.store(w.b.trunc(w.b.add(block, lane), I32), a, w.b.add(found, at))
                    w.b.store(w.b.add(at, w.b.and_(w.b.lshr(bits, lane), i64(1))), count)
        return w.b.load(total)

    return helper("Aiiii", types.int64, write)


def nonzero_bits(w: Writer, a: Any, place: Any) -> Any:
    """Return a bit for each lane, set if the lane is nonzero."""
    values = w.load(a, place, vector(BLOCK))
    return w.b.bitcast(w.b.fcmp_unordered("!=", values, ir.Constant(values.type, None)), I16)


def any_nonzero() -> Any:
    """Write `vector_forms.any_nonzero`."""
    return helper(
        "Ai", types.int64, lambda w, a, x: w.b.zext(w.b.icmp_unsigned("!=", nonzero_bits(w, a, x), I16(0)), I64)
    )


def pool_pairs() -> Any:
    """Write `image_forms.pool_pairs`."""

    def write(w: Writer, a: Any, source: Any, width: Any, y: Any, columns: Any, lines: Any) -> None:
        kind = vector(BLOCK)
        even, odd = (ir.Constant(ir.VectorType(I32, HALF), list(range(s, BLOCK, 2))) for s in (0, 1))
        with w.loop(i64(0), lines, 1) as r:
            line = w.b.add(source, w.b.mul(w.plus(r, r), width))
            with w.loop(i64(0), columns, HALF) as c:
                at = w.b.add(line, w.plus(c, c))
                both = w.larger(w.load(a, at, kind), w.load(a, w.b.add(at, width), kind))
                pairs = (w.b.shuffle_vector(both, both, lanes) for lanes in (even, odd))
                w.store(w.larger(*pairs), a, w.b.add(w.b.add(y, w.b.mul(r, columns)), c))

    return helper("Aiiiii", types.void, write)


def pool_line() -> Any:
    """Write `image_forms.pool_line`."""

    def write(w: Writer, a: Any, window: Any, stride: Any, kind: Any, share: Any, y: Any, count: Any) -> None:
        even = ir.Constant(ir.VectorType(I32, HALF), list(range(0, BLOCK, 2)))

        def outputs(step: int, make: Callable[[Any], Any]) -> None:
            with w.loop(i64(0), count, HALF) as j:
                at = w.b.add(window.at, w.b.mul(j, i64(step)))
                value = make(SimpleNamespace(**{**vars(window), "at": at}))
                w.store(w.b.shuffle_vector(value, value, even) if value.type.count > HALF else value, a, w.b.add(y, j))

        def variant(step: int) -> None:
            kind_of = vector(HALF * step)

            def tap(place: Any) -> Any:
                return w.load(a, place, kind_of)

            maxima = w.b.icmp_signed("==", kind, i64(0))
            three = w.b.and_(maxima, w.b.icmp_signed("==", window.columns, i64(3)))
            with w.b.if_else(three) as (then, otherwise):
                with then:
                    outputs(step, lambda here: _maximum_of_three(w, tap, kind_of, here))
                with otherwise:
                    outputs(step, lambda here: _pooled(w, tap, HALF * step, here, kind, share))

        switch(w, (stride,), [(1,), (2,)], variant)

    return helper("ARiifii", types.void, write)


def _maximum_of_three(w: Writer, tap: Callable[[Any], Any], kind: Any, window: Any) -> Any:
    """Return the maximum of the taps of a window with three columns, taken column by column."""
    columns = w.variables(3, kind)
    for c, column in enumerate(columns):
        w.b.store(tap(w.plus(window.at, c)), column)
    with w.loop(i64(1), window.lines, 1) as r:
        line = w.b.add(window.at, w.b.mul(r, window.line))
        for c, column in enumerate(columns):
            w.b.store(w.larger(w.b.load(column), tap(w.plus(line, c))), column)
    first, second, third = map(w.b.load, columns)
    return w.larger(w.larger(first, second), third)


def pool_block() -> Any:
    """Write `image_forms.pool_block`."""

    def write(w: Writer, a: Any, window: Any, kind: Any, share: Any, y: Any) -> None:
        def tap(place: Any) -> Any:
            return w.load(a, place, vector(BLOCK))

        w.store(_pooled(w, tap, BLOCK, window, kind, share), a, y)

    return helper("ARifi", types.void, write)


def _pooled(w: Writer, tap: Callable[[Any], Any], n: int, window: Any, kind: Any, share: Any) -> Any:
    """Return the maximum or mean of a window's taps, vectors of `n` floats, taken row by row."""
    (total,) = w.variables(1, vector(n))

    def reduce(combine: Callable[[Any, Any], Any]) -> None:
        with w.loop(i64(0), window.lines, 1) as r:
            begin = w.b.add(window.at, w.b.mul(r, window.line))
            with w.loop(i64(0), window.columns, 1) as c:
                value = tap(w.b.add(begin, w.b.mul(c, window.step)))
                w.b.store(combine(w.b.load(total), value), total)

    with w.b.if_else(w.b.icmp_signed("==", kind, i64(0))) as (then, otherwise):
        with then:
            w.b.store(tap(window.at), total)
            reduce(w.larger)
        with otherwise:
            w.b.store(ir.Constant(vector(n), None), total)
            reduce(w.b.fadd)
            w.b.store(w.b.fdiv(w.b.load(total), w.splat(share, n)), total)
    return w.b.load(total)


def plane_means() -> Any:
    """Write `image_forms.plane_means`."""

    def write(w: Writer, k: Any, a: Any, at: Any, step: Any, n: Any, y: Any) -> None:
        whole, count = w.b.and_(n, i64(-_SUMS)), w.b.sitofp(n, F32)

        def variant(planes: int) -> None:
            # Several planes at a time, because each sum waits for the one before.
            begins = [w.b.add(at, w.b.mul(step, i64(c))) for c in range(planes)]
            totals = w.variables(planes, vector(_SUMS))
            for total in totals:
                w.b.store(ir.Constant(vector(_SUMS), None), total)
            with w.loop(i64(0), whole, _SUMS) as p:
                for begin, total in zip(begins, totals, strict=True):
                    add_to(w, total, w.load(a, w.b.add(begin, p), vector(_SUMS)))
            for c, (begin, total) in enumerate(zip(begins, totals, strict=True)):
                with w.loop(whole, n, 1) as p:
                    sums = w.b.load(total)
                    first = w.b.fadd(w.b.extract_element(sums, I32(0)), w.load(a, w.b.add(begin, p)))
                    w.b.store(w.b.insert_element(sums, first, I32(0)), total)
                sums = w.b.load(total)
                w.store(_mean(w, [w.b.extract_element(sums, I32(s)) for s in range(_SUMS)], count), a, w.plus(y, c))

        switch(w, (k,), [(1,), (MEAN_PLANES,)], variant)

    return helper("iAiiii", types.void, write)


def lane_means() -> Any:
    """Write `image_forms.lane_means`."""

    def write(w: Writer, a: Any, at: Any, step: Any, n: Any, y: Any) -> None:
        whole, kind = w.b.and_(n, i64(-_SUMS)), vector(HALF)
        totals = w.variables(_SUMS, kind)
        for total in totals:
            w.b.store(ir.Constant(kind, None), total)
        with w.loop(i64(0), whole, _SUMS) as p:
            for s, total in enumerate(totals):
                add_to(w, total, w.load(a, w.b.add(at, w.b.mul(w.plus(p, s), step)), kind))
        with w.loop(whole, n, 1) as p:
            add_to(w, totals[0], w.load(a, w.b.add(at, w.b.mul(p, step)), kind))
        count = w.splat(w.b.sitofp(n, F32), HALF)
        w.store(_mean(w, [w.b.load(total) for total in totals], count), a, y)

    return helper("Aiiii", types.void, write)


def _mean(w: Writer, sums: list[Any], count: Any) -> Any:
    """Return the sum of four interleaved sums, divided by `count`."""
    first, second, third, fourth = sums
    return w.b.fdiv(w.b.fadd(w.b.fadd(first, second), w.b.fadd(third, fourth)), count)
