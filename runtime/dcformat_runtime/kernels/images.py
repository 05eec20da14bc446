"""The parts of the kernel that copy and pool images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device
from dcformat_runtime import isa
from dcformat_runtime.kernels.image_forms import (
    Region,
    Shifted,
    Splitting,
    clear_lines,
    copy_even_lines,
    copy_lines,
    copy_shifted,
    lane_means,
    plane_means,
    pool_block,
    pool_line,
    pool_pairs,
    split_lines,
)
from dcformat_runtime.kernels.simd import copy_half, word
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF, MEAN_PLANES

Array = npt.NDArray[Any]


@device
def pad_copy(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Copy an image with its padding, and each variant and phase of a stride by itself."""
    # This function is long because it reads every field once, before the loops that share them.
    channels = word(mem, op + isa.PAD_COPY_CHANNELS)
    height = word(mem, op + isa.PAD_COPY_HEIGHT)
    width = word(mem, op + isa.PAD_COPY_WIDTH)
    lanes = word(mem, op + isa.PAD_COPY_LANES)
    starts = word(mem, op + isa.PAD_COPY_STARTS)
    stride = word(mem, op + isa.PAD_COPY_STRIDE)
    phases = word(mem, op + isa.PAD_COPY_PHASES)
    top = word(mem, op + isa.PAD_COPY_TOP)
    count = word(mem, op + isa.PAD_COPY_ROWS)
    cols = word(mem, op + isa.PAD_COPY_COLS)
    step = word(mem, op + isa.PAD_COPY_PLANE) * lanes
    copy_step = word(mem, op + isa.PAD_COPY_COPY_PLANE) * lanes
    across = cols * lanes
    needed = word(mem, op + isa.PAD_COPY_NEEDED)
    plain = top == 0 and phases == 1 and count <= height and stride == 1
    variants = word(mem, op + isa.PAD_COPY_VARIANTS)
    # Each part takes adjacent channels, with all variants, since the last lines of one may write into the next.
    start = part * channels // parts
    stop = (part + 1) * channels // parts
    for v in range(variants):
        left = word(mem, starts + v)
        # The columns whose source lies in the image; the others are padding.
        low = min(cols, max(0, _ceil(-left, stride)))
        high = max(low, min(cols, _ceil(width - left, stride)))
        if stride == 1 and low == 0 and high >= needed:
            high = cols
        # One pass over whole blocks; it reads as far to the left as there is padding.
        shifts = stride == 1 and lanes == 1 and left >= -isa.LEAD
        if plain and high - low == cols:
            for c in range(start, stop):
                to = target + c * copy_step + v * count * across
                copy_lines(a, source + c * step + left * lanes, width * lanes, to, across, count, across)
            continue
        for phase in range(phases):
            # The rows whose source lies in the image.
            first = min(count, max(0, _ceil(top - phase, phases)))
            last = max(first, min(count, _ceil(height + top - phase, phases)))
            inside = source + ((first * phases + phase - top) * width + left) * lanes
            above = target + (v * phases + phase) * count * across
            for c in range(start, stop):
                to = above + c * copy_step + first * across
                at = inside + c * step
                if first:
                    clear_lines(a, to - first * across, 0, 1, first * across)
                if shifts:
                    copy_shifted(a, at, to, last - first, Shifted(phases * width, cols, cols, width, left))
                else:
                    _lines(a, at, phases * width * lanes, to, across, last - first, low, high, lanes, stride)
                    if low:
                        clear_lines(a, to, across, last - first, low * lanes)
                    if high < needed:
                        clear_lines(a, to + high * lanes, across, last - first, (needed - high) * lanes)
                if last < count:
                    clear_lines(a, to + (last - first) * across, 0, 1, (count - last) * across)


@device
def _ceil(x: int, step: int) -> int:
    """Return ``x / step``, rounded up; a division takes as long as many copies, so none is done for a step of 1."""
    return x if step == 1 else (x + step - 1) // step


@device
def _lines(
    a: Array, at: int, source_step: int, to: int, across: int, lines: int, low: int, high: int, lanes: int, stride: int
) -> None:
    """Copy every `stride`-th position to the positions from `low` to before `high` of lines that are `across` apart."""
    if stride == 1:
        copy_lines(a, at + low * lanes, source_step, to + low * lanes, across, lines, (high - low) * lanes)
    elif stride == 2 and lanes == 1:
        copy_even_lines(a, at + 2 * low, source_step, to + low, across, lines, high - low)
    else:
        for r in range(lines):
            begin = at + r * source_step
            for i in range(low, high):
                if lanes == 1:
                    a[to + r * across + i] = a[begin + i * stride]
                else:
                    for lane in range(0, lanes, HALF):
                        copy_half(a, begin + i * stride * lanes + lane, a, to + r * across + i * lanes + lane)


@device
def split(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Split channels into quarters by the parity of lines and columns."""
    channels = word(mem, op + isa.SPLIT_CHANNELS)
    lines = word(mem, op + isa.SPLIT_HEIGHT) // 2
    width = word(mem, op + isa.SPLIT_WIDTH)
    plane = word(mem, op + isa.SPLIT_PLANE)
    quarter = word(mem, op + isa.SPLIT_QUARTER)
    lead = word(mem, op + isa.SPLIT_LEAD)
    for c in range(part * channels // parts, (part + 1) * channels // parts):
        to = target + 4 * quarter * c + lead
        for odd in range(2):
            at = source + c * plane + odd * width
            split_lines(a, at, to + 2 * odd * quarter, Splitting(2 * width, lines, width // 2, quarter))
        clear_lines(a, to + 2 * quarter - width // 2, quarter, 2, width // 2)


@device
def clip(a: Array, mem: Array, source: int, target: int, count: int, bounds: int) -> None:
    """Clip `count` floats to the `bounds` in `mem`."""
    low = mem[bounds]
    high = mem[bounds + 1]
    for i in range(count):
        a[target + i] = min(max(a[source + i], low), high)


@device
def pool(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Take the maxima or means of windows."""
    height = word(mem, op + isa.POOL_HEIGHT)
    width = word(mem, op + isa.POOL_WIDTH)
    lanes = word(mem, op + isa.POOL_LANES)
    out_h = word(mem, op + isa.POOL_OUT_H)
    out_w = word(mem, op + isa.POOL_OUT_W)
    unpadded = word(mem, op + isa.POOL_PAD_H) == 0 and word(mem, op + isa.POOL_PAD_W) == 0
    kernel = word(mem, op + isa.POOL_KERNEL_H) == 2 and word(mem, op + isa.POOL_KERNEL_W) == 2
    strides = word(mem, op + isa.POOL_STRIDE_H) == 2 and word(mem, op + isa.POOL_STRIDE_W) == 2
    inside = 2 * out_h <= height and 2 * out_w <= width
    pairs = lanes == 1 and word(mem, op + isa.POOL_KIND) == 0 and unpadded and kernel and strides and inside
    channels = word(mem, op + isa.POOL_CHANNELS)
    step = word(mem, op + isa.POOL_PLANE) * lanes
    out_step = word(mem, op + isa.POOL_OUT_PLANE) * lanes
    bounds = word(mem, op + isa.POOL_BOUNDS)
    # While other threads work, nothing may be written beyond a channel, even if it would be overwritten later. Vectors
    # write up to seven outputs beyond a line, which may be several lines.
    free = out_h - (HALF - 2 + out_w) // out_w if parts > 1 else out_h
    lines = max(0, free) if pairs else 0
    for c in range(part * channels // parts, (part + 1) * channels // parts):
        plane = source + c * step
        out = target + c * out_step
        pool_pairs(a, plane, width, out, out_w, lines)
        for i in range(lines, out_h):
            _window(a, mem, op, plane, i, out + i * out_w * lanes, i >= free)
        if bounds != isa.UNBOUNDED:
            clip(a, mem, out, out, out_h * out_w * lanes, bounds)


@device
def _window(a: Array, mem: Array, op: int, plane: int, i: int, to: int, careful: bool) -> None:
    """Pool one row of outputs: by vectors where windows lie inside the row, one output at a time at its ends."""
    height = word(mem, op + isa.POOL_HEIGHT)
    width = word(mem, op + isa.POOL_WIDTH)
    lanes = word(mem, op + isa.POOL_LANES)
    kernel_w = word(mem, op + isa.POOL_KERNEL_W)
    stride = word(mem, op + isa.POOL_STRIDE_W)
    pad = word(mem, op + isa.POOL_PAD_W)
    out_w = word(mem, op + isa.POOL_OUT_W)
    kind = word(mem, op + isa.POOL_KIND)
    start = i * word(mem, op + isa.POOL_STRIDE_H) - word(mem, op + isa.POOL_PAD_H)
    low = max(0, start)
    high = min(height, start + word(mem, op + isa.POOL_KERNEL_H))
    # The number of rows that count: kind 1 includes those of the padding, but none beyond it.
    lines = high - low
    if kind == 1:
        lines = min(start + word(mem, op + isa.POOL_KERNEL_H), height + word(mem, op + isa.POOL_PAD_H)) - start
    first = 0
    last = 0
    if lanes == 1 and stride <= 2:
        first = min(out_w, (pad + stride - 1) // stride)
        last = max(first, min(out_w, (width - kernel_w + pad) // stride + 1))
        if careful:
            last -= (last - first) % HALF
    if last > first:
        # This may write up to seven outputs beyond the last, which will be overwritten.
        inside = Region(plane + low * width + first * stride - pad, high - low, kernel_w, width, 1)
        pool_line(a, inside, stride, kind, np.float32(lines * kernel_w), to + first, last - first)
    j = 0 if first else last
    while j < out_w:
        begin = j * stride - pad
        left = max(0, begin)
        right = min(width, begin + kernel_w)
        counted = right - left
        if kind == 1:
            counted = min(begin + kernel_w, width + pad) - begin
        share = np.float32(lines * counted)
        at = plane + (low * width + left) * lanes
        if lanes == 1:
            _pool_one(a, at, high - low, right - left, width, kind, share, to + j)
        else:
            for lane in range(0, lanes, BLOCK):
                window = Region(at + lane, high - low, right - left, width * lanes, lanes)
                pool_block(a, window, kind, share, to + j * lanes + lane)
        j += 1
        if j == first:
            j = last


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
def pool_all(a: Array, mem: Array, op: int, source: int, target: int, part: int, parts: int) -> None:
    """Take the mean or maximum of each channel; the order of the sums is the same for any batch."""
    n = word(mem, op + isa.GLOBAL_POOL_POSITIONS)
    lanes = word(mem, op + isa.GLOBAL_POOL_LANES)
    mean = word(mem, op + isa.GLOBAL_POOL_MEAN)
    channels = word(mem, op + isa.GLOBAL_POOL_CHANNELS)
    step = word(mem, op + isa.GLOBAL_POOL_PLANE) * lanes
    c = part * channels // parts
    stop = (part + 1) * channels // parts
    while c < stop:
        planes = 1
        if mean and lanes == 1:
            planes = MEAN_PLANES if c + MEAN_PLANES <= stop else 1
            plane_means(planes, a, source + c * step, step, n, target + c)
        elif mean:
            for lane in range(0, lanes, HALF):
                lane_means(a, source + c * step + lane, lanes, n, target + c * lanes + lane)
        else:
            for lane in range(lanes):
                best = a[source + c * step + lane]
                for p in range(1, n):
                    best = max(best, a[source + c * step + p * lanes + lane])
                a[target + c * lanes + lane] = best
        c += planes
