"""The vector helpers of layers of integers, in plain Python.

The compiled form of a helper is the LLVM IR that the function with the same name writes in `simd_integers`.

Values are bytes in an arena, the channels of a position next to each other. A byte u stands for the whole number
u + least of its value. `mem` holds constants as int32 words: tables of places in the arena, four weights to a word,
sums to begin with, and the bits of factors. `LANES` channels are computed at a time. Sums of integers are exact, and
each step of the rounding after them is one instruction on any machine, so results are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic

Array = npt.NDArray[Any]

#: The channels that are computed at a time, and the weights of a word.
LANES, WORD = 16, 4
#: The tiles of `convolve`: for each number of blocks of channels, the numbers of positions.
TILES = {1: (1, 4, 8, 16), 2: (1, 4, 8, 12), 4: (1, 4, 5, 6), 8: (1,)}
#: The numbers of quads of weights that `convolve_channels` can take.
QUADS = (1, 2, 3, 7, 13)


def compiled_form(name: str) -> Callable[[], Any]:
    """Defer the import of the code generators, and so of Numba, to the first compilation."""

    def build() -> Any:
        # The key of saved code depends on the source of each module that this import names.
        from dcformat_runtime.kernels import integer_forms, simd_integers, simd_writer

        assert integer_forms.LANES and simd_writer
        return getattr(simd_integers, name)()

    return build


class Rounding(NamedTuple):
    """How sums become bytes: from `factors` on, a float32 for each channel; limits; the number added to make a byte."""

    factors: int
    low: int
    high: int
    shift: int


class Runs(NamedTuple):
    """A layer's places: tables of positions in its operand and its result, and the runs of bytes that weights multiply.

    `inputs` and `outputs` are the places of the tables, `positions` their length. From `runs` on, `pieces` pairs hold
    the distance of a run from a position, and the number of its words. Results are written `column` bytes further on,
    and operators that work channel by channel read there too.
    """

    inputs: int
    outputs: int
    positions: int
    runs: int
    pieces: int
    column: int


@intrinsic(compiled_form("convolve"))
def convolve(k: int, n: int, arena: Array, mem: Array, runs: Runs, weights: int, bias: int, how: Rounding) -> None:
    """Compute `n` blocks of channels at all positions, `k` positions (a divisor of their number) at a time.

    For each word of each run, `weights` has a word for each channel.
    """
    channels = n * LANES
    starts = mem[runs.inputs : runs.inputs + runs.positions].astype(np.int64)
    sums = np.repeat(mem[bias : bias + channels].astype(np.int64)[None], runs.positions, axis=0)
    at = weights
    for run in range(runs.pieces):
        offset, words = mem[runs.runs + 2 * run : runs.runs + 2 * run + 2].tolist()
        for word in range(words):
            block = mem[at : at + channels].view(np.int8).reshape(channels, WORD).astype(np.int64)
            places = starts + offset + WORD * word
            sums += arena[places[:, None] + np.arange(WORD)].astype(np.int64) @ block.T
            at += channels
    _store(arena, mem, runs, sums.astype(np.float32), how)


@intrinsic(compiled_form("convolve_channels"))
def convolve_channels(quads: int, arena: Array, mem: Array, runs: Runs, weights: int, bias: int, how: Rounding) -> None:
    """Compute a block of channels, each from the same channel of the operand, at all positions.

    The table `runs` has four distances from a position for each of the `quads` words of weights of a channel.
    """
    starts = mem[runs.inputs : runs.inputs + runs.positions].astype(np.int64) + runs.column
    sums = np.repeat(mem[bias : bias + LANES].astype(np.int64)[None], runs.positions, axis=0)
    for quad in range(quads):
        block = mem[weights + quad * LANES :][:LANES].view(np.int8).reshape(LANES, WORD).astype(np.int64)
        for tap in range(WORD):
            places = starts + mem[runs.runs + WORD * quad + tap]
            sums += arena[places[:, None] + np.arange(LANES)].astype(np.int64) * block[:, tap]
    _store(arena, mem, runs, sums.astype(np.float32), how)


class Pooling(NamedTuple):
    """A pool: whether it takes maxima, the least number of its operand's value, and the divisor of its sums."""

    maximum: int
    least: int
    divisor: int


@intrinsic(compiled_form("pool_channels"))
def pool_channels(arena: Array, mem: Array, runs: Runs, pooling: Pooling, how: Rounding) -> None:
    """Take the mean or the maximum of a block of channels over the `runs.pieces` distances of the table `runs`."""
    starts = mem[runs.inputs : runs.inputs + runs.positions].astype(np.int64) + runs.column
    taps = mem[runs.runs : runs.runs + runs.pieces].astype(np.int64)
    found = arena[starts[:, None, None] + taps[:, None] + np.arange(LANES)].astype(np.int64)
    if pooling.maximum:
        numbers = (found.max(axis=1) + pooling.least).astype(np.float32)
    else:
        sums = found.sum(axis=1) + pooling.least * runs.pieces
        numbers = sums.astype(np.float32) / np.float32(pooling.divisor)
    _store(arena, mem, runs, numbers, how)


class Addends(NamedTuple):
    """The two values of a sum: tables of their positions, their least numbers, and the place of their two scales."""

    first: int
    second: int
    first_least: int
    second_least: int
    scales: int


@intrinsic(compiled_form("add_channels"))
def add_channels(arena: Array, mem: Array, addends: Addends, runs: Runs, how: Rounding) -> None:
    """Add a block of channels of two values, each times its scale."""
    total = None
    for k, (table, least) in enumerate(((addends.first, addends.first_least), (addends.second, addends.second_least))):
        starts = mem[table : table + runs.positions].astype(np.int64) + runs.column
        numbers = (arena[starts[:, None] + np.arange(LANES)].astype(np.int64) + least).astype(np.float32)
        numbers = numbers * mem[addends.scales + k : addends.scales + k + 1].view(np.float32)
        total = numbers if total is None else total + numbers
    assert total is not None
    _store(arena, mem, runs, total, how)


def _store(arena: Array, mem: Array, runs: Runs, numbers: Array, how: Rounding) -> None:
    """Round numbers, float32 ``(positions, channels)``, and write them."""
    channels = numbers.shape[1]
    factors = mem[how.factors : how.factors + channels].view(np.float32)
    with np.errstate(over="ignore"):
        kept = np.clip(numbers * factors, np.float32(how.low), np.float32(how.high))
    places = mem[runs.outputs : runs.outputs + runs.positions].astype(np.int64) + runs.column
    arena[places[:, None] + np.arange(channels)] = (np.rint(kept).astype(np.int64) + how.shift).astype(np.uint8)
