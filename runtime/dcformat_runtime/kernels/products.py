"""The parts of the kernel that multiply weights by values."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dcformat.jit import device
from dcformat_runtime import isa
from dcformat_runtime.kernels.row_parts import first_of
from dcformat_runtime.kernels.shift_forms import Shifts, rows_shifted
from dcformat_runtime.kernels.simd import (
    Destination,
    Halves,
    Row,
    Rows,
    Sum,
    TwoLines,
    copy_block,
    rows,
    rows_halves,
    rows_pool,
    word,
)
from dcformat_runtime.kernels.simd_widths import BLOCK, UINT8S
from dcformat_runtime.kernels.vector_forms import Columns, Slots, any_nonzero, columns, gather, nonzeros, permute

Array = npt.NDArray[Any]

#: The least number of blocks for each part if the parts of a product are blocks.
_LONG = 4


@device
def csr_product(a: Array, mem: Array, op: int, source: int, target: int, exact: int, part: int, parts: int) -> None:
    """Multiply sparse rows by blocks of positions or of lanes.

    Each part takes some of the blocks if they form one long line, and otherwise adjacent rows.
    """
    # This function is long because it reads every field once, before the loops that share them.
    count = word(mem, op + isa.CSR_PRODUCT_ROWS)
    indptr = word(mem, op + isa.CSR_PRODUCT_INDPTR)
    order = word(mem, op + isa.CSR_PRODUCT_ORDER)
    indices = word(mem, op + isa.CSR_PRODUCT_INDICES)
    values = word(mem, op + isa.CSR_PRODUCT_VALUES)
    biases = word(mem, op + isa.CSR_PRODUCT_BIAS)
    unit = word(mem, op + isa.CSR_PRODUCT_UNIT)
    target_row = word(mem, op + isa.CSR_PRODUCT_TARGET_ROW)
    gap = word(mem, op + isa.CSR_PRODUCT_GAP)
    blocks = word(mem, op + isa.CSR_PRODUCT_BLOCKS)
    max_blocks = word(mem, op + isa.CSR_PRODUCT_MAX_BLOCKS)
    line_blocks = word(mem, op + isa.CSR_PRODUCT_LINE_BLOCKS)
    width = word(mem, op + isa.CSR_PRODUCT_WIDTH)
    bounds = word(mem, op + isa.CSR_PRODUCT_BOUNDS)
    pool = word(mem, op + isa.CSR_PRODUCT_POOL)
    runs = word(mem, op + isa.CSR_PRODUCT_RUNS)
    step = word(mem, op + isa.CSR_PRODUCT_STEP)
    across = word(mem, op + isa.CSR_PRODUCT_SOURCE_OUTER)
    residual = word(mem, op + isa.CSR_PRODUCT_RESIDUAL)
    adds = 0 if residual == isa.NO_RESIDUAL else 1
    beside = residual - target
    by_blocks = parts > 1 and blocks >= _LONG * parts and line_blocks >= blocks and not pool
    begin = part * blocks // parts if by_blocks else 0
    end = (part + 1) * blocks // parts if by_blocks else blocks
    start = 0 if by_blocks else first_of(mem, indptr, 1, count, part, parts)
    stop = count if by_blocks else first_of(mem, indptr, 1, count, part + 1, parts)
    for i in range(word(mem, op + isa.CSR_PRODUCT_OUTER)):
        row_source = source + i * across
        row_target = target + i * word(mem, op + isa.CSR_PRODUCT_TARGET_OUTER)
        first = begin
        while first < end:
            left = end - first
            if line_blocks == 0:
                k = half_width(left, max_blocks)
            else:
                k = pool_width(left, max_blocks) if pool else whole_width(left, max_blocks)
            line = first // line_blocks if line_blocks else 0
            column = first - line * line_blocks
            x = row_source + step * first
            for c in range(runs):
                last = c == runs - 1
                first_adds = adds if c == 0 and not exact else 0
                how = Sum(c, first_adds, adds if last and exact else 0, bounds if last else isa.UNBOUNDED, exact)
                starts = indptr + c * count
                table = Rows(x, unit, indices, values, starts, order, biases, start, stop, target_row)
                if line_blocks == 0:
                    y = row_target + (first // (2 * pool) * gap if pool else first * gap)
                    rows_halves(Halves(k, step, pool), a, mem, table, how, Destination(y, gap, 0, 0, width, beside, 1))
                elif pool:
                    y = row_target + first // 4 * gap
                    rows_pool(TwoLines(k, across // 2), a, mem, table, how, Destination(y, gap, 0, 0, width, 0, 1))
                else:
                    # Where the sums overwrite the residual, no block may write beyond its line.
                    final = 1 if first + k == blocks or (adds and beside == 0) else 0
                    y = row_target + line * width
                    rows(k, a, mem, table, how, Destination(y, gap, column, line_blocks, width, beside, final))
            first += k


@device
def shifted_product(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Multiply the sparse rows of a 3 x 3 convolution by one image; each part takes adjacent rows."""
    count = word(mem, op + isa.SHIFTED_PRODUCT_ROWS)
    indptr = word(mem, op + isa.SHIFTED_PRODUCT_INDPTR)
    order = word(mem, op + isa.SHIFTED_PRODUCT_ORDER)
    indices = word(mem, op + isa.SHIFTED_PRODUCT_INDICES)
    values = word(mem, op + isa.SHIFTED_PRODUCT_VALUES)
    biases = word(mem, op + isa.SHIFTED_PRODUCT_BIAS)
    target_row = word(mem, op + isa.SHIFTED_PRODUCT_TARGET_ROW)
    blocks = word(mem, op + isa.SHIFTED_PRODUCT_BLOCKS)
    max_blocks = word(mem, op + isa.SHIFTED_PRODUCT_MAX_BLOCKS)
    tiles = word(mem, op + isa.SHIFTED_PRODUCT_TILES)
    masks = word(mem, op + isa.SHIFTED_PRODUCT_MASKS)
    bounds = word(mem, op + isa.SHIFTED_PRODUCT_BOUNDS)
    runs = word(mem, op + isa.SHIFTED_PRODUCT_RUNS)
    residual = word(mem, op + isa.SHIFTED_PRODUCT_RESIDUAL)
    adds = 0 if residual == isa.NO_RESIDUAL else 1
    start = first_of(mem, indptr, 1, count, part, parts)
    stop = first_of(mem, indptr, 1, count, part + 1, parts)
    first = 0
    while first < blocks:
        k = word(mem, tiles + min(blocks - first, max_blocks))
        x = source + BLOCK * first
        shifts = Shifts(target + BLOCK * first, residual - target, runs * count + 1, masks)
        for c in range(runs):
            how = Sum(c, adds if c == 0 else 0, 0, bounds if c == runs - 1 else isa.UNBOUNDED, 0)
            table = Rows(x, 1, indices, values, indptr + c * count, order, biases, start, stop, target_row)
            rows_shifted(k, a, mem, table, how, shifts)
        first += k


@device
def whole_width(left: int, max_blocks: int) -> int:
    """Return how many of `left` blocks to compute at a time, one of `simd_widths.WIDTHS`.

    The blocks are cut into as few pieces as `max_blocks` allows, and those are made about equal.
    """
    pieces = (left + max_blocks - 1) // max_blocks
    k = (left + pieces - 1) // pieces
    if k >= 12:
        return 16 if k >= 16 else min(k, 14)
    return min(k, 8) if k >= 6 else min(k, 4)


@device
def pool_width(left: int, max_blocks: int) -> int:
    """Return the largest of `simd_widths.POOL_WIDTHS` that is at most `left` and `max_blocks`."""
    k = min(left, max_blocks)
    return 24 if k >= 24 else 16 if k >= 16 else 12 if k >= 12 else 8 if k >= 8 else 4


@device
def column_width(left: int) -> int:
    """Return the largest of `simd_widths.COLUMN_WIDTHS` that is at most `left`."""
    return 12 if left >= 12 else 8 if left >= 8 else 6 if left >= 6 else 4 if left >= 4 else left


@device
def half_width(left: int, max_blocks: int) -> int:
    """Return the largest of `simd_widths.HALF_WIDTHS` that is at most `left` and fits in `max_blocks` blocks."""
    k = min(left, 2 * max_blocks)
    return 24 if k >= 24 else 12 if k >= 12 else 8 if k >= 8 else 4 if k >= 4 else 2 if k >= 2 else 1


@device
def sell16_product(
    a: Array, mem: Array, op: int, source: int, target: int, resume: int, exact: int, part: int, parts: int
) -> None:
    """Multiply sparse rows by one vector, 16 rows at a time; if `resume` is set, add to the output.

    Each part takes adjacent groups of rows.
    """
    indptr = word(mem, op + isa.SELL16_PRODUCT_INDPTR)
    indices = word(mem, op + isa.SELL16_PRODUCT_INDICES)
    values = word(mem, op + isa.SELL16_PRODUCT_VALUES)
    bias = word(mem, op + isa.SELL16_PRODUCT_BIAS)
    bounds = word(mem, op + isa.SELL16_PRODUCT_BOUNDS)
    wide = word(mem, op + isa.SELL16_PRODUCT_WIDE)
    order = word(mem, op + isa.SELL16_PRODUCT_ORDER)
    out = word(mem, op + isa.SELL16_PRODUCT_SCRATCH) if order else target
    groups = word(mem, op + isa.SELL16_PRODUCT_GROUPS)
    rows = word(mem, op + isa.SELL16_PRODUCT_ROWS)
    first = first_of(mem, indptr, 1, groups, part, parts)
    last = first_of(mem, indptr, 1, groups, part + 1, parts)
    for g in range(first, last):
        start = word(mem, indptr + g)
        end = word(mem, indptr + g + 1)
        at = BLOCK * g
        slots = Row(source, 1, indices, values, start, end)
        gather(a, mem, slots, bias + at, Sum(resume, 0, 0, bounds, exact), wide, out + at)
    if order:
        for r in range(BLOCK * first, min(BLOCK * last, rows)):
            a[target + word(mem, order + r)] = a[out + r]


@device
def permute_product(a: Array, mem: Array, op: int, source: int, target: int, exact: int) -> None:
    """Multiply most entries by permuted blocks of the vector, and the others as `sell16_product` does."""
    groups = word(mem, op + isa.PERMUTE_GROUPS)
    bias = word(mem, op + isa.PERMUTE_BIAS)
    each = word(mem, op + isa.PERMUTE_SLOTS)
    indices = word(mem, op + isa.PERMUTE_BLOCK_INDICES)
    values = word(mem, op + isa.PERMUTE_BLOCK_VALUES)
    out = word(mem, op + isa.PERMUTE_SCRATCH) if word(mem, op + isa.PERMUTE_ORDER) else target
    for g in range(groups):
        copy_block(mem, bias + BLOCK * g, a, out + BLOCK * g)
    block_slots = groups * each
    for b in range(word(mem, op + isa.PERMUTE_BLOCKS)):
        x = source + BLOCK * b
        if any_nonzero(a, x):
            first = BLOCK * b * block_slots
            permute(a, mem, x, Slots(groups, each, indices + first // UINT8S, values + first), out)
    sell16_product(a, mem, op, source, target, 1, exact, 0, 1)


@device
def csc_product(a: Array, mem: Array, op: int, source: int, target: int, exact: int) -> None:
    """Add up the dense columns of the nonzero inputs; if these are too many, gather instead."""
    found = word(mem, op + isa.CSC_PRODUCT_FOUND)
    limit = word(mem, op + isa.CSC_PRODUCT_LIMIT)
    count = nonzeros(a, source, word(mem, op + isa.CSC_PRODUCT_FEATURES), found, limit)
    if count > limit:
        instead = word(mem, op + isa.CSC_PRODUCT_INSTEAD)
        sell16_product(a, mem, instead, source, target, 0, exact, 0, 1)
    else:
        dense = word(mem, op + isa.CSC_PRODUCT_COLUMNS)
        blocks = word(mem, op + isa.CSC_PRODUCT_BLOCKS)
        bias = word(mem, op + isa.CSC_PRODUCT_BIAS)
        bounds = word(mem, op + isa.CSC_PRODUCT_BOUNDS)
        first = 0
        while first < blocks:
            k = column_width(blocks - first)
            at = 16 * first
            listed = Columns(found, count, dense + at, 16 * blocks, bias + at)
            columns(k, a, mem, source, listed, Sum(0, 0, 0, bounds, exact), target + at)
            first += k
