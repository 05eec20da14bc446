"""The product of sparse rows that are taken four at a time, so that each operand is loaded once for all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, intrinsic
from dcformat_runtime import isa
from dcformat_runtime.kernels.row_parts import first_of
from dcformat_runtime.kernels.simd import Destination, Sum, clipped, compiled_form, word
from dcformat_runtime.kernels.simd_widths import BLOCK, MASKS, QUAD

Array = npt.NDArray[Any]

#: The least number of blocks for each part if the parts of a product are blocks: all parts read all weights then, but
#: less of what other parts wrote.
_LONG = 64


class QuadTile(NamedTuple):
    """The entries of four sparse rows, of which at most `rows` are kept, and the place of what they multiply.

    Bit r of a column's mask tells whether row r has an entry there. The columns of mask m are those from
    ``word(ends + m - 1)`` to before ``word(ends + m)``. Column p multiplies the floats from ``x + word(indices + p)``
    on. Its values, one for each row in its mask, follow those of the column before; the first of all is at `values`.
    The results of rows lie `apart`.
    """

    x: int
    ends: int
    indices: int
    values: int
    rows: int
    apart: int


@intrinsic(compiled_form("quad_rows"))
def quad_rows(k: int, a: Array, mem: Array, tile: QuadTile, bias: int, how: Sum, out: Destination) -> None:
    """Multiply four sparse rows by `k` blocks; the sums begin with the floats from `bias` on.

    Sums are not exact: the order of a row's products depends on the entries of the others.
    """
    places: list[Array] = []
    kept: list[Array] = []
    for b in range(k):
        line, column = divmod(out.column + b, out.line_blocks)
        places.append(out.y + line * out.width + column * out.gap + np.arange(BLOCK))
        kept.append(np.arange(BLOCK) < out.width - column * BLOCK)
    where, within = np.concatenate(places), np.concatenate(kept)
    acc = np.repeat(mem[bias : bias + QUAD, None], BLOCK * k, axis=1)
    for r in range(min(QUAD, tile.rows)):
        at = where[within] + r * tile.apart
        if how.resume:
            acc[r, within] = a[at]
        elif how.residual_first:
            acc[r, within] += a[at + out.residual]
    value = tile.values
    for mask in range(1, MASKS + 1):
        for p in range(word(mem, tile.ends + mask - 1), word(mem, tile.ends + mask)):
            x = tile.x + word(mem, tile.indices + p)
            for r in range(QUAD):
                if mask >> r & 1:
                    acc[r] += mem[value] * a[x : x + BLOCK * k]
                    value += 1
    for r in range(min(QUAD, tile.rows)):
        a[where[within] + r * tile.apart] = clipped(mem, how.bounds, acc[r, within])


@device
def quad_product(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Multiply quads of sparse rows by blocks of positions.

    Each part takes some of the blocks if they form one very long line, and otherwise adjacent quads.
    """
    count = word(mem, op + isa.QUAD_PRODUCT_ROWS)
    ends = word(mem, op + isa.QUAD_PRODUCT_ENDS)
    starts = word(mem, op + isa.QUAD_PRODUCT_STARTS)
    indices = word(mem, op + isa.QUAD_PRODUCT_INDICES)
    values = word(mem, op + isa.QUAD_PRODUCT_VALUES)
    biases = word(mem, op + isa.QUAD_PRODUCT_BIAS)
    target_row = word(mem, op + isa.QUAD_PRODUCT_TARGET_ROW)
    blocks = word(mem, op + isa.QUAD_PRODUCT_BLOCKS)
    max_blocks = word(mem, op + isa.QUAD_PRODUCT_MAX_BLOCKS)
    line_blocks = word(mem, op + isa.QUAD_PRODUCT_LINE_BLOCKS)
    width = word(mem, op + isa.QUAD_PRODUCT_WIDTH)
    bounds = word(mem, op + isa.QUAD_PRODUCT_BOUNDS)
    runs = word(mem, op + isa.QUAD_PRODUCT_RUNS)
    residual = word(mem, op + isa.QUAD_PRODUCT_RESIDUAL)
    adds = 0 if residual == isa.NO_RESIDUAL else 1
    quads = (count + QUAD - 1) // QUAD
    by_blocks = parts > 1 and blocks >= _LONG * parts and line_blocks >= blocks
    start = 0 if by_blocks else first_of(mem, ends, MASKS, quads, part, parts)
    stop = quads if by_blocks else first_of(mem, ends, MASKS, quads, part + 1, parts)
    first = part * blocks // parts if by_blocks else 0
    end = (part + 1) * blocks // parts if by_blocks else blocks
    while first < end:
        k = quad_width(end - first, max_blocks)
        line = first // line_blocks
        # Where the sums overwrite the residual, no block may write beyond its line.
        final = 1 if first + k == blocks or (adds and residual == target) else 0
        for c in range(runs):
            how = Sum(c, adds if c == 0 else 0, 0, bounds if c == runs - 1 else isa.UNBOUNDED, 0)
            for q in range(start, stop):
                piece = c * quads + q
                tile = QuadTile(
                    source + BLOCK * first, ends + MASKS * piece, indices, values + word(mem, starts + piece),
                    count - QUAD * q, target_row,
                )  # fmt: skip
                y = target + QUAD * q * target_row + line * width
                column = first - line * line_blocks
                out = Destination(y, BLOCK, column, line_blocks, width, residual - target, final)
                quad_rows(k, a, mem, tile, biases + QUAD * q, how, out)
        first += k


@device
def quad_width(left: int, max_blocks: int) -> int:
    """Return how many of `left` blocks to compute at a time, one of `simd_widths.QUAD_WIDTHS`.

    The blocks are cut into as few pieces as `max_blocks` allows, and those are made about equal.
    """
    pieces = (left + max_blocks - 1) // max_blocks
    return (left + pieces - 1) // pieces
