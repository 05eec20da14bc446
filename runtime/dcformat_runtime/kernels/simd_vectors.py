"""The compiled form of the helpers of `vector_forms`, which says what they do."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from dcformat_runtime.kernels.simd_products import load_bounds, switch
from dcformat_runtime.kernels.simd_widths import BLOCK, COLUMN_WIDTHS, HALF, PERMUTE_SLOTS, UINT8S
from dcformat_runtime.kernels.simd_writer import I32, U8S, U16S, Writer, helper, i64, vector


def gather() -> Any:
    """Write `vector_forms.gather`."""

    def write(w: Writer, a: Any, mem: Any, slots: Any, bias: Any, how: Any, wide: Any, y: Any) -> None:
        kind = vector(BLOCK)
        acc = w.variables(2, kind)
        with w.b.if_else(w.flag(how.resume)) as (then, otherwise):
            with then:
                w.b.store(w.load(a, y, kind), acc[0])
            with otherwise:
                w.b.store(w.load(mem, bias, kind), acc[0])
        w.b.store(ir.Constant(kind, None), acc[1])

        def slot(s: Any, total: Any, narrow: bool, exactly: bool) -> None:
            if narrow:
                index = w.b.zext(w.load(mem, w.plus(slots.indices, s, HALF), U16S), ir.VectorType(I32, BLOCK))
            else:
                index = w.load(mem, w.plus(slots.indices, s, BLOCK), ir.VectorType(I32, BLOCK))
            value = w.load(mem, w.plus(slots.values, s, BLOCK), kind)
            w.b.store(w.step(exactly, value, w.gather(a, slots.x, index), w.b.load(total)), total)

        def variant(narrow: bool) -> None:
            with w.b.if_else(w.flag(how.exact)) as (then, otherwise):
                with then, w.loop(slots.start, slots.end, 1) as s:
                    slot(s, acc[0], narrow, True)
                with otherwise:
                    whole = w.b.sub(slots.end, w.b.and_(w.b.sub(slots.end, slots.start), i64(1)))
                    with w.loop(slots.start, whole, 2) as s:
                        slot(s, acc[0], narrow, False)
                        slot(w.plus(s, 1), acc[1], narrow, False)
                    with w.loop(whole, slots.end, 1) as s:
                        slot(s, acc[0], narrow, False)
                    w.b.store(w.b.fadd(w.b.load(acc[0]), w.b.load(acc[1])), acc[0])

        with w.b.if_else(w.flag(wide)) as (then, otherwise):
            with then:
                variant(False)
            with otherwise:
                variant(True)
        w.store(w.clip(load_bounds(w, mem, how), w.b.load(acc[0])), a, y)

    return helper("AARiRii", types.void, write)


def permute() -> Any:
    """Write `vector_forms.permute`."""

    def write(w: Writer, a: Any, mem: Any, x: Any, slots: Any, y: Any) -> None:
        kind = vector(BLOCK)
        block = w.load(a, x, kind)

        def variant(each: int) -> None:
            with w.loop(i64(0), slots.groups, 1) as g:
                place, first = w.plus(y, g, BLOCK), w.b.mul(g, i64(each))
                acc = w.load(a, place, kind)
                for s in range(each):
                    slot = w.plus(first, s)
                    index = w.load(mem, w.plus(slots.indices, slot, BLOCK // UINT8S), U8S)
                    value = w.load(mem, w.plus(slots.values, slot, BLOCK), kind)
                    acc = w.fma(value, _permuted(w, block, index), acc)
                w.store(acc, a, place)

        switch(w, (slots.each,), [(each,) for each in PERMUTE_SLOTS], variant)

    return helper("AAiRi", types.void, write)


def _permuted(w: Writer, block: Any, index: Any) -> Any:
    """Write ``block[index]`` lane by lane; LLVM turns it into one instruction if the target can permute 16 floats."""
    out = ir.Constant(block.type, ir.Undefined)
    wide = w.b.zext(index, ir.VectorType(I32, BLOCK))
    for lane in range(BLOCK):
        taken = w.b.extract_element(block, w.b.extract_element(wide, I32(lane)))
        out = w.b.insert_element(out, taken, I32(lane))
    return out


def columns() -> Any:
    """Write `vector_forms.columns`."""

    def write(w: Writer, k: Any, a: Any, mem: Any, x: Any, listed: Any, how: Any, y: Any) -> None:
        kind = vector(BLOCK)

        def variant(width: int) -> None:
            acc = w.variables(width, kind)
            for b, total in enumerate(acc):
                w.b.store(w.load(mem, w.plus(listed.bias, b * BLOCK), kind), total)

            def run(exactly: bool) -> None:
                with w.loop(i64(0), listed.inputs, 1) as p:
                    j = w.word(a, w.b.add(listed.found, p))
                    value = w.splat(w.load(a, w.b.add(x, j)), BLOCK)
                    at = w.b.add(listed.dense, w.b.mul(j, listed.stride))
                    for b, total in enumerate(acc):
                        product = w.load(mem, w.plus(at, b * BLOCK), kind)
                        w.b.store(w.step(exactly, value, product, w.b.load(total)), total)

            with w.b.if_else(w.flag(how.exact)) as (then, otherwise):
                with then:
                    run(True)
                with otherwise:
                    run(False)
            for b, total in enumerate(acc):
                w.store(w.clip(load_bounds(w, mem, how), w.b.load(total)), a, w.plus(y, b * BLOCK))

        switch(w, (k,), [(width,) for width in COLUMN_WIDTHS], variant)

    return helper("iAAiRRi", types.void, write)
