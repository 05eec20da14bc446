"""The helpers of linear layers of one image, in plain Python.

`simd_vectors` has their compiled form, and `simd` says how they see arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic
from dcformat_runtime.kernels.simd import Row, Sum, clipped, compiled_form
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF, UINT8S

Array = npt.NDArray[Any]


@intrinsic(compiled_form("gather"))
def gather(a: Array, mem: Array, slots: Row, bias: int, how: Sum, wide: int, y: int) -> None:
    """Multiply sixteen sparse rows by one vector, and write the result to `y`.

    Slot s of `slots` adds ``mem[values + 16 s + lane] * a[x + index]`` to each lane. Indices are uint16, two to a word,
    or int32 if `wide`. Sums begin with the block at `bias`, or, to resume, with the block at `y`.
    """
    acc = (a[y : y + BLOCK] if how.resume else mem[bias : bias + BLOCK]).copy()
    per = BLOCK if wide else HALF
    table = mem.view(np.int32) if wide else mem.view(np.uint16)
    scale = 1 if wide else 2
    for s in range(slots.start, slots.end):
        at = (slots.indices + s * per) * scale
        values = mem[slots.values + BLOCK * s : slots.values + BLOCK * (s + 1)]
        acc += values * a[slots.x + slots.unit * table[at : at + BLOCK].astype(np.int64)]
    a[y : y + BLOCK] = clipped(mem, how.bounds, acc)


class Slots(NamedTuple):
    """The entries of `groups` groups of 16 rows in 16 columns: each group has `each` slots, with one for each row.

    From `indices` on, the slots have a uint8 for each row, four to a word; from `values` on, a float32.
    """

    groups: int
    each: int
    indices: int
    values: int


@intrinsic(compiled_form("permute"))
def permute(a: Array, mem: Array, x: int, slots: Slots, y: int) -> None:
    """Multiply the slots by the block at `x`, which stays in a register and is permuted.

    A slot of group g adds ``mem[value] * a[x + index]`` to the lanes of the block at ``y + 16 g``.
    """
    block, table = a[x : x + BLOCK].copy(), mem.view(np.uint8)
    for s in range(slots.groups * slots.each):
        at, values = UINT8S * slots.indices + BLOCK * s, slots.values + BLOCK * s
        to = y + s // slots.each * BLOCK
        a[to : to + BLOCK] += mem[values : values + BLOCK] * block[table[at : at + BLOCK]]


@intrinsic(compiled_form("any_nonzero"))
def any_nonzero(a: Array, x: int) -> int:
    """Return whether the block at `x` holds a nonzero number."""
    return int(np.any(a[x : x + BLOCK] != 0))


@intrinsic(compiled_form("nonzeros"))
def nonzeros(a: Array, x: int, n: int, found: int, limit: int) -> int:
    """Count the nonzero floats among the `n` (a multiple of 16) from `x` on; if at most `limit`, list their positions.

    The positions are ascending int32 numbers, relative to `x`, and are written to `found`.
    """
    positions = np.flatnonzero(a[x : x + n])
    if positions.size <= limit:
        a.view(np.int32)[found : found + positions.size] = positions
    return int(positions.size)


class Columns(NamedTuple):
    """The dense columns of the inputs that the `inputs` words from `found` on list.

    The column of input j begins at ``dense + j * stride``, and the bias at `bias`.
    """

    found: int
    inputs: int
    dense: int
    stride: int
    bias: int


@intrinsic(compiled_form("columns"))
def columns(k: int, a: Array, mem: Array, x: int, listed: Columns, how: Sum, y: int) -> None:
    """Compute `k` blocks of sums: each listed input j in turn adds ``a[x + j]`` times its column."""
    n = BLOCK * k
    acc = mem[listed.bias : listed.bias + n].copy()
    for j in a.view(np.int32)[listed.found : listed.found + listed.inputs].tolist():
        at = listed.dense + j * listed.stride
        acc += a[x + j] * mem[at : at + n]
    a[y : y + n] = clipped(mem, how.bounds, acc)
