"""The one compiled kernel: it walks a program (`ops`) over tiles of images. It validates nothing.

Everything lies in two arrays: `mem`, the network's constants and the program, never written; and `a`, the arena of one
call. Sizes are data, so one compilation serves every network. No allocation, no exceptions, no calls out of the
kernel: its machine code can be kept and used again without a compiler.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, kernel
from dcformat_runtime.simd import (
    any_nonzero,
    columns,
    copy_block,
    copy_half,
    copy_lines,
    gather,
    nonzeros,
    permute,
    pool_block,
    pool_line,
    pool_pairs,
    rows,
    rows_half,
    rows_pool,
    transpose,
    word,
)

Array = npt.NDArray[Any]


@kernel("void(const float32[:,::1], float32[:,::1], float32[::1], const float32[::1], const int64[::1])")
def run(x: Array, y: Array, a: Array, mem: Array, control: Array) -> None:
    """Run the program in `mem` on `x`, all of it or one operator alone, and write the results to `y`.

    Parameters
    ----------
    x : float32 (images, features)
    y : float32 (images, outputs)
    a : float32
        The arena.
    mem : float32
    control : int64 (8,)
        0 for everything; or 1, then the plan, the first image, the stage (0: for each group, 1: after), the group, the
        operator, and which part of how many to do of it.
    """
    single = control[0]
    exact = word(mem, 0)
    n = x.shape[0]
    done = control[2] if single else 0
    while done < n:
        left = n - done
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
                    part = control[6] if single else 0
                    parts = control[7] if single else 1
                    _step(x, y, a, mem, first + 24 * o, g, image, here, exact, part, parts)
        done += count
        if single:
            done = n


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
        _shift(a, mem, op, source, target, part, parts)
    elif code == 9:
        _pool(a, mem, op, source, target, part, parts)
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
        _global(a, mem, op, source, target)
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
        for f in range(0, whole, 16):
            for i in range(0, done, 16):
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
    for i in range(word(mem, op + 11)):
        row_source = source + i * word(mem, op + 12)
        row_target = target + (i // 2 if pool else i) * word(mem, op + 14)
        first = 0
        while first < blocks:
            k = _width(blocks - first, most, pool)
            line = first // per if per else 0
            column = first - line * per
            x = row_source + 16 * first
            for c in range(runs):
                last = relu if c == runs - 1 else 0
                # Rows are sorted by length: parts take every so manyth, which balances them.
                r = part
                while r < count:
                    start = word(mem, pointers + c * count + r)
                    end = word(mem, pointers + c * count + r + 1)
                    bias = mem[biases + r]
                    y = row_target + word(mem, order + r) * target_row
                    if pool:
                        y += first // 2 * gap
                        rows_pool(k, a, mem, x, unit, indices, values, start, end, i % 2, bias, relu, exact, y, gap)
                    elif per == 0:
                        rows_half(a, mem, x, unit, indices, values, start, end, c, bias, last, exact, y, gap)
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
        return 24 if k >= 24 else 12 if k >= 12 else 8 if k >= 8 else 4 if k >= 4 else 2
    return 12 if k >= 12 else 8 if k >= 8 else 6 if k >= 6 else 4 if k >= 4 else k


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
def _shift(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    channels = word(mem, op + 4)
    height = word(mem, op + 5)
    width = word(mem, op + 6)
    lanes = word(mem, op + 7)
    starts = word(mem, op + 9)
    stride = word(mem, op + 10)
    phases = word(mem, op + 11)
    top = word(mem, op + 12)
    count = word(mem, op + 13)
    cols = word(mem, op + 14)
    step = word(mem, op + 15) * lanes
    copy_step = word(mem, op + 16) * lanes
    across = cols * lanes
    plain = top == 0 and phases == 1 and count <= height and stride == 1 and across % 8 == 0
    for v in range(word(mem, op + 8)):
        left = word(mem, starts + v)
        # Columns whose source lies in the image; the others are padding.
        low = min(cols, max(0, (-left + stride - 1) // stride))
        high = max(low, min(cols, (width - left + stride - 1) // stride))
        whole = plain and low == 0 and high == cols
        c = part
        while c < channels:
            plane = source + c * step
            to = target + c * copy_step + v * phases * count * across
            if whole:
                copy_lines(a, plane + left * lanes, width * lanes, to, across, count, across)
            else:
                for phase in range(phases):
                    for r in range(count):
                        line = r * phases + phase - top
                        if line < 0 or line >= height:
                            for i in range(across):
                                a[to + i] = np.float32(0)
                        else:
                            _line(a, plane + (line * width + left) * lanes, to, lanes, stride, low, high, cols)
                        to += across
            c += parts


@device
def _line(a: Array, at: int, to: int, lanes: int, stride: int, low: int, high: int, cols: int) -> None:
    """Copy one row of a shifted copy: zeros, every `stride`-th position, zeros."""
    for i in range(low * lanes):
        a[to + i] = np.float32(0)
    if stride == 1:
        # Whole half blocks: what they write beyond the row is written again by what follows.
        for i in range(low * lanes, high * lanes, 8):
            copy_half(a, at + i, a, to + i)
    elif lanes == 1:
        for i in range(low, high):
            a[to + i] = a[at + i * stride]
    else:
        for i in range(low, high):
            for lane in range(0, lanes, 8):
                copy_half(a, at + i * stride * lanes + lane, a, to + i * lanes + lane)
    for i in range(high * lanes, cols * lanes):
        a[to + i] = np.float32(0)


@device
def _pool(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    height = word(mem, op + 5)
    width = word(mem, op + 6)
    lanes = word(mem, op + 7)
    out_h = word(mem, op + 14)
    out_w = word(mem, op + 15)
    pairs = (
        lanes == 1 and word(mem, op + 16) == 0 and word(mem, op + 12) == 0 and word(mem, op + 13) == 0
        and word(mem, op + 8) == 2 and word(mem, op + 9) == 2 and word(mem, op + 10) == 2 and word(mem, op + 11) == 2
        and 2 * out_h <= height and 2 * out_w <= width
    )  # fmt: skip
    c = part
    while c < word(mem, op + 4):
        plane = source + c * word(mem, op + 18) * lanes
        for i in range(out_h):
            to = target + (c * word(mem, op + 19) + i * out_w) * lanes
            # With other threads at work, nothing may be written beyond a channel, not even to be written again.
            careful = parts > 1 and i == out_h - 1
            if pairs and not careful:
                first = plane + 2 * i * width
                for j in range(0, out_w, 8):
                    pool_pairs(a, first + 2 * j, first + width + 2 * j, to + j)
            else:
                _window(a, mem, op, plane, i, to, careful)
        if word(mem, op + 17):
            to = target + c * word(mem, op + 19) * lanes
            for i in range(out_h * out_w * lanes):
                a[to + i] = max(a[to + i], np.float32(0))
        c += parts


@device
def _window(a: Array, mem: Array, op: int, plane: int, i: int, to: int, careful: bool) -> None:
    """Pool one row of outputs: vectors where windows lie inside the row, one output at a time at its ends."""
    height = word(mem, op + 5)
    width = word(mem, op + 6)
    lanes = word(mem, op + 7)
    kernel_w = word(mem, op + 9)
    stride = word(mem, op + 11)
    pad = word(mem, op + 13)
    out_w = word(mem, op + 15)
    kind = word(mem, op + 16)
    start = i * word(mem, op + 10) - word(mem, op + 12)
    low = max(0, start)
    high = min(height, start + word(mem, op + 8))
    # How many rows count: those of the padding too in kind 1, but not those beyond it.
    lines = high - low
    if kind == 1:
        lines = min(start + word(mem, op + 8), height + word(mem, op + 12)) - start
    first = 0
    last = 0
    if lanes == 1 and stride <= 2:
        first = min(out_w, (pad + stride - 1) // stride)
        last = max(first, min(out_w, (width - kernel_w + pad) // stride + 1))
        if careful:
            last -= (last - first) % 8
    for j in range(out_w):
        inside = first <= j < last
        if not inside or (j - first) % 8 == 0:
            begin = j * stride - pad
            left = max(0, begin)
            right = min(width, begin + kernel_w)
            counted = right - left
            if kind == 1:
                counted = min(begin + kernel_w, width + pad) - begin
            share = np.float32(lines * counted)
            at = plane + (low * width + left) * lanes
            if inside:
                # Writes eight, of which those from `last` on are written again by what follows.
                pool_line(a, at, high - low, width, kernel_w, stride, kind, share, to + j)
            elif lanes == 1:
                _pool_one(a, at, high - low, right - left, width, kind, share, to + j)
            else:
                for lane in range(0, lanes, 16):
                    to_lane = to + j * lanes + lane
                    pool_block(a, at + lane, high - low, right - left, width * lanes, lanes, kind, share, to_lane)


@device
def _pool_one(a: Array, at: int, rows: int, cols: int, line: int, kind: int, share: float, to: int) -> None:
    best = a[at]
    total = np.float32(0)
    for row in range(rows):
        for column in range(cols):
            value = a[at + row * line + column]
            best = max(best, value)
            total += value
    a[to] = best if kind == 0 else total / share


@device
def _global(a: Array, mem: Array, op: int, source: int, target: int) -> None:
    """Mean or maximum of each channel, in four interleaved sums: the same order for one image and for many."""
    n = word(mem, op + 5)
    lanes = word(mem, op + 6)
    mean = word(mem, op + 7)
    for c in range(word(mem, op + 4)):
        for lane in range(lanes):
            at = source + c * word(mem, op + 8) * lanes + lane
            best = a[at]
            s0 = np.float32(0)
            s1 = np.float32(0)
            s2 = np.float32(0)
            s3 = np.float32(0)
            if mean:
                for p in range(0, n - n % 4, 4):
                    s0 += a[at + p * lanes]
                    s1 += a[at + (p + 1) * lanes]
                    s2 += a[at + (p + 2) * lanes]
                    s3 += a[at + (p + 3) * lanes]
                for p in range(n - n % 4, n):
                    s0 += a[at + p * lanes]
            else:
                for p in range(n):
                    best = max(best, a[at + p * lanes])
            a[target + c * lanes + lane] = ((s0 + s1) + (s2 + s3)) / np.float32(n) if mean else best


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
