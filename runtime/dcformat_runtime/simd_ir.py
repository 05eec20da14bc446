"""The compiled form of `simd`: Numba intrinsics that write vector IR. Imported only when a kernel is compiled.

Each function here returns the intrinsic of the helper with its name; `simd` says what they do. Nothing here depends on
the machine: LLVM chooses registers and instructions for the target that it compiles for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from dcformat_runtime.simd import BLOCK, PERMUTE_SLOTS, POOL_WIDTHS, WIDTHS

F32, I1, I16, I32, I64 = ir.FloatType(), ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)
HALF = BLOCK // 2

_OF = {"i": types.int64, "f": types.float32}


def _floats(n: int) -> ir.VectorType:
    return ir.VectorType(F32, n)


def _i64(n: int) -> ir.Constant:
    return ir.Constant(I64, n)


class _Writer:
    """Writes IR for one use of a helper."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.b = context, builder

    def array(self, kind: Any, value: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.b, value)

    def plus(self, base: Any, index: Any, scale: int = 1) -> Any:
        """``base + index * scale``; index is a value or a Python int."""
        if isinstance(index, int):
            index, scale = _i64(index * scale), 1
        return self.b.add(base, index if scale == 1 else self.b.mul(index, _i64(scale)))

    def at(self, array: Any, index: Any, count: int, kind: Any = F32) -> Any:
        """Pointer to `count` floats at `index`, proved in the array when bounds are to be checked."""
        if config.BOUNDSCHECK:
            low = self.b.icmp_signed("<", index, _i64(0))
            high = self.b.icmp_signed(">", self.plus(index, count), array.nitems)
            with self.b.if_then(self.b.or_(low, high), likely=False):
                self.context.call_conv.return_user_exc(self.b, IndexError, ("kernel access out of bounds",))
        return self.b.bitcast(self.b.gep(array.data, [index]), kind.as_pointer())

    def load(self, array: Any, index: Any, kind: Any = F32) -> Any:
        words = kind.count * kind.element.width // 32 if kind in (_U16S, _U8S) else getattr(kind, "count", 1)
        value = self.b.load(self.at(array, index, words, kind))
        value.align = 4
        return value

    def store(self, value: Any, array: Any, index: Any) -> None:
        done = self.b.store(value, self.at(array, index, getattr(value.type, "count", 1), value.type))
        done.align = 4

    def word(self, array: Any, index: Any) -> Any:
        return self.b.sext(self.load(array, index, I32), I64)

    def splat(self, value: Any, n: int) -> Any:
        first = self.b.insert_element(ir.Constant(ir.VectorType(value.type, n), ir.Undefined), value, I32(0))
        return self.b.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, n), [0] * n))

    def call(self, name: str, result: Any, *args: Any) -> Any:
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, name), args)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.call(f"llvm.fma.v{x.type.count}f32", x.type, x, y, z)

    def step(self, exact: bool, x: Any, y: Any, z: Any) -> Any:
        return self.b.fadd(self.b.fmul(x, y), z) if exact else self.fma(x, y, z)

    def larger(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def relu(self, on: Any, x: Any) -> Any:
        zero = ir.Constant(x.type, None)
        return self.b.select(on, self.b.select(self.b.fcmp_ordered("<", x, zero), zero, x), x)

    def flag(self, value: Any) -> Any:
        return self.b.icmp_signed("!=", value, _i64(0))

    def variables(self, count: int, kind: Any) -> list[Any]:
        return [cgutils.alloca_once(self.b, kind) for _ in range(count)]

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int) -> Iterator[Any]:
        with cgutils.for_range_slice(self.b, start, stop, _i64(step), I64) as (index, _):
            yield index

    def lanes(self, below: Any) -> Any:
        """Mask of the lanes whose number is less than `below`."""
        numbers = ir.Constant(ir.VectorType(I32, BLOCK), list(range(BLOCK)))
        return self.b.icmp_signed("<", numbers, self.splat(self.b.trunc(below, I32), BLOCK))


_U16S = ir.VectorType(I16, BLOCK)
_U8S = ir.VectorType(ir.IntType(8), BLOCK)


def _helper(codes: str, result: Any, write: Callable[..., Any]) -> Any:
    """Make an intrinsic. `codes`: ``A`` array, ``i`` integer, ``f`` float; `write` gets a writer and the arguments."""

    def typed(typing_context: Any, *args: Any) -> Any:
        kinds = [arg if code == "A" else _OF[code] for code, arg in zip(codes, args, strict=True)]

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            w = _Writer(context, builder)
            ready = [
                w.array(kind, value) if code == "A" else value
                for code, kind, value in zip(codes, signature.args, values, strict=True)
            ]
            out = write(w, *ready)
            return context.get_dummy_value() if out is None else out

        return result(*kinds), generate

    names = [f"p{k}" for k in range(len(codes))]  # Numba wants named parameters
    scope: dict[str, Any] = {"typed": typed}
    exec(f"def helper(context, {', '.join(names)}): return typed(context, {', '.join(names)})", scope)
    return intrinsic(scope["helper"])


def word() -> Any:
    return _helper("Ai", types.int64, lambda w, mem, i: w.word(mem, i))


def put_word() -> Any:
    return _helper("Aii", types.void, lambda w, a, i, value: w.store(w.b.trunc(value, I32), a, i))


def copy_block() -> Any:
    return _helper("AiAi", types.void, lambda w, s, i, t, j: w.store(w.load(s, i, _floats(BLOCK)), t, j))


def copy_half() -> Any:
    return _helper("AiAi", types.void, lambda w, s, i, t, j: w.store(w.load(s, i, _floats(HALF)), t, j))


def copy_lines() -> Any:
    def write(w: _Writer, a: Any, i: Any, source_step: Any, j: Any, target_step: Any, lines: Any, floats: Any) -> None:
        # Column by column of half blocks: the inner loop has many turns even where lines are short.
        with w.loop(_i64(0), floats, HALF) as column, w.loop(_i64(0), lines, 1) as r:
            value = w.load(a, w.b.add(w.b.add(i, column), w.b.mul(r, source_step)), _floats(HALF))
            w.store(value, a, w.b.add(w.b.add(j, column), w.b.mul(r, target_step)))

    return _helper("Aiiiiii", types.void, write)


def transpose() -> Any:
    def write(w: _Writer, source: Any, i: Any, rows: Any, target: Any, j: Any, columns: Any) -> None:
        kind = ir.VectorType(I32, BLOCK)
        block = [w.load(source, w.b.add(i, w.b.mul(rows, _i64(r))), _floats(BLOCK)) for r in range(BLOCK)]
        half = HALF
        while half:  # exchange the off-diagonal half x half blocks, ever smaller
            for r in range(BLOCK):
                if not r & half:
                    x, y = block[r], block[r + half]
                    low = [c if not c & half else BLOCK + c - half for c in range(BLOCK)]
                    high = [c + half if not c & half else BLOCK + c for c in range(BLOCK)]
                    block[r] = w.b.shuffle_vector(x, y, ir.Constant(kind, low))
                    block[r + half] = w.b.shuffle_vector(x, y, ir.Constant(kind, high))
            half //= 2
        for r in range(BLOCK):
            w.store(block[r], target, w.b.add(j, w.b.mul(columns, _i64(r))))

    return _helper("AiiAii", types.void, write)


def _unrolled(k: int) -> int:
    """Accumulator sets that hide the latency of a multiply-add when there are few blocks."""
    return 4 if k == 1 else 2 if k <= 4 else 1


def _accumulate(w: _Writer, acc: list[Any], n: int, exact: Any, args: tuple[Any, ...]) -> None:
    """Add the entries' products to the accumulators, each `n` floats."""
    a, mem, x, unit, idx, val, start, end = args
    kind = _floats(n)

    def entry(p: Any, sums: list[Any], exactly: bool) -> None:
        at = w.b.add(x, w.b.mul(w.word(mem, w.b.add(idx, p)), unit))
        value = w.splat(w.load(mem, w.b.add(val, p)), n)
        for b, total in enumerate(sums):
            product = w.load(a, w.plus(at, b * n), kind)
            w.b.store(w.step(exactly, value, product, w.b.load(total)), total)

    with w.b.if_else(exact) as (then, otherwise):
        with then, w.loop(start, end, 1) as p:
            entry(p, acc, True)
        with otherwise:
            more = _unrolled(len(acc))
            sums = [acc] + [w.variables(len(acc), kind) for _ in range(more - 1)]
            for spare in sums[1:]:
                for total in spare:
                    w.b.store(ir.Constant(kind, None), total)
            whole = w.b.sub(end, w.b.srem(w.b.sub(end, start), _i64(more))) if more > 1 else end
            with w.loop(start, whole, more) as p:
                for u in range(more):
                    entry(w.plus(p, u), sums[u], False)
            if more > 1:
                with w.loop(whole, end, 1) as p:
                    entry(p, acc, False)
            for spare in sums[1:]:
                for total, extra in zip(acc, spare, strict=True):
                    w.b.store(w.b.fadd(w.b.load(total), w.b.load(extra)), total)


def _switch(w: _Writer, k: Any, widths: tuple[int, ...], write: Callable[[int], None]) -> None:
    """Run `write(k)` for the `k` that is given at run time."""
    end = w.b.append_basic_block("done")
    choice = w.b.switch(k, end)
    for width in widths:
        block = w.b.append_basic_block(f"k{width}")
        choice.add_case(_i64(width), block)
        w.b.position_at_end(block)
        write(width)
        w.b.branch(end)
    w.b.position_at_end(end)


def rows_full() -> Any:
    def write(
        w: _Writer, k: Any, a: Any, mem: Any, x: Any, unit: Any, idx: Any, val: Any, start: Any, end: Any,
        resume: Any, bias: Any, relu: Any, exact: Any, y: Any, gap: Any, column: Any, per: Any, width: Any,
    ) -> None:  # fmt: skip
        kind = _floats(BLOCK)

        def variant(blocks: int) -> None:
            acc = w.variables(blocks, kind)
            last = w.plus(column, blocks)
            one_line = w.b.icmp_signed("<=", last, per)
            whole = w.b.and_(one_line, w.b.icmp_signed("<=", w.b.mul(last, _i64(BLOCK)), width))
            even = [w.b.add(y, w.b.mul(gap, w.plus(column, b))) for b in range(blocks)]
            with w.b.if_else(w.flag(resume)) as (then, otherwise):
                with then, w.b.if_else(whole, likely=True) as (plain, ragged):
                    with plain:
                        for total, place in zip(acc, even, strict=True):
                            w.b.store(w.load(a, place, kind), total)
                    with ragged:
                        for total, (place, count) in zip(
                            acc, _places(w, blocks, y, gap, column, per, width), strict=True
                        ):
                            w.b.store(_load_lanes(w, a, place, count), total)
                with otherwise:
                    for total in acc:
                        w.b.store(w.splat(bias, BLOCK), total)
            _accumulate(w, acc, BLOCK, w.flag(exact), (a, mem, x, unit, idx, val, start, end))
            out = [w.relu(w.flag(relu), w.b.load(total)) for total in acc]
            with w.b.if_else(whole, likely=True) as (plain, ragged):
                with plain:
                    for value, place in zip(out, even, strict=True):
                        w.store(value, a, place)
                with ragged:
                    for value, (place, count) in zip(out, _places(w, blocks, y, gap, column, per, width), strict=True):
                        _store_lanes(w, value, a, place, count)

        _switch(w, k, WIDTHS, variant)

    return _helper("iAAiiiiiiifiiiiiii", types.void, write)


def _places(w: _Writer, blocks: int, y: Any, gap: Any, column: Any, per: Any, width: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where each block goes and how many floats of it are kept, from line to line."""
    for _ in range(blocks):
        left = w.b.sub(width, w.b.mul(column, _i64(BLOCK)))
        count = w.b.select(w.b.icmp_signed("<", left, _i64(BLOCK)), left, _i64(BLOCK))
        yield w.b.add(y, w.b.mul(column, gap)), count
        column = w.plus(column, 1)
        ended = w.b.icmp_signed("==", column, per)
        column = w.b.select(ended, _i64(0), column)
        y = w.b.select(ended, w.b.add(y, width), y)


def _masked(w: _Writer, array: Any, index: Any, count: Any) -> tuple[Any, Any]:
    if config.BOUNDSCHECK:
        w.at(array, w.b.sub(w.b.add(index, count), _i64(1)), 1)
    pointer = w.b.bitcast(w.b.gep(array.data, [index]), _floats(BLOCK).as_pointer())
    return pointer, w.lanes(count)


def _pointer_name(pointer: Any, kind: str) -> str:
    return "p0" if str(pointer.type) == "ptr" else f"p0{kind}"


def _load_lanes(w: _Writer, array: Any, index: Any, count: Any) -> Any:
    pointer, mask = _masked(w, array, index, count)
    kind = _floats(BLOCK)
    name = f"llvm.masked.load.v{BLOCK}f32.{_pointer_name(pointer, f'v{BLOCK}f32')}"
    return w.call(name, kind, pointer, I32(4), mask, ir.Constant(kind, None))


def _store_lanes(w: _Writer, value: Any, array: Any, index: Any, count: Any) -> None:
    pointer, mask = _masked(w, array, index, count)
    name = f"llvm.masked.store.v{BLOCK}f32.{_pointer_name(pointer, f'v{BLOCK}f32')}"
    w.call(name, ir.VoidType(), value, pointer, I32(4), mask)


def rows_half() -> Any:
    def write(
        w: _Writer, a: Any, mem: Any, x: Any, unit: Any, idx: Any, val: Any, start: Any, end: Any,
        resume: Any, bias: Any, relu: Any, exact: Any, y: Any, tail: Any,
    ) -> None:  # fmt: skip
        kind = _floats(HALF)
        (total,) = w.variables(1, kind)
        with w.b.if_else(w.flag(resume)) as (then, otherwise):
            with then:
                w.b.store(w.load(a, y, kind), total)
            with otherwise:
                w.b.store(w.splat(bias, HALF), total)
        _accumulate(w, [total], HALF, w.flag(exact), (a, mem, x, unit, idx, val, start, end))
        out = w.relu(w.flag(relu), w.b.load(total))
        with w.b.if_else(w.b.icmp_signed("==", tail, _i64(HALF)), likely=True) as (then, otherwise):
            with then:
                w.store(out, a, y)
            with otherwise, w.loop(_i64(0), tail, 1) as lane:
                w.store(w.b.extract_element(out, w.b.trunc(lane, I32)), a, w.b.add(y, lane))

    return _helper("AAiiiiiiifiiii", types.void, write)


def rows_pool() -> Any:
    def write(
        w: _Writer, k: Any, a: Any, mem: Any, x: Any, unit: Any, idx: Any, val: Any, start: Any, end: Any,
        resume: Any, bias: Any, relu: Any, exact: Any, y: Any, gap: Any,
    ) -> None:  # fmt: skip
        kind = _floats(BLOCK)

        def variant(width: int) -> None:
            acc = w.variables(width, kind)
            for total in acc:
                w.b.store(w.splat(bias, BLOCK), total)
            _accumulate(w, acc, BLOCK, w.flag(exact), (a, mem, x, unit, idx, val, start, end))
            places = [w.b.add(y, w.b.mul(gap, _i64(b))) for b in range(width // 2)]
            out = [
                w.relu(w.flag(relu), w.larger(w.b.load(acc[2 * b]), w.b.load(acc[2 * b + 1])))
                for b in range(width // 2)
            ]
            with w.b.if_else(w.flag(resume)) as (then, otherwise):
                with then:
                    for value, place in zip(out, places, strict=True):
                        w.store(w.larger(value, w.load(a, place, kind)), a, place)
                with otherwise:
                    for value, place in zip(out, places, strict=True):
                        w.store(value, a, place)

        _switch(w, k, POOL_WIDTHS, variant)

    return _helper("iAAiiiiiiifiiii", types.void, write)


def gather() -> Any:
    def write(
        w: _Writer, a: Any, mem: Any, x: Any, idx: Any, val: Any, start: Any, end: Any, bias: Any, resume: Any,
        relu: Any, exact: Any, wide: Any, y: Any,
    ) -> None:  # fmt: skip
        kind = _floats(BLOCK)
        acc = w.variables(2, kind)
        with w.b.if_else(w.flag(resume)) as (then, otherwise):
            with then:
                w.b.store(w.load(a, y, kind), acc[0])
            with otherwise:
                w.b.store(w.load(mem, bias, kind), acc[0])
        w.b.store(ir.Constant(kind, None), acc[1])

        def slot(s: Any, total: Any, narrow: bool, exactly: bool) -> None:
            if narrow:
                index = w.b.zext(w.load(mem, w.plus(idx, s, HALF), _U16S), ir.VectorType(I32, BLOCK))
            else:
                index = w.load(mem, w.plus(idx, s, BLOCK), ir.VectorType(I32, BLOCK))
            value = w.load(mem, w.plus(val, s, BLOCK), kind)
            w.b.store(w.step(exactly, value, _gathered(w, a, x, index), w.b.load(total)), total)

        def variant(narrow: bool) -> None:
            with w.b.if_else(w.flag(exact)) as (then, otherwise):
                with then, w.loop(start, end, 1) as s:
                    slot(s, acc[0], narrow, True)
                with otherwise:
                    whole = w.b.sub(end, w.b.and_(w.b.sub(end, start), _i64(1)))
                    with w.loop(start, whole, 2) as s:
                        slot(s, acc[0], narrow, False)
                        slot(w.plus(s, 1), acc[1], narrow, False)
                    with w.loop(whole, end, 1) as s:
                        slot(s, acc[0], narrow, False)
                    w.b.store(w.b.fadd(w.b.load(acc[0]), w.b.load(acc[1])), acc[0])

        with w.b.if_else(w.flag(wide)) as (then, otherwise):
            with then:
                variant(False)
            with otherwise:
                variant(True)
        w.store(w.relu(w.flag(relu), w.b.load(acc[0])), a, y)

    return _helper("AAiiiiiiiiiii", types.void, write)


def _gathered(w: _Writer, array: Any, x: Any, index: Any) -> Any:
    """Return the 16 floats at ``x + index``, by the target's gather instruction where it has one."""
    kind = _floats(BLOCK)
    if config.BOUNDSCHECK:
        for lane in range(BLOCK):
            w.at(array, w.b.add(x, w.b.sext(w.b.extract_element(index, I32(lane)), I64)), 1)
    base = w.b.gep(array.data, [x])
    places = w.b.gep(base, [I32(0)])
    # llvmlite does not know that a vector of indices gives a vector of pointers.
    places.indices, places.operands, places.type = [index], [base, index], ir.VectorType(base.type, BLOCK)
    name = f"llvm.masked.gather.v{BLOCK}f32.v{BLOCK}{_pointer_name(base, 'f32')}"
    mask = ir.Constant(ir.VectorType(I1, BLOCK), [1] * BLOCK)
    return w.call(name, kind, places, I32(4), mask, ir.Constant(kind, None))


def permute() -> Any:
    def write(w: _Writer, each: Any, a: Any, mem: Any, x: Any, idx: Any, val: Any, groups: Any, y: Any) -> None:
        kind = _floats(BLOCK)
        block = w.load(a, x, kind)

        def variant(slots: int) -> None:
            with w.loop(_i64(0), groups, 1) as g:
                place, first = w.plus(y, g, BLOCK), w.b.mul(g, _i64(slots))
                acc = w.load(a, place, kind)
                for s in range(slots):
                    slot = w.plus(first, s)
                    index = w.load(mem, w.plus(idx, slot, BLOCK // 4), _U8S)
                    acc = w.fma(w.load(mem, w.plus(val, slot, BLOCK), kind), _permuted(w, block, index), acc)
                w.store(acc, a, place)

        _switch(w, each, PERMUTE_SLOTS, variant)

    return _helper("iAAiiiii", types.void, write)


def _permuted(w: _Writer, block: Any, index: Any) -> Any:
    """Write ``block[index]`` lane by lane; LLVM makes one instruction of it where the target has one for 16 floats."""
    out = ir.Constant(block.type, ir.Undefined)
    wide = w.b.zext(index, ir.VectorType(I32, BLOCK))
    for lane in range(BLOCK):
        taken = w.b.extract_element(block, w.b.extract_element(wide, I32(lane)))
        out = w.b.insert_element(out, taken, I32(lane))
    return out


def any_nonzero() -> Any:
    return _helper(
        "Ai", types.int64, lambda w, a, x: w.b.zext(w.b.icmp_unsigned("!=", _nonzero_bits(w, a, x), I16(0)), I64)
    )


def nonzeros() -> Any:
    def write(w: _Writer, a: Any, x: Any, n: Any, found: Any, limit: Any) -> Any:
        total, count = w.variables(2, I64)
        w.b.store(_i64(0), total)
        with w.loop(_i64(0), n, BLOCK) as block:
            bits = w.call("llvm.ctpop.i16", I16, _nonzero_bits(w, a, w.b.add(x, block)))
            w.b.store(w.b.add(w.b.load(total), w.b.zext(bits, I64)), total)
        with w.b.if_then(w.b.icmp_signed("<=", w.b.load(total), limit)):
            w.b.store(_i64(0), count)
            with w.loop(_i64(0), n, BLOCK) as block:
                bits = w.b.zext(_nonzero_bits(w, a, w.b.add(x, block)), I64)
                with w.b.if_then(w.b.icmp_unsigned("!=", bits, _i64(0))), w.loop(_i64(0), _i64(BLOCK), 1) as lane:
                    at = w.b.load(count)
                    # Written for every lane, kept only where the count goes on: no branch to mispredict.
                    w.store(w.b.trunc(w.b.add(block, lane), I32), a, w.b.add(found, at))
                    w.b.store(w.b.add(at, w.b.and_(w.b.lshr(bits, lane), _i64(1))), count)
        return w.b.load(total)

    return _helper("Aiiii", types.int64, write)


def _nonzero_bits(w: _Writer, a: Any, place: Any) -> Any:
    values = w.load(a, place, _floats(BLOCK))
    return w.b.bitcast(w.b.fcmp_unordered("!=", values, ir.Constant(values.type, None)), I16)


def columns() -> Any:
    def write(
        w: _Writer, k: Any, a: Any, mem: Any, x: Any, found: Any, count: Any, weight: Any, stride: Any,
        bias: Any, relu: Any, exact: Any, y: Any,
    ) -> None:  # fmt: skip
        kind = _floats(BLOCK)

        def variant(width: int) -> None:
            acc = w.variables(width, kind)
            for b, total in enumerate(acc):
                w.b.store(w.load(mem, w.plus(bias, b * BLOCK), kind), total)

            def run(exactly: bool) -> None:
                with w.loop(_i64(0), count, 1) as p:
                    j = w.word(a, w.b.add(found, p))
                    value = w.splat(w.load(a, w.b.add(x, j)), BLOCK)
                    at = w.b.add(weight, w.b.mul(j, stride))
                    for b, total in enumerate(acc):
                        product = w.load(mem, w.plus(at, b * BLOCK), kind)
                        w.b.store(w.step(exactly, value, product, w.b.load(total)), total)

            with w.b.if_else(w.flag(exact)) as (then, otherwise):
                with then:
                    run(True)
                with otherwise:
                    run(False)
            for b, total in enumerate(acc):
                w.store(w.relu(w.flag(relu), w.b.load(total)), a, w.plus(y, b * BLOCK))

        _switch(w, k, WIDTHS, variant)

    return _helper("iAAiiiiiiiii", types.void, write)


def pool_pairs() -> Any:
    def write(w: _Writer, a: Any, first: Any, second: Any, y: Any) -> None:
        kind = _floats(BLOCK)
        both = w.larger(w.load(a, first, kind), w.load(a, second, kind))
        even, odd = (
            w.b.shuffle_vector(both, both, ir.Constant(ir.VectorType(I32, HALF), list(range(s, BLOCK, 2))))
            for s in (0, 1)
        )
        w.store(w.larger(even, odd), a, y)

    return _helper("Aiii", types.void, write)


def pool_line() -> Any:
    def write(
        w: _Writer, a: Any, at: Any, lines: Any, line: Any, columns: Any, stride: Any, kind: Any, share: Any, y: Any
    ) -> None:
        even = ir.Constant(ir.VectorType(I32, HALF), list(range(0, BLOCK, 2)))

        def one(place: Any) -> Any:
            return w.load(a, place, _floats(HALF))

        def two(place: Any) -> Any:
            both = w.load(a, place, _floats(BLOCK))
            return w.b.shuffle_vector(both, both, even)

        with w.b.if_else(w.b.icmp_signed("==", stride, _i64(1))) as (then, otherwise):
            with then:
                _pooled(w, a, one, HALF, at, lines, columns, line, _i64(1), kind, share, y)
            with otherwise:
                _pooled(w, a, two, HALF, at, lines, columns, line, _i64(1), kind, share, y)

    return _helper("Aiiiiiifi", types.void, write)


def pool_block() -> Any:
    def write(
        w: _Writer, a: Any, at: Any, lines: Any, columns: Any, line: Any, step: Any, kind: Any, share: Any, y: Any
    ) -> None:
        def tap(place: Any) -> Any:
            return w.load(a, place, _floats(BLOCK))

        _pooled(w, a, tap, BLOCK, at, lines, columns, line, step, kind, share, y)

    return _helper("Aiiiiiifi", types.void, write)


def _pooled(
    w: _Writer, a: Any, tap: Callable[[Any], Any], n: int, at: Any, lines: Any, columns: Any, line: Any, step: Any,
    kind: Any, share: Any, y: Any,
) -> None:  # fmt: skip
    """Reduce a window's taps, row by row, and store the result."""
    (total,) = w.variables(1, _floats(n))

    def reduce(combine: Callable[[Any, Any], Any]) -> None:
        with w.loop(_i64(0), lines, 1) as r:
            begin = w.b.add(at, w.b.mul(r, line))
            with w.loop(_i64(0), columns, 1) as c:
                value = tap(w.b.add(begin, w.b.mul(c, step)))
                w.b.store(combine(w.b.load(total), value), total)

    with w.b.if_else(w.b.icmp_signed("==", kind, _i64(0))) as (then, otherwise):
        with then:
            w.b.store(tap(at), total)
            reduce(w.larger)
        with otherwise:
            w.b.store(ir.Constant(_floats(n), None), total)
            reduce(w.b.fadd)
            w.b.store(w.b.fdiv(w.b.load(total), w.splat(share, n)), total)
    w.store(w.b.load(total), a, y)
