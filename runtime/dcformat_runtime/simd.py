"""Vector helpers of the kernels: what each means, in Python.

Compiled, each is the LLVM IR that the function of its name in `simd_moves` or `simd_products` writes.

Arrays are flat views of float32 storage and all positions count floats. `mem` holds the network's constants: values,
and indices as the bits of int32 (`word` reads them). A block is 16 floats, whatever the machine's vector width: the
compiler splits it where registers are narrower, so results do not depend on the width.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic
from dcformat_runtime.blocks import BLOCK
from dcformat_runtime.ops import MANY

Array = npt.NDArray[Any]


def _ir(name: str) -> Callable[[], Any]:
    """Defer the import of the code generators, and so of Numba, to the first compilation."""

    def build() -> Any:
        # Saved code is known by the sources that are named here.
        from dcformat_runtime import blocks, simd_floats, simd_moves, simd_products, simd_shares, simd_writer

        for module in (simd_moves, simd_products, simd_shares, simd_floats, simd_writer, blocks):
            if hasattr(module, name):
                return getattr(module, name)()
        raise LookupError(name)

    return build


@intrinsic(_ir("word"))
def word(mem: Array, i: int) -> int:
    """Return the int32 stored at `i`."""
    return int(mem.view(np.int32)[i])


@intrinsic(_ir("put_word"))
def put_word(a: Array, i: int, value: int) -> None:
    """Store an int32 at `i`."""
    a.view(np.int32)[i] = value


_counting = allocate_lock()


def _after_fork() -> None:
    """Renew the lock in a child: the thread that held it is not there to release it."""
    global _counting
    _counting = allocate_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@intrinsic(_ir("offer"))
def offer(control: Array, at: int, value: int) -> None:
    """Store a word after all that was stored before."""
    control[at] = value


@intrinsic(_ir("claim"))
def claim(control: Array, at: int, pieces: int, turn: int) -> int:
    """Take the next of ``control[pieces]`` pieces, if it is this turn's; otherwise return -1. Atomic."""
    with _counting:
        piece = int(control[at]) - turn * MANY
        if not 0 <= piece < control[pieces]:
            return -1
        control[at] += 1
        return piece


@intrinsic(_ir("finish"))
def finish(control: Array, at: int) -> None:
    """Add 1 after all that was stored before. Atomic."""
    with _counting:
        control[at] += 1


@intrinsic(_ir("await_least"))
def await_least(control: Array, at: int, least: int, looks: int) -> int:
    """Look at a word up to ``control[looks]`` times, until it is at least so much; return whether it is.

    In Python once: there, waiting would keep the other threads from their work.
    """
    return int(control[at] >= least)


@intrinsic(_ir("flush_denormals"))
def flush_denormals() -> int:
    """Have the processor take denormal numbers for zeros, in this thread; return what to restore.

    Python leaves it be.
    """
    return 0


@intrinsic(_ir("restore_denormals"))
def restore_denormals(before: int) -> None:
    """Undo `flush_denormals`."""


@intrinsic(_ir("copy_block"))
def copy_block(source: Array, i: int, target: Array, j: int) -> None:
    """Copy one block."""
    target.reshape(-1)[j : j + BLOCK] = source.reshape(-1)[i : i + BLOCK]


@intrinsic(_ir("copy_half"))
def copy_half(source: Array, i: int, target: Array, j: int) -> None:
    """Copy half a block."""
    target.reshape(-1)[j : j + BLOCK // 2] = source.reshape(-1)[i : i + BLOCK // 2]


@intrinsic(_ir("copy_lines"))
def copy_lines(a: Array, i: int, source_step: int, j: int, target_step: int, lines: int, floats: int) -> None:
    """Copy `lines` lines of `floats` floats, a multiple of 8; they start `source_step` and `target_step` apart."""
    for r in range(lines):
        a[j + r * target_step :][:floats] = a[i + r * source_step :][:floats]


@intrinsic(_ir("transpose"))
def transpose(source: Array, i: int, rows: int, target: Array, j: int, columns: int) -> None:
    """Transpose 16 x 16 floats: row r of the source is at ``i + r * rows``, of the target at ``j + r * columns``."""
    x, y = source.reshape(-1), target.reshape(-1)
    block = np.stack([x[i + r * rows :][:BLOCK] for r in range(BLOCK)])
    for r in range(BLOCK):
        y[j + r * columns : j + r * columns + BLOCK] = block[:, r]


@intrinsic(_ir("rows_full"))
def rows(
    k: int, a: Array, mem: Array, x: int, unit: int, idx: int, val: int, start: int, end: int,
    resume: int, bias: float, relu: int, exact: int, y: int, gap: int, column: int, per: int, width: int,
) -> None:  # fmt: skip
    """One sparse row times `k` blocks.

    ``acc = bias`` (or, to `resume`, what the output holds); for each entry p in ``start..end-1``, in this order,
    ``acc += mem[val + p] * a[x + unit * word(idx + p) :][: 16 * k]``; ReLU if `relu`. `exact`: one accumulator,
    products rounded before they are added; otherwise fused multiply-adds and several accumulators.

    The output is lines of `per` blocks, of which `width` floats are kept; `y` is the first line, `column` the first
    block's place in it. Blocks are `gap` apart, lines `width`.
    """
    acc = np.full(BLOCK * k, bias, np.float32)
    places = []
    for b in range(k):
        line, at = divmod(column + b, per)
        places.append((y + line * width + at * gap, min(BLOCK, width - at * BLOCK)))
    if resume:
        for b, (place, count) in enumerate(places):
            acc[BLOCK * b : BLOCK * b + count] = a[place : place + count]
    _accumulate(acc, a, mem, x, unit, idx, val, start, end)
    if relu:
        acc = np.where(acc < 0, np.float32(0), acc)
    for b, (place, count) in enumerate(places):
        a[place : place + count] = acc[BLOCK * b : BLOCK * b + count]


@intrinsic(_ir("rows_halves"))
def rows_halves(
    k: int, step: int, pool: int, a: Array, mem: Array, x: int, unit: int, idx: int, val: int, start: int, end: int,
    resume: int, bias: float, relu: int, exact: int, y: int, gap: int, keep: int,
) -> None:  # fmt: skip
    """Do what `rows` does to `k` half blocks, `step` apart in the source and `gap` in the output, `keep` floats each.

    To `pool`, lines are so many half blocks, and maxima of 2 x 2 are written, lines of them `gap` apart.
    """
    half = BLOCK // 2
    acc = np.full((k, half), bias, np.float32)
    outs = [a[y + b * gap :][:keep] for b in range(k)]
    if resume:
        for b, out in enumerate(outs):
            acc[b, :keep] = out
    for p in range(start, end):
        at = x + unit * word(mem, idx + p)
        for b in range(k):
            acc[b] += mem[val + p] * a[at + b * step :][:half]
    if relu:
        acc = np.where(acc < 0, np.float32(0), acc)
    if pool:
        maxima = acc.reshape(k // (2 * pool), 2, pool * half // 2, 2).max(axis=(1, 3))
        for q, line in enumerate(maxima):
            a[y + q * gap :][: line.size] = line
        return
    for b, out in enumerate(outs):
        out[:] = acc[b, :keep]


@intrinsic(_ir("rows_pool"))
def rows_pool(
    k: int, across: int, a: Array, mem: Array, x: int, unit: int, idx: int, val: int, start: int, end: int,
    bias: float, relu: int, exact: int, y: int, gap: int,
) -> None:  # fmt: skip
    """As `rows`, half of the `k` blocks from each of two lines, `across` apart; then maxima of 2 x 2, `gap` apart."""
    acc = np.full((2, k // 2 * BLOCK), bias, np.float32)
    for line, sums in enumerate(acc):
        _accumulate(sums, a, mem, x + line * across, unit, idx, val, start, end)
    maxima = acc.reshape(2, k // 4, 2, BLOCK).max(axis=(0, 2))
    for b, block in enumerate(maxima):
        a[y + b * gap :][:BLOCK] = np.maximum(block, np.float32(0)) if relu else block


def _accumulate(acc: Array, a: Array, mem: Array, x: int, unit: int, idx: int, val: int, start: int, end: int) -> None:
    n = acc.size
    for p in range(start, end):
        at = x + unit * word(mem, idx + p)
        acc += mem[val + p] * a[at : at + n]


@intrinsic(_ir("gather"))
def gather(
    a: Array, mem: Array, x: int, idx: int, val: int, start: int, end: int, bias: int, resume: int, relu: int,
    exact: int, wide: int, y: int,
) -> None:  # fmt: skip
    """Sixteen sparse rows times one vector: slot s adds ``mem[val + 16 s + lane] * a[x + index]`` to each lane.

    Indices are uint16, two a word, unless `wide` (int32). Starts from the block at `bias`, or to `resume` from what `y`
    holds; the result goes to `y`.
    """
    acc = (a[y : y + BLOCK] if resume else mem[bias : bias + BLOCK]).copy()
    per = BLOCK if wide else BLOCK // 2
    table = mem.view(np.int32) if wide else mem.view(np.uint16)
    scale = 1 if wide else 2
    for s in range(start, end):
        at = (idx + s * per) * scale
        acc += mem[val + BLOCK * s : val + BLOCK * (s + 1)] * a[x + table[at : at + BLOCK].astype(np.int64)]
    a[y : y + BLOCK] = np.where(acc < 0, np.float32(0), acc) if relu else acc


@intrinsic(_ir("permute"))
def permute(each: int, a: Array, mem: Array, x: int, idx: int, val: int, groups: int, y: int) -> None:
    """Sixteen columns of `groups` times sixteen rows: the block at `x` stays in a register, and indices permute it.

    Group g takes `each` slots; each adds ``mem[value] * a[x + index]`` to the lanes of the block at ``y + 16 g``.
    Indices are uint8, four a word.
    """
    block, table = a[x : x + BLOCK].copy(), mem.view(np.uint8)
    for s in range(groups * each):
        at = 4 * idx + BLOCK * s
        to = y + s // each * BLOCK
        a[to : to + BLOCK] += mem[val + BLOCK * s : val + BLOCK * (s + 1)] * block[table[at : at + BLOCK]]


@intrinsic(_ir("any_nonzero"))
def any_nonzero(a: Array, x: int) -> int:
    """Whether the block at `x` holds anything but zeros."""
    return int(np.any(a[x : x + BLOCK] != 0))


@intrinsic(_ir("nonzeros"))
def nonzeros(a: Array, x: int, n: int, found: int, limit: int) -> int:
    """Count the nonzero floats among the `n` (a multiple of 16) from `x`; up to `limit`, list their positions too.

    The positions are int32, from `x`, ascending, and written to `found`.
    """
    positions = np.flatnonzero(a[x : x + n])
    if positions.size <= limit:
        a.view(np.int32)[found : found + positions.size] = positions
    return int(positions.size)


@intrinsic(_ir("columns"))
def columns(
    k: int, a: Array, mem: Array, x: int, found: int, count: int, weight: int, stride: int, bias: int,
    relu: int, exact: int, y: int,
) -> None:  # fmt: skip
    """`k` blocks of dense rows: for each listed input j in order, ``acc += a[x + j] * mem[weight + j * stride :]``."""
    n = BLOCK * k
    acc = mem[bias : bias + n].copy()
    for j in a.view(np.int32)[found : found + count].tolist():
        acc += a[x + j] * mem[weight + j * stride : weight + j * stride + n]
    a[y : y + n] = np.where(acc < 0, np.float32(0), acc) if relu else acc


@intrinsic(_ir("pool_pairs"))
def pool_pairs(a: Array, source: int, width: int, y: int, columns: int, lines: int) -> None:
    """Maxima of 2 x 2 of a plane with lines of `width` floats: `lines` lines of `columns` outputs, close together.

    Eight at a time: what the last eight of a line write beyond it is written again by the next line.
    """
    for r in range(lines):
        for c in range(0, columns, BLOCK // 2):
            at, to = source + 2 * r * width + 2 * c, y + r * columns + c
            both = np.maximum(a[at : at + BLOCK], a[at + width : at + width + BLOCK])
            a[to : to + BLOCK // 2] = np.maximum(both[0::2], both[1::2])


@intrinsic(_ir("pool_line"))
def pool_line(
    a: Array, at: int, lines: int, line: int, columns: int, stride: int, kind: int, share: Any, y: int
) -> None:
    """Eight outputs of a pool, `stride` 1 or 2 apart, windows of `lines` x `columns` from `at`, lines `line` apart.

    `kind` 0: maximum; otherwise the sum, row by row, divided by `share`.
    """
    taps = [a[at + r * line + c :][: 8 * stride : stride] for r in range(lines) for c in range(columns)]
    a[y : y + BLOCK // 2] = _pooled(taps, kind, share)


@intrinsic(_ir("pool_block"))
def pool_block(
    a: Array, at: int, lines: int, columns: int, line: int, step: int, kind: int, share: Any, y: int
) -> None:
    """Do what `pool_line` does for one output of 16 lanes; columns are `step` apart."""
    taps = [a[at + r * line + c * step :][:BLOCK] for r in range(lines) for c in range(columns)]
    a[y : y + BLOCK] = _pooled(taps, kind, share)


def _pooled(taps: list[Array], kind: int, share: Any) -> Array:
    out = taps[0].copy() if kind == 0 else np.zeros(taps[0].size, np.float32)
    for tap in taps:
        out = np.maximum(out, tap) if kind == 0 else out + tap
    return out if kind == 0 else np.asarray(out / np.float32(share), np.float32)
