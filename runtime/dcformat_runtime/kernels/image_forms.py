"""The vector helpers that copy and pool images, in plain Python.

The compiled form of a helper is the LLVM IR that the function with the same name writes in `simd_copies`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic
from dcformat_runtime.kernels.simd import compiled_form
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF

Array = npt.NDArray[Any]


@intrinsic(compiled_form("copy_lines"))
def copy_lines(a: Array, i: int, source_step: int, j: int, target_step: int, lines: int, floats: int) -> None:
    """Copy `lines` lines of `floats` floats, which start `source_step` and `target_step` apart.

    It copies half blocks. A line overwrites what the last half block of the line before it writes beyond that.
    """
    for r in range(lines):
        count = -(-floats // HALF) * HALF
        a[j + r * target_step :][:count] = a[i + r * source_step :][:count]


@intrinsic(compiled_form("copy_even_lines"))
def copy_even_lines(a: Array, i: int, source_step: int, j: int, target_step: int, lines: int, floats: int) -> None:
    """Do what `copy_lines` does with every second float of the source."""
    for r in range(lines):
        count = -(-floats // HALF) * HALF
        a[j + r * target_step :][:count] = a[i + r * source_step :][: 2 * count : 2]


class Shifted(NamedTuple):
    """Lines of `floats` floats, copied from lines of `width` that begin `shift` floats earlier (or later, if negative).

    Lines start `source_step` and `target_step` floats apart.
    """

    source_step: int
    target_step: int
    floats: int
    width: int
    shift: int


@intrinsic(compiled_form("copy_shifted"))
def copy_shifted(a: Array, i: int, j: int, lines: int, how: Shifted) -> None:
    """Copy lines from `i` to `j`; what lies beyond the ends of a source's line becomes 0.

    As with `copy_lines`, a line overwrites what the line before it writes beyond its end.
    """
    count = -(-how.floats // HALF) * HALF
    column = np.arange(count) + how.shift
    for r in range(lines):
        values = a[i + r * how.source_step :][:count]
        a[j + r * how.target_step :][:count] = np.where((column >= 0) & (column < how.width), values, np.float32(0))


@intrinsic(compiled_form("clear_lines"))
def clear_lines(a: Array, j: int, step: int, lines: int, floats: int) -> None:
    """Set `lines` lines of `floats` floats, which start `step` apart, to zero."""
    for r in range(lines):
        a[j + r * step :][:floats] = 0


class Splitting(NamedTuple):
    """How lines that begin `source_step` floats apart are split: their `columns` even floats lie in adjacent lines.

    The odd floats lie `apart` floats after them.
    """

    source_step: int
    lines: int
    columns: int
    apart: int


@intrinsic(compiled_form("split_lines"))
def split_lines(a: Array, i: int, j: int, how: Splitting) -> None:
    """Split lines into their even and odd floats.

    It writes whole blocks. A line overwrites what the line before it writes beyond its end.
    """
    for r in range(how.lines):
        for column in range(0, how.columns, BLOCK):
            pairs = a[i + r * how.source_step + 2 * column :][: 2 * BLOCK].copy()
            for odd in range(2):
                a[j + odd * how.apart + r * how.columns + column :][:BLOCK] = pairs[odd::2]


@intrinsic(compiled_form("pool_pairs"))
def pool_pairs(a: Array, source: int, width: int, y: int, columns: int, lines: int) -> None:
    """Write the maxima of 2 x 2 of a plane with lines of `width` floats: `lines` lines of `columns` outputs.

    It writes eight outputs at a time; the next line overwrites what the last eight write beyond theirs.
    """
    for r in range(lines):
        for c in range(0, columns, HALF):
            at, to = source + 2 * r * width + 2 * c, y + r * columns + c
            both = np.maximum(a[at : at + BLOCK], a[at + width : at + width + BLOCK])
            a[to : to + HALF] = np.maximum(both[0::2], both[1::2])


class Region(NamedTuple):
    """A window of `lines` x `columns` elements from `at` on; lines are `line` floats apart, and columns `step`."""

    at: int
    lines: int
    columns: int
    line: int
    step: int


@intrinsic(compiled_form("pool_line"))
def pool_line(a: Array, window: Region, stride: int, kind: int, share: Any, y: int, count: int) -> None:
    """Compute `count` outputs, rounded up to eights, from windows that lie `stride` 1 or 2 floats apart.

    `kind` 0 takes the maximum; the others divide the sum, taken row by row, by `share`.
    """
    n = -(-count // HALF) * HALF
    a[y : y + n] = _pooled([a[at:][: n * stride : stride].copy() for at in _places(window)], kind, share)


@intrinsic(compiled_form("pool_block"))
def pool_block(a: Array, window: Region, kind: int, share: Any, y: int) -> None:
    """Do what `pool_line` does for one output of 16 lanes."""
    a[y : y + BLOCK] = _pooled([a[at:][:BLOCK] for at in _places(window)], kind, share)


def _places(window: Region) -> list[int]:
    at, lines, columns, line, step = window
    return [at + r * line + c * step for r in range(lines) for c in range(columns)]


def _pooled(taps: list[Array], kind: int, share: Any) -> Array:
    out = taps[0].copy() if kind == 0 else np.zeros(taps[0].size, np.float32)
    for tap in taps:
        out = np.maximum(out, tap) if kind == 0 else out + tap
    return out if kind == 0 else np.asarray(out / np.float32(share), np.float32)


@intrinsic(compiled_form("plane_means"))
def plane_means(k: int, a: Array, at: int, step: int, n: int, y: int) -> None:
    """Write the means of 1 or `MEAN_PLANES` planes of `n` floats, which begin `step` apart."""
    for c in range(k):
        a[y + c] = _mean(a[at + c * step :][:n])


@intrinsic(compiled_form("lane_means"))
def lane_means(a: Array, at: int, step: int, n: int, y: int) -> None:
    """Write the means of `n` half blocks, which begin `step` apart."""
    a[y : y + HALF] = _mean(np.stack([a[at + p * step :][:HALF] for p in range(n)]))


def _mean(x: Array) -> Array:
    """Return the mean of `x` in four interleaved sums, the first of which takes the remainder."""
    whole = len(x) - len(x) % 4
    sums = np.zeros((4, *x.shape[1:]), np.float32)
    for p in range(len(x)):
        sums[p % 4 if p < whole else 0] += x[p]
    return np.asarray(((sums[0] + sums[1]) + (sums[2] + sums[3])) / np.float32(len(x)), np.float32)
