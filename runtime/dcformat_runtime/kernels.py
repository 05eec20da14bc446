"""The one compiled kernel: it walks a program (`ops`) over tiles of images. It validates nothing.

Everything lies in two arrays: `mem`, the network's constants and the program, never written; and `a`, the arena of one
call. Sizes are data, so one compilation serves every network. No allocation, no exceptions, no calls out of the
kernel: its machine code can be kept and used again without a compiler. Denormal numbers are zeros to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, kernel
from dcformat_runtime.image_kernels import pool_all, pool_image, shift_image
from dcformat_runtime.ops import CLAIM, DONE, LOOKS, MANY, PATIENCE, PIECES, SIZE
from dcformat_runtime.simd import (
    any_nonzero,
    await_least,
    claim,
    columns,
    copy_block,
    copy_half,
    finish,
    flush_denormals,
    gather,
    nonzeros,
    offer,
    permute,
    restore_denormals,
    rows,
    rows_halves,
    rows_pool,
    transpose,
    word,
)

Array = npt.NDArray[Any]


@kernel(
    "int64(const float32[:,::1], float32[:,::1], float32[::1], const float32[::1], int64[::1], int64)", unroll=False
)
def run(x: Array, y: Array, a: Array, mem: Array, control: Array, turn: int) -> int:
    """Run the program in `mem` on `x`, all of it or one operator alone, and write the results to `y`.

    Threads share a call piece by piece: some images, or a part of the operator. The first offers the pieces, and
    everyone claims one after the other until none is left; so whoever comes late only helps less.

    Parameters
    ----------
    x : float32 (images, features)
    y : float32 (images, outputs)
    a : float32
        The arena, each thread's own where images are shared.
    mem : float32
    control : int64
        See `ops`.
    turn : int
        0: alone. -t: offer turn t and take part. t: help with turn t, then wait a little for the next, unless it came
        too late for this one.

    Returns
    -------
    int
        Pieces done, if the call is shared.
    """
    single = control[0]
    exact = word(mem, 0)
    n = x.shape[0]
    floats = flush_denormals()
    if turn < 0:
        offer(control, CLAIM, -turn * MANY)
    piece = claim(control, CLAIM, PIECES, abs(turn)) if turn else control[6]
    mine = 0
    while piece >= 0:
        done = control[2] if single else piece * control[SIZE]
        end = min(n, done + control[SIZE]) if turn and not single else n
        while done < end:
            left = end - done
            plan = control[1] if single else word(mem, 1 + min(left, 64))
            count = min(word(mem, plan), left)
            lanes = word(mem, plan + 1)
            for stage in range(control[3] if single else 0, control[3] + 1 if single else 2):
                groups = (count + lanes - 1) // lanes if stage == 0 else 1
                number = word(mem, plan + 2 + 2 * stage)
                first = word(mem, plan + 3 + 2 * stage)
                for g in range(control[4] if single else 0, control[4] + 1 if single else groups):
                    for o in range(control[5] if single else 0, control[5] + 1 if single else number):
                        image = done + g * lanes if stage == 0 else done
                        here = min(lanes, count - g * lanes) if stage == 0 else count
                        part = piece if single else 0
                        parts = control[PIECES] if single else 1
                        _step(x, y, a, mem, first + 24 * o, g, image, here, exact, part, parts)
            done += count
            if single:
                done = end
        if turn:
            mine += 1
            finish(control, DONE)
            piece = claim(control, CLAIM, PIECES, abs(turn))
        else:
            piece = -1
    if turn > 0:
        await_least(control, CLAIM, (turn + 1) * MANY, LOOKS)
    restore_denormals(floats)
    return mine


@kernel("int64(int64[::1])")
def wait(control: Array) -> int:
    """Wait a little for the last pieces of a call; return whether all are done."""
    if await_least(control, DONE, control[PIECES], PATIENCE):
        return 1
    offer(control, LOOKS, 0)  # helpers shall not wait for a next turn, but say when they have done with this one
    return 0


@device
def _step(
    x: Array, y: Array, a: Array, mem: Array, op: int, g: int, image: int, count: int, exact: int, part: int,
    parts: int,
) -> None:  # fmt: skip
    """Run one operator, or a part of one that is cut by rows or channels; part 0 runs the others whole."""
    code = word(mem, op)
    source = word(mem, op + 1)
    target = word(mem, op + 2) + g * word(mem, op + 3)
    if code == 4:
        _rows(a, mem, op, source, target, exact, part, parts)
    elif code == 8:
        shift_image(a, mem, op, source, target, part, parts)
    elif code == 9:
        pool_image(a, mem, op, source, target, part, parts)
    elif part:
        pass
    elif code == 5:
        _gather(a, mem, op, source, target, 0, exact)
    elif code == 6:
        _permute(a, mem, op, source, target, exact)
    elif code == 7:
        _columns(a, mem, op, source, target, exact)
    elif code == 0:
        _input(x, a, image, count, word(mem, op + 4), word(mem, op + 5), target)
    elif code == 1:
        _output(a, source, y, image, count, word(mem, op + 4), word(mem, op + 5))
    elif code == 2:
        _turn(a, source, target, word(mem, op + 4), word(mem, op + 5))
    elif code == 3:
        _spread(a, source, target, word(mem, op + 4), word(mem, op + 5), word(mem, op + 6))
    elif code == 10:
        pool_all(a, mem, op, source, target)
    elif code == 11:
        _add(a, source, word(mem, op + 4), target, word(mem, op + 5), word(mem, op + 6))
    elif code == 12:
        for i in range(word(mem, op + 4)):
            a[target + i] = max(a[source + i], np.float32(0))
    elif code == 13:
        for piece in range(word(mem, op + 5)):
            at = source + piece * word(mem, op + 6)
            to = target + piece * word(mem, op + 7)
            for i in range(word(mem, op + 4)):
                a[to + i] = a[at + i]
    else:
        _softmax(a, source, target, word(mem, op + 4), word(mem, op + 5))


@device
def _input(x: Array, a: Array, image: int, count: int, features: int, lanes: int, target: int) -> None:
    whole = features - features % 16
    start = image * features
    if lanes == 1:
        for f in range(0, whole, 16):
            copy_block(x, start + f, a, target + f)
        for f in range(whole, features):
            a[target + f] = x[image, f]
        for f in range(features, (features + 15) // 16 * 16):
            a[target + f] = np.float32(0)
    else:
        done = count - count % 16
        for i in range(0, done, 16):  # sixteen rows side by side: as many streams as are fetched ahead
            for f in range(0, whole, 16):
                transpose(x, start + i * features + f, features, a, target + f * lanes + i, lanes)
        for i in range(lanes):  # a group that is not full repeats its last image
            row = image + min(i, count - 1)
            for f in range(whole if i < done else 0, features):
                a[target + f * lanes + i] = x[row, f]


@device
def _output(a: Array, source: int, y: Array, image: int, count: int, features: int, lanes: int) -> None:
    for i in range(count):
        for f in range(features):
            y[image + i, f] = a[source + f * lanes + i]


@device
def _turn(a: Array, source: int, target: int, features: int, lanes: int) -> None:
    whole = features - features % 16 if lanes >= 16 else 0
    for f in range(0, whole, 16):
        for i in range(0, lanes, 16):
            transpose(a, source + i * features + f, features, a, target + f * lanes + i, lanes)
    for i in range(lanes):
        for f in range(whole, features):
            a[target + f * lanes + i] = a[source + i * features + f]


@device
def _spread(a: Array, source: int, target: int, count: int, lanes: int, gap: int) -> None:
    for p in range(count):
        for i in range(0, lanes, 8):
            copy_half(a, source + p * lanes + i, a, target + p * gap + i)


@device
def _rows(a: Array, mem: Array, op: int, source: int, target: int, exact: int, part: int, parts: int) -> None:
    count = word(mem, op + 4)
    pointers = word(mem, op + 5)
    order = word(mem, op + 6)
    indices = word(mem, op + 7)
    values = word(mem, op + 8)
    biases = word(mem, op + 9)
    unit = word(mem, op + 10)
    target_row = word(mem, op + 13)
    gap = word(mem, op + 15)
    blocks = word(mem, op + 16)
    most = word(mem, op + 17)
    per = word(mem, op + 18)
    width = word(mem, op + 19)
    relu = word(mem, op + 20)
    pool = word(mem, op + 21)
    runs = word(mem, op + 22)
    step = word(mem, op + 23)
    across = word(mem, op + 12)
    for i in range(word(mem, op + 11)):
        row_source = source + i * across
        row_target = target + i * word(mem, op + 14)
        first = 0
        while first < blocks:
            k = _width(blocks - first, most, pool) if per else _halves(blocks - first, most)
            line = first // per if per else 0
            column = first - line * per
            x = row_source + step * first
            for c in range(runs):
                last = relu if c == runs - 1 else 0
                # Rows are sorted by length: parts take every so manyth, which balances them.
                r = part
                while r < count:
                    start = word(mem, pointers + c * count + r)
                    end = word(mem, pointers + c * count + r + 1)
                    bias = mem[biases + r]
                    y = row_target + word(mem, order + r) * target_row
                    if per == 0:
                        y += first // (2 * pool) * gap if pool else first * gap
                        rows_halves(
                            k, step, pool, a, mem, x, unit, indices, values, start, end, c, bias, last, exact, y, gap,
                            width,
                        )  # fmt: skip
                    elif pool:
                        y += first // 4 * gap
                        rows_pool(
                            k, across // 2, a, mem, x, unit, indices, values, start, end, bias, relu, exact, y, gap
                        )
                    else:
                        y += line * width
                        rows(
                            k, a, mem, x, unit, indices, values, start, end, c, bias, last, exact, y, gap, column,
                            per, width,
                        )  # fmt: skip
                    r += parts
            first += k


@device
def _width(left: int, most: int, pool: int) -> int:
    """Return the largest of `simd.WIDTHS` (or `POOL_WIDTHS`) that is at most `most` and `left`."""
    k = min(left, most)
    if pool:
        return 24 if k >= 24 else 16 if k >= 16 else 12 if k >= 12 else 8 if k >= 8 else 4
    return 12 if k >= 12 else 8 if k >= 8 else 6 if k >= 6 else 4 if k >= 4 else k


@device
def _halves(left: int, most: int) -> int:
    """Return the largest of `simd.HALF_WIDTHS` that is at most `left` and fits where `most` blocks do."""
    k = min(left, 2 * most)
    return 24 if k >= 24 else 12 if k >= 12 else 8 if k >= 8 else 4 if k >= 4 else 2 if k >= 2 else 1


@device
def _gather(a: Array, mem: Array, op: int, source: int, target: int, resume: int, exact: int) -> None:
    pointers = word(mem, op + 5)
    indices = word(mem, op + 6)
    values = word(mem, op + 7)
    bias = word(mem, op + 8)
    relu = word(mem, op + 9)
    wide = word(mem, op + 10)
    order = word(mem, op + 12)
    out = word(mem, op + 13) if order else target
    for g in range(word(mem, op + 4)):
        start = word(mem, pointers + g)
        end = word(mem, pointers + g + 1)
        at = 16 * g
        gather(a, mem, source, indices, values, start, end, bias + at, resume, relu, exact, wide, out + at)
    if order:
        for r in range(word(mem, op + 11)):
            a[target + word(mem, order + r)] = a[out + r]


@device
def _permute(a: Array, mem: Array, op: int, source: int, target: int, exact: int) -> None:
    groups = word(mem, op + 4)
    bias = word(mem, op + 8)
    each = word(mem, op + 15)
    indices = word(mem, op + 16)
    values = word(mem, op + 17)
    out = word(mem, op + 13) if word(mem, op + 12) else target
    for g in range(groups):
        copy_block(mem, bias + 16 * g, a, out + 16 * g)
    slots = groups * each
    for b in range(word(mem, op + 14)):
        if any_nonzero(a, source + 16 * b):
            permute(each, a, mem, source + 16 * b, indices + 4 * b * slots, values + 16 * b * slots, groups, out)
    _gather(a, mem, op, source, target, 1, exact)


@device
def _columns(a: Array, mem: Array, op: int, source: int, target: int, exact: int) -> None:
    found = word(mem, op + 9)
    limit = word(mem, op + 10)
    count = nonzeros(a, source, word(mem, op + 4), found, limit)
    if count > limit:
        instead = word(mem, op + 11)
        _gather(a, mem, instead, source, target, 0, exact)
    else:
        weight = word(mem, op + 5)
        blocks = word(mem, op + 6)
        bias = word(mem, op + 7)
        relu = word(mem, op + 8)
        first = 0
        while first < blocks:
            k = _width(blocks - first, 12, 0)
            at = 16 * first
            columns(k, a, mem, source, found, count, weight + at, 16 * blocks, bias + at, relu, exact, target + at)
            first += k


@device
def _add(a: Array, source: int, second: int, target: int, count: int, relu: int) -> None:
    for i in range(count):
        a[target + i] = a[source + i] + a[second + i]
    if relu:
        for i in range(count):
            a[target + i] = max(a[target + i], np.float32(0))


@device
def _softmax(a: Array, source: int, target: int, features: int, lanes: int) -> None:
    for lane in range(lanes):
        top = a[source + lane]
        for f in range(features):
            top = max(top, a[source + f * lanes + lane])
        total = np.float32(0)
        for f in range(features):
            value = np.float32(_exp(np.float64(top) - np.float64(a[source + f * lanes + lane])))
            a[target + f * lanes + lane] = value
            total += value
        for f in range(features):
            a[target + f * lanes + lane] /= total


@device
def _exp(x: float) -> float:
    """``exp(-x)`` for ``x >= 0`` in float64 without the C library: halve, then Taylor's series to the 11th power."""
    if not x < 104.0:
        return 0.0
    halvings = int(x * 1.4426950408889634 + 0.5)
    r = halvings * 0.6931471805599453 - x
    total = 1.0
    for k in range(11, 0, -1):
        total = 1.0 + total * r / k
    while halvings > 0:
        step = min(halvings, 30)
        total /= float(1 << step)
        halvings -= step
    return total
