"""The vector helpers of the kernels, in plain Python.

The compiled form of a helper is the LLVM IR that the function with the same name writes, in `simd_products`,
`simd_copies` or `simd_atomics`. Other modules have more such helpers: `vector_forms`, `image_forms`, `tile_forms` and
`float_functions`.

Arrays are flat views of float32 storage, and all positions count floats. `mem` holds the network's constants: values,
and indices as the bits of int32 (`word` reads them). A block is 16 floats on every machine: the compiler splits it
where registers are narrower, so results do not depend on the vector width.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic
from dcformat_runtime.kernels import control as words
from dcformat_runtime.kernels.control import MAX_PIECES
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF

Array = npt.NDArray[Any]


def compiled_form(name: str) -> Callable[[], Any]:
    """Defer the import of the code generators, and so of Numba, to the first compilation."""

    def build() -> Any:
        # The key of saved code depends on the source of each module that this import names.
        from dcformat_runtime.kernels import (
            control,
            simd_atomics,
            simd_copies,
            simd_floats,
            simd_products,
            simd_quads,
            simd_shifts,
            simd_tiles,
            simd_vectors,
            simd_widths,
            simd_writer,
        )

        for module in (
            simd_copies, simd_products, simd_quads, simd_shifts, simd_vectors, simd_tiles, simd_atomics, simd_floats,
            simd_writer, simd_widths, control,
        ):  # fmt: skip
            if hasattr(module, name):
                return getattr(module, name)()
        raise LookupError(name)

    return build


@intrinsic(compiled_form("word"))
def word(mem: Array, i: int) -> int:
    """Return the int32 stored at `i`."""
    return int(mem.view(np.int32)[i])


_counting = allocate_lock()


def _after_fork() -> None:
    """Renew the lock in a child process, where the thread that held it does not exist."""
    global _counting
    _counting = allocate_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@intrinsic(compiled_form("publish"))
def publish(control: Array, at: int, value: int) -> None:
    """Store a word; all earlier stores become visible first."""
    control[at] = value


@intrinsic(compiled_form("claim"))
def claim(control: Array, at: int, pieces: int, generation: int) -> int:
    """Claim the next of this generation's ``control[pieces]`` pieces atomically; return -1 if there is none."""
    with _counting:
        piece = int(control[at]) - generation * MAX_PIECES
        if not 0 <= piece < control[pieces]:
            return -1
        control[at] += 1
        return piece


@intrinsic(compiled_form("claim_next"))
def claim_next(control: Array, generation: int) -> int:
    """Claim the next part of an operator atomically, once all parts of the operators before it are done.

    Return -1 if there is none, or if that takes too long. The words of `control` say which parts are claimed and done.
    The Python form does not wait.
    """
    with _counting:
        piece = int(control[words.CLAIM]) - generation * MAX_PIECES
        if not 0 <= piece < control[words.PIECES] or control[words.DONE] < piece - piece % control[words.PARTS]:
            return -1
        control[words.CLAIM] += 1
        return piece


@intrinsic(compiled_form("finish"))
def finish(control: Array, at: int) -> None:
    """Add 1 atomically; all earlier stores become visible first."""
    with _counting:
        control[at] += 1


@intrinsic(compiled_form("await_least"))
def await_least(control: Array, at: int, least: int, looks: int) -> int:
    """Read a word up to ``control[looks]`` times, until it is at least `least`; return whether it is.

    The Python form reads it once, because waiting would keep other threads from their work.
    """
    return int(control[at] >= least)


@intrinsic(compiled_form("flush_denormals"))
def flush_denormals() -> int:
    """Make the processor treat denormal numbers as zeros in this thread; return the previous setting.

    The Python form changes nothing.
    """
    return 0


@intrinsic(compiled_form("restore_denormals"))
def restore_denormals(before: int) -> None:
    """Undo `flush_denormals`."""


@intrinsic(compiled_form("copy_block"))
def copy_block(source: Array, i: int, target: Array, j: int) -> None:
    """Copy one block."""
    target.reshape(-1)[j : j + BLOCK] = source.reshape(-1)[i : i + BLOCK]


@intrinsic(compiled_form("copy_half"))
def copy_half(source: Array, i: int, target: Array, j: int) -> None:
    """Copy half a block."""
    target.reshape(-1)[j : j + HALF] = source.reshape(-1)[i : i + HALF]


@intrinsic(compiled_form("transpose"))
def transpose(source: Array, i: int, rows: int, target: Array, j: int, columns: int) -> None:
    """Transpose 16 x 16 floats; rows are `rows` floats apart in the source and `columns` in the target."""
    x, y = source.reshape(-1), target.reshape(-1)
    block = np.stack([x[i + r * rows :][:BLOCK] for r in range(BLOCK)])
    for r in range(BLOCK):
        y[j + r * columns : j + r * columns + BLOCK] = block[:, r]


class Row(NamedTuple):
    """The entries of a sparse row, from `start` to before `end`, and the place of the values that they multiply.

    Entry p multiplies the floats from ``x + unit * word(indices + p)`` on by ``mem[values + p]``.
    """

    x: int
    unit: int
    indices: int
    values: int
    start: int
    end: int


class Rows(NamedTuple):
    """Rows of a sparse table, from `first` on, before `stop`, and the place of the values they multiply.

    Row r has the entries from ``word(indptr + r)`` to before ``word(indptr + r + 1)``, as in `Row`. Its sums begin with
    ``mem[bias + r]``, and go ``word(order + r) * apart`` floats beyond the place in a `Destination`.
    """

    x: int
    unit: int
    indices: int
    values: int
    indptr: int
    order: int
    bias: int
    first: int
    stop: int
    apart: int


class Halves(NamedTuple):
    """The `blocks` half blocks that a row is multiplied by at a time; they lie `step` floats apart in the source.

    If `pool` is not 0, it is the number of half blocks in a line, and maxima of 2 x 2 are taken over the lines.
    """

    blocks: int
    step: int
    pool: int


class Sum(NamedTuple):
    """How products are added up.

    If `resume` is set, the sum begins with the output. `residual_first` adds the residual before the products,
    `residual_last` after them; at last the sum is clipped to the bounds at `bounds`. Sums in `exact` form have one
    accumulator and round each product before they add it; others have fused multiply-adds and several accumulators.
    """

    resume: int
    residual_first: int
    residual_last: int
    bounds: int
    exact: int


class Destination(NamedTuple):
    """Where sums go: to blocks `gap` apart, in lines of `line_blocks` blocks, of which `width` floats are kept.

    The first line begins at `y`, and `column` is the place of the first block in it. Lines are `width` apart. The
    residual of a sum lies `residual` floats after its place. Unless `final` is set, blocks may write beyond their line,
    because others will follow.
    """

    y: int
    gap: int
    column: int
    line_blocks: int
    width: int
    residual: int
    final: int


def _each(mem: Array, table: Rows, out: Destination) -> Iterator[tuple[Row, float, Destination]]:
    """Yield each row of a table, its bias, and where its sums go."""
    for r in range(table.first, table.stop):
        start, end, number = (word(mem, at + r) for at in (table.indptr, table.indptr + 1, table.order))
        row = Row(table.x, table.unit, table.indices, table.values, start, end)
        yield row, mem[table.bias + r], out._replace(y=out.y + number * table.apart)


def clipped(mem: Array, at: int, x: Array) -> Array:
    """Return `x` clipped to the bounds at `at`; NaN stays NaN."""
    low, high = mem[at : at + 2]
    x = np.where(x < low, low, x)
    return np.where(x > high, high, x)


@intrinsic(compiled_form("rows_full"))
def rows(k: int, a: Array, mem: Array, table: Rows, how: Sum, out: Destination) -> None:
    """Multiply sparse rows by `k` blocks, and add the products to the biases in the order of the entries."""
    for row, bias, place in _each(mem, table, out):
        _row(k, a, mem, row, bias, how, place)


def _row(k: int, a: Array, mem: Array, row: Row, bias: float, how: Sum, out: Destination) -> None:
    acc = np.full(BLOCK * k, bias, np.float32)
    places = []
    for b in range(k):
        line, at = divmod(out.column + b, out.line_blocks)
        places.append((out.y + line * out.width + at * out.gap, min(BLOCK, out.width - at * BLOCK)))
    if how.resume:
        for b, (place, count) in enumerate(places):
            acc[BLOCK * b : BLOCK * b + count] = a[place : place + count]

    def add_residual() -> None:
        for b, (place, count) in enumerate(places):
            acc[BLOCK * b : BLOCK * b + count] += a[place + out.residual :][:count]

    if how.residual_first:
        add_residual()
    accumulate(acc, a, mem, row, row.x)
    if how.residual_last:
        add_residual()
    acc = clipped(mem, how.bounds, acc)
    for b, (place, count) in enumerate(places):
        a[place : place + count] = acc[BLOCK * b : BLOCK * b + count]


@intrinsic(compiled_form("rows_halves"))
def rows_halves(halves: Halves, a: Array, mem: Array, table: Rows, how: Sum, out: Destination) -> None:
    """Do what `rows` does to half blocks, and keep `out.width` floats of each.

    If `halves.pool` is not 0, the maxima of 2 x 2 are written, in lines `out.gap` apart.
    """
    for row, bias, place in _each(mem, table, out):
        _row_halves(halves, a, mem, row, bias, how, place)


def _row_halves(halves: Halves, a: Array, mem: Array, row: Row, bias: float, how: Sum, out: Destination) -> None:
    k, step, pool = halves
    acc = np.full((k, HALF), bias, np.float32)
    outs = [a[out.y + b * out.gap :][: out.width] for b in range(k)]
    if how.resume:
        for b, kept in enumerate(outs):
            acc[b, : out.width] = kept

    def add_residual() -> None:
        for b in range(k):
            acc[b, : out.width] += a[out.y + b * out.gap + out.residual :][: out.width]

    if how.residual_first:
        add_residual()
    for p in range(row.start, row.end):
        at = row.x + row.unit * word(mem, row.indices + p)
        for b in range(k):
            acc[b] += mem[row.values + p] * a[at + b * step :][:HALF]
    if how.residual_last:
        add_residual()
    acc = clipped(mem, how.bounds, acc)
    if pool:
        maxima = acc.reshape(k // (2 * pool), 2, pool * HALF // 2, 2).max(axis=(1, 3))
        for q, line in enumerate(maxima):
            a[out.y + q * out.gap :][: line.size] = line
        return
    for b, kept in enumerate(outs):
        kept[:] = acc[b, : out.width]


class TwoLines(NamedTuple):
    """The blocks that a row is multiplied by at a time: half of the `blocks` in each of two lines, `across` apart."""

    blocks: int
    across: int


@intrinsic(compiled_form("rows_pool"))
def rows_pool(lines: TwoLines, a: Array, mem: Array, table: Rows, how: Sum, out: Destination) -> None:
    """Do what `rows` does to the blocks of two lines; write the maxima of 2 x 2, `out.gap` apart."""
    for row, bias, place in _each(mem, table, out):
        acc = np.full((2, lines.blocks // 2 * BLOCK), bias, np.float32)
        for line, sums in enumerate(acc):
            accumulate(sums, a, mem, row, row.x + line * lines.across)
        maxima = acc.reshape(2, lines.blocks // 4, 2, BLOCK).max(axis=(0, 2))
        for b, block in enumerate(maxima):
            a[place.y + b * place.gap :][:BLOCK] = clipped(mem, how.bounds, block)


def accumulate(acc: Array, a: Array, mem: Array, row: Row, x: int) -> None:
    """Add the products of a row's entries and the floats from `x` on."""
    n = acc.size
    for p in range(row.start, row.end):
        at = x + row.unit * word(mem, row.indices + p)
        acc += mem[row.values + p] * a[at : at + n]
