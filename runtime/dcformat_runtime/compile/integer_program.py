"""Makes programs of networks of integers: places of values in an arena, tables, and weights in the order of reading.

A value has its channels next to each other, filled up to a multiple of `LANES`, and a border as wide as the paddings of
the layers that read it. The border holds the byte that stands for zero; as the arena keeps its contents between calls,
it is written only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Pair
from dcformat.records import record
from dcformat_runtime.compile.integer_network import IntegerImage, IntegerNetwork, Operator
from dcformat_runtime.kernels import integer_kernel as words
from dcformat_runtime.kernels.integer_forms import LANES, QUADS, TILES, WORD

Array = npt.NDArray[Any]

#: Records before they become rows of words: numbers by the names of their places.
Records = list[dict[int, int]]

#: Values begin at multiples of this number of bytes, and the kernels may read this many bytes beyond one.
_LINE = 64
#: The largest offset in the arena and in the constants.
_MOST = (1 << 31) - 1


@record(eq=False)
class IntegerProgram:
    """A program for `kernels.integer_kernel.run_integers`.

    `names` has the operator to which each record belongs; `given` is the number of bytes of a result.
    """

    arena: Array
    mem: Array
    records: Array
    names: tuple[str, ...]
    given: int


class _Place:
    """The place of a value: its first position at `start`, rows `pitch` and positions `step` apart."""

    def __init__(self, image: IntegerImage, channels: int) -> None:
        self.image, self.step = image, channels
        self.before, self.behind = [0, 0], [0, 0]
        self.pitch = self.start = self.bytes = 0

    def widen(self, before: Pair, behind: Pair) -> None:
        """Make the border at least that wide."""
        self.before = [max(pair) for pair in zip(self.before, before, strict=True)]
        self.behind = [max(pair) for pair in zip(self.behind, behind, strict=True)]

    def settle(self, at: int) -> int:
        """Place the value after `at` bytes, and return the end of the bytes that it takes."""
        _, height, width = self.image.size
        self.pitch = self.step * (self.before[1] + width + self.behind[1])
        self.bytes = self.pitch * (self.before[0] + height + self.behind[0])
        self.start = at + self.pitch * self.before[0] + self.step * self.before[1]
        return at + -(-self.bytes // _LINE) * _LINE + _LINE

    def positions(self, size: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Array:
        """Return where the windows of a layer begin, row by row."""
        rows = (np.arange(size[0]) * stride[0] - padding[0]) * self.pitch
        columns = (np.arange(size[1]) * stride[1] - padding[1]) * self.step
        return (self.start + rows[:, None] + columns).reshape(-1)


class _Constants:
    """The words that a program reads; equal tables are stored once."""

    def __init__(self) -> None:
        self.parts: list[Array] = []
        self.count = 0
        self._known: dict[bytes, int] = {}

    def add(self, values: Array) -> int:
        """Store int32 words, or an array of as many bytes, and return their place."""
        table = np.ascontiguousarray(values).view(np.int32).reshape(-1)
        key = table.tobytes()
        if key not in self._known:
            self._known[key] = self.count
            self.parts.append(table)
            self.count += len(table)
        return self._known[key]

    def integers(self, values: Array | Sequence[int]) -> int:
        """Store whole numbers."""
        return self.add(np.asarray(values, np.int32))


def build(network: IntegerNetwork, max_bytes: int | None) -> IntegerProgram | None:
    """Return a program, or None if its arrays take more than `max_bytes`, or a kernel is too large for its tables."""
    places = _places(network)
    end = 0
    for place in places.values():
        end = place.settle(end)
    entries = sum(op.target.size[1] * op.target.size[2] for op in network.operators)
    sizes = sum(op.weights.size for op in network.operators if op.weights is not None)
    channels = sum(op.target.size[0] for op in network.operators)
    need = end + 24 * entries + LANES * WORD * (sizes + channels)
    if end > _MOST or need > _MOST or (max_bytes is not None and need > max_bytes):
        return None
    arena = np.zeros(end, np.uint8)
    constants = _Constants()
    records: Records = []
    names: list[str] = []
    for place in places.values():
        first = place.start - place.before[0] * place.pitch - place.before[1] * place.step
        arena[first : first + place.bytes] = -place.image.least
    for op in network.operators:
        made = _EMITTERS[op.kind](op, places, constants)
        if made is None:
            return None
        records += made
        names += [op.name] * len(made)
    records.append(_output(network, places))
    program = np.zeros((len(records), words.RECORD), np.int64)
    for row, fields in zip(program, records, strict=True):
        for field, number in fields.items():
            row[field] = number
    mem = np.concatenate([*constants.parts, np.zeros(LANES, np.int32)])
    return IntegerProgram(arena, mem, program, (*names, "output"), prod(network.output.shape))


def _places(network: IntegerNetwork) -> dict[int, _Place]:
    """Return the places of all values, with their borders."""
    places: dict[int, _Place] = {}
    for op in network.operators:
        channels = -(-op.target.size[0] // LANES) * LANES
        dense = op.kind == "input" and op.target.size[0] < LANES
        places[op.target.number] = _Place(op.target, op.target.size[0] if dense else channels)
        if op.weights is not None:
            windows, (source,) = op.windows, op.sources
            ends = [
                (op.target.size[1 + i] - 1) * windows.stride[i]
                + windows.dilation[i] * (op.weights.shape[2 + i] - 1) + 1 - windows.padding[i] - source.size[1 + i]
                for i in range(2)
            ]  # fmt: skip
            places[source.number].widen(windows.padding, (max(ends[0], 0), max(ends[1], 0)))
    return places


def _input(op: Operator, places: dict[int, _Place], constants: _Constants) -> Records:
    place, view = places[op.target.number], op.view
    assert view is not None
    strides = view.strides if len(view.strides) == 3 else (view.strides[0], 0, 0)
    if op.target.size[0] == 1:
        strides = (1, *strides[1:])
    return [{words.CODE: words.INPUT, words.CHANGE: op.flip, **_copied(place, strides)}]


def _output(network: IntegerNetwork, places: dict[int, _Place]) -> dict[int, int]:
    image = network.output
    _, height, width = image.size
    change = image.least + image.shift
    return {
        words.CODE: words.OUTPUT, words.CHANGE: change, **_copied(places[image.number], (height * width, width, 1))
    }  # fmt: skip


def _copied(place: _Place, strides: Sequence[int]) -> dict[int, int]:
    channels, height, width = place.image.size
    return {
        words.PLACE: place.start, words.PLANES: channels, words.ROWS: height, words.COLUMNS: width,
        words.OUT_PLANE: strides[0], words.OUT_ROW: strides[1], words.OUT_COLUMN: strides[2], words.ROW: place.pitch,
        words.STEP: place.step,
    }  # fmt: skip


def _filled(values: Array, length: int) -> Array:
    """Return an array with zeros at the end of its first dimension."""
    return np.concatenate([values, np.zeros((length - len(values), *values.shape[1:]), values.dtype)])


def _rounding(op: Operator) -> dict[int, int]:
    """Return the limits of a result, and the number that is added to make bytes."""
    return {words.LOW: op.target.least, words.HIGH: op.target.greatest, words.SHIFT: -op.target.least}


def _tables(op: Operator, places: dict[int, _Place], constants: _Constants, tile: int = 1) -> dict[int, int]:
    """Store the positions of a result and of the windows in its operand; a multiple of `tile` of them."""
    size, windows = op.target.size[1:], op.windows
    starts = places[op.sources[0].number].positions(size, windows.stride, windows.padding)
    ends = places[op.target.number].positions(size)
    more = -len(starts) % tile  # the last position is computed several times
    starts, ends = (np.concatenate([table, np.repeat(table[-1:], more)]) for table in (starts, ends))
    return {
        words.INPUTS: constants.integers(starts), words.OUTPUTS: constants.integers(ends), words.POSITIONS: len(starts),
    }  # fmt: skip


def _words(op: Operator, source: _Place) -> tuple[Array, Array]:
    """Return how far each word that a window reads lies from its position, and the weights (words, out, WORD).

    Adjacent bytes share words; where their number is no multiple of a word, zeros follow.
    """
    assert op.weights is not None
    out, channels, height, width = op.weights.shape
    taps = op.weights.transpose(0, 2, 3, 1)
    whole = source.step == channels and op.windows.dilation[1] == 1
    offsets, parts = [], []
    for row in range(height):
        for column in range(1 if whole else width):
            part = taps[:, row].reshape(out, -1) if whole else taps[:, row, column]
            part = np.pad(part, ((0, 0), (0, -part.shape[1] % WORD)))
            start = op.windows.dilation[0] * row * source.pitch + op.windows.dilation[1] * column * source.step
            offsets.append(start + np.arange(0, part.shape[1], WORD))
            parts.append(part)
    weights = np.concatenate(parts, axis=1).reshape(out, -1, WORD).transpose(1, 0, 2)
    return np.concatenate(offsets), weights


def _runs(offsets: Array) -> Array:
    """Return the runs of adjacent words: the offset of the first, and their number."""
    if not len(offsets):
        return np.zeros((0, 2), np.int64)
    starts = np.flatnonzero(np.diff(offsets, prepend=offsets[0] - 2 * WORD) != WORD)
    return np.stack([offsets[starts], np.diff(starts, append=len(offsets))], axis=1)


def _convolution(op: Operator, places: dict[int, _Place], constants: _Constants) -> Records:
    assert op.bias is not None and op.factors is not None
    offsets, weights = _words(op, places[op.sources[0].number])
    positions = op.target.size[1] * op.target.size[2]
    records: Records = []
    for first, blocks in _blocks(op.target.size[0], positions):
        channels = slice(first * LANES, (first + blocks) * LANES)
        tile = min(TILES[blocks], key=lambda k: (-(-positions // k) * (k * blocks + 2), k))
        part = weights[:, channels]
        kept = part.any(axis=(1, 2))  # words whose weights are all zero are left out
        runs = _runs(offsets[kept])
        part = np.pad(part[kept], ((0, 0), (0, blocks * LANES - part.shape[1]), (0, 0)))
        records.append({
            words.CODE: words.CONVOLVE, words.K: tile, words.N: blocks, words.RUNS: constants.integers(runs),
            words.COUNT: len(runs), words.COLUMN: first * LANES, words.WEIGHTS: constants.add(part),
            words.BIAS: constants.add(_filled(op.bias[channels], blocks * LANES)),
            words.FACTORS: constants.add(_filled(op.factors[channels], blocks * LANES)),
            **_tables(op, places, constants, tile), **_rounding(op),
        })  # fmt: skip
    return records


def _blocks(channels: int, positions: int) -> Iterator[tuple[int, int]]:
    """Yield the first block and the number of blocks of channels that are computed together."""
    first, left = 0, -(-channels // LANES)
    while left:
        blocks = max(n for n in TILES if n <= left and (n < 8 or positions == 1))
        yield first, blocks
        first, left = first + blocks, left - blocks


def _channels(op: Operator, places: dict[int, _Place], constants: _Constants) -> Records | None:
    assert op.weights is not None and op.bias is not None and op.factors is not None
    source, (out, _, height, width) = places[op.sources[0].number], op.weights.shape
    quads = next((n for n in QUADS if n * WORD >= height * width), None)
    if quads is None:
        return None
    rows, columns = np.arange(height) * op.windows.dilation[0], np.arange(width) * op.windows.dilation[1]
    taps = (rows[:, None] * source.pitch + columns * source.step).reshape(-1)
    table = constants.integers(_filled(taps, quads * WORD))
    weights = np.pad(op.weights.reshape(out, -1), ((0, 0), (0, quads * WORD - height * width)))
    shared = {words.CODE: words.CHANNELS, words.K: quads, words.RUNS: table, **_tables(op, places, constants)}
    records = []
    for first in range(0, out, LANES):
        part = _filled(weights[first : first + LANES], LANES).reshape(LANES, quads, WORD).transpose(1, 0, 2)
        records.append({
            **shared, words.COLUMN: first, words.WEIGHTS: constants.add(part),
            words.BIAS: constants.add(_filled(op.bias[first : first + LANES], LANES)),
            words.FACTORS: constants.add(_filled(op.factors[first : first + LANES], LANES)), **_rounding(op),
        })  # fmt: skip
    return records


def _pool(op: Operator, places: dict[int, _Place], constants: _Constants) -> Records:
    assert op.factors is not None
    (image,), (height, width) = op.sources, op.windows.kernel
    source = places[image.number]
    taps = (np.arange(height)[:, None] * source.pitch + np.arange(width) * source.step).reshape(-1)
    shared = {
        words.CODE: words.POOL, words.RUNS: constants.integers(taps), words.COUNT: len(taps),
        words.MAXIMUM: op.maximum, words.LEAST: image.least, words.DIVISOR: len(taps),
        **_tables(op, places, constants), **_rounding(op),
    }  # fmt: skip
    return _by_block(op, op.factors, shared, constants)


def _add(op: Operator, places: dict[int, _Place], constants: _Constants) -> Records:
    assert op.factors is not None
    first, second = op.sources
    starts = places[second.number].positions(second.size[1:])
    shared = {
        words.CODE: words.ADD, words.SECOND: constants.integers(starts), words.LEAST: first.least,
        words.SECOND_LEAST: second.least, words.SCALES: constants.add(np.array(op.scales, np.float32)),
        **_tables(op, places, constants), **_rounding(op),
    }  # fmt: skip
    return _by_block(op, op.factors, shared, constants)


def _by_block(op: Operator, factors: Array, shared: dict[int, int], constants: _Constants) -> Records:
    return [
        {**shared, words.COLUMN: first, words.FACTORS: constants.add(_filled(factors[first : first + LANES], LANES))}
        for first in range(0, op.target.size[0], LANES)
    ]


def _softmax(op: Operator, places: dict[int, _Place], constants: _Constants) -> Records:
    assert op.factors is not None
    (image,), (scale,) = op.sources, op.scales
    return [{
        words.CODE: words.SOFTMAX, words.INPUTS: places[image.number].start, words.COUNT: image.size[0],
        words.OUTPUTS: places[op.target.number].start, words.LEAST: image.least,
        words.SCALES: constants.add(np.array([scale, op.factors[0]], np.float32)), **_rounding(op),
    }]  # fmt: skip


_EMITTERS: dict[str, Any] = {
    "input": _input, "convolve": _convolution, "channels": _channels, "pool": _pool, "add": _add, "softmax": _softmax,
}  # fmt: skip
