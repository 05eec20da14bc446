"""The parts of the kernel that copy and pool images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device
from dcformat_runtime.simd import copy_half, copy_lines, pool_block, pool_line, pool_pairs, word

Array = npt.NDArray[Any]


@device
def shift_image(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Copy an image with its padding, each variant and phase of a stride by itself."""
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
        whole = plain and low == 0 and high >= word(mem, op + 17)
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
def pool_image(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Take the maxima or means of windows."""
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
    channels = word(mem, op + 4)
    step = word(mem, op + 18) * lanes
    out_step = word(mem, op + 19) * lanes
    relu = word(mem, op + 17)
    # With other threads at work, nothing may be written beyond a channel, not even to be written again.
    careful = parts > 1
    lines = 0
    if pairs:
        lines = out_h - 1 if careful else out_h
    c = part
    while c < channels:
        plane = source + c * step
        out = target + c * out_step
        pool_pairs(a, plane, width, out, out_w, lines)
        for i in range(lines, out_h):
            _window(a, mem, op, plane, i, out + i * out_w * lanes, careful and i == out_h - 1)
        if relu:
            for i in range(out_h * out_w * lanes):
                a[out + i] = max(a[out + i], np.float32(0))
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
def _pool_one(a: Array, at: int, rows: int, cols: int, line: int, kind: int, share: Any, to: int) -> None:
    best = a[at]
    total = np.float32(0)
    for row in range(rows):
        for column in range(cols):
            value = a[at + row * line + column]
            best = max(best, value)
            total += value
    a[to] = best if kind == 0 else total / share


@device
def pool_all(a: Array, mem: Array, op: int, source: int, target: int) -> None:
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
