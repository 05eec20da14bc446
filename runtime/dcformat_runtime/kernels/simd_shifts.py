"""The compiled form of the helper that `shift_forms` describes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba import types

from dcformat_runtime.kernels.simd_products import Operands, add_to, fused, load_bounds, switch
from dcformat_runtime.kernels.simd_widths import BLOCK, MASK, WIDTHS
from dcformat_runtime.kernels.simd_writer import I32, Writer, helper, vector


def rows_shifted() -> Any:
    """Write `shift_forms.rows_shifted`."""

    def write(w: Writer, k: Any, a: Any, mem: Any, table: Any, how: Any, shifts: Any) -> None:
        bounds, kind = load_bounds(w, mem, how), vector(BLOCK)

        def variant(blocks: int) -> None:
            acc = w.variables(blocks, kind)
            with w.loop(table.first, table.stop, 1) as r:
                one_row(acc, r)

        def add_column(acc: list[Any], r: Any, column: int) -> None:
            at = w.b.add(w.plus(table.indptr, shifts.columns, column), r)
            row = SimpleNamespace(**vars(table), start=w.word(mem, at), end=w.word(mem, w.plus(at, 1)))
            fused(w, acc, Operands(BLOCK, BLOCK), a, mem, row)

        def add(acc: list[Any], values: Iterable[Any]) -> None:
            for total, value in zip(acc, values, strict=True):
                add_to(w, total, value)

        def shift(acc: list[Any], masks: Any, by: int) -> None:
            for total, value in zip(acc, _shifted(w, mem, acc, masks, by), strict=True):
                w.b.store(value, total)

        def one_row(acc: list[Any], r: Any) -> None:
            y = w.b.add(shifts.y, w.b.mul(w.word(mem, w.b.add(table.order, r)), table.apart))
            places = [w.plus(y, b * BLOCK) for b in range(len(acc))]
            for total in acc:
                w.b.store(ir.Constant(kind, None), total)
            add_column(acc, r, 0)
            shift(acc, shifts.masks, 1)
            with w.b.if_else(w.flag(how.resume)) as (then, otherwise):
                with then:
                    add(acc, (w.load(a, place, kind) for place in places))
                with otherwise:
                    add(acc, [w.splat(w.load(mem, w.b.add(table.bias, r)), BLOCK)] * len(acc))
            with w.b.if_then(w.flag(how.residual_first)):
                add(acc, (w.load(a, w.b.add(place, shifts.residual), kind) for place in places))
            # Registers do not hold two values for each block, so those sums wait where the result will be.
            for total, place in zip(acc, places, strict=True):
                w.store(w.b.load(total), a, place)
                w.b.store(ir.Constant(kind, None), total)
            add_column(acc, r, 2)
            shift(acc, w.plus(shifts.masks, MASK), -1)
            add_column(acc, r, 1)
            for total, place in zip(acc, places, strict=True):
                w.store(w.clip(bounds, w.b.fadd(w.b.load(total), w.load(a, place, kind))), a, place)

        switch(w, (k,), [(width,) for width in WIDTHS], variant)

    return helper("iAARRR", types.void, write)


def _shifted(w: Writer, mem: Any, acc: list[Any], masks: Any, by: int) -> list[Any]:
    """Return the values of adjacent blocks `by` positions further, 1 or -1, with a zero where a mask has one."""
    kind, bits = vector(BLOCK), ir.VectorType(I32, BLOCK)
    start = BLOCK - 1 if by > 0 else 1
    lanes = ir.Constant(bits, list(range(start, start + BLOCK)))
    # LLVM has a single instruction for integers.
    values = [w.b.bitcast(w.b.load(total), bits) for total in acc]
    padded = [ir.Constant(bits, None), *values] if by > 0 else [*values, ir.Constant(bits, None)]
    shifted = (w.b.shuffle_vector(*pair, lanes) for pair in pairwise(padded))
    return [
        w.b.bitcast(w.b.and_(value, w.load(mem, w.plus(masks, b * BLOCK), bits)), kind)
        for b, value in enumerate(shifted)
    ]
