"""The compiled form of the helper of `quads`, which says what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from dcformat_runtime.kernels.simd_products import BlockAddresses, add_to, load_bounds, switch, visit
from dcformat_runtime.kernels.simd_widths import BLOCK, MASKS, QUAD, QUAD_WIDTHS
from dcformat_runtime.kernels.simd_writer import F32, I64, Writer, helper, i64, vector


def quad_rows() -> Any:
    """Write `quads.quad_rows`."""

    def write(w: Writer, k: Any, a: Any, mem: Any, tile: Any, bias: Any, how: Any, out: Any) -> None:
        bounds = load_bounds(w, mem, how)

        def variant(blocks: int) -> None:
            acc = [w.variables(blocks, vector(BLOCK)) for _ in range(QUAD)]

            def each_row(do: Callable[[list[Any], BlockAddresses], None]) -> None:
                def run(places: Callable[[Any], BlockAddresses]) -> None:
                    for r, sums in enumerate(acc):
                        with w.b.if_then(w.b.icmp_signed(">", tile.rows, i64(r))):
                            do(sums, places(w.plus(out.y, tile.apart, r)))

                visit(w, blocks, out, run)

            def add(sums: list[Any], places: BlockAddresses) -> None:
                for b, total in enumerate(sums):
                    add_to(w, total, places.load(w, a, b, distance))

            def finish(sums: list[Any], places: BlockAddresses) -> None:
                for b, total in enumerate(sums):
                    places.store(w, a, b, w.clip(bounds, w.b.load(total)))

            # A sum that is resumed begins without the bias, which it has already.
            resumes = w.flag(how.resume)
            distance = w.b.select(resumes, i64(0), out.residual)
            for r, sums in enumerate(acc):
                first = w.b.select(resumes, F32(0), w.load(mem, w.plus(bias, r)))
                for total in sums:
                    w.b.store(w.splat(first, BLOCK), total)
            with w.b.if_then(w.b.or_(resumes, w.flag(how.residual_first))):
                each_row(add)
            _multiply(w, acc, a, mem, tile)
            each_row(finish)

        switch(w, (k,), [(width,) for width in QUAD_WIDTHS], variant)

    return helper("iAARiRR", types.void, write)


def _multiply(w: Writer, acc: list[list[Any]], a: Any, mem: Any, tile: Any) -> None:
    """Add the products of all columns to the sums of each row, by the code of each mask."""
    (value,) = w.variables(1, I64)
    w.b.store(tile.values, value)
    start = w.word(mem, tile.ends)
    for mask in range(1, MASKS + 1):
        end = w.word(mem, w.plus(tile.ends, mask))
        rows = [sums for r, sums in enumerate(acc) if mask >> r & 1]
        with w.loop(start, end, 1) as p:
            at, x = w.b.load(value), w.b.add(tile.x, w.word(mem, w.b.add(tile.indices, p)))
            weights = [w.splat(w.load(mem, w.plus(at, j)), BLOCK) for j in range(len(rows))]
            for b in range(len(acc[0])):
                block = w.load(a, w.plus(x, b * BLOCK), vector(BLOCK))
                for weight, sums in zip(weights, rows, strict=True):
                    w.b.store(w.fma(weight, block, w.b.load(sums[b])), sums[b])
            w.b.store(w.plus(at, len(rows)), value)
        start = end
