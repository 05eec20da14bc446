"""Where things lie: constants packed into one array, values of a network placed in an arena."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import LimitError
from dcformat.graph import Concat, Conv2d, Flatten, Shape
from dcformat.records import record
from dcformat_runtime.network import Floats, Network
from dcformat_runtime.ops import MAX_WORD

_ALIGN = 16  # floats: a cache line
#: Floats of an arena before anybody looks whether it is too large.
_ENDLESS = 1 << 256


def aligned(n: int) -> int:
    """Round up to whole cache lines."""
    return -(-n // _ALIGN) * _ALIGN


def aligned_zeros(n: int) -> Floats:
    """Return `n` zeros that start on a cache line."""
    raw = np.zeros(n + _ALIGN, np.float32)
    start = -raw.ctypes.data % (4 * _ALIGN) // 4
    return raw[start : start + n]


class Room:
    """Numbers the places of constants that are not there yet: what a program would take."""

    def __init__(self) -> None:
        self.size = 0

    def skip(self, floats: int) -> int:
        """Make room, and return its offset in floats."""
        at = self.size
        self.size = aligned(at + floats)
        return at

    def put_words(self, words: Sequence[int]) -> int:
        """Make room for int32 words, and return its offset."""
        return self.skip(len(words))

    def put_records(self, records: Sequence[Sequence[int]], width: int) -> int:
        """Make room for records of `width` int32 words each, filled up with zeros, and return its offset."""
        return self.skip(len(records) * width)


class Constants(Room):
    """Collects arrays of float32 and of integers (kept as int32, or uint16 and uint8 packed) into one array."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[tuple[int, npt.NDArray[Any]]] = []

    def put_words(self, words: Sequence[int]) -> int:
        """Add words. Raises `LimitError` for integers that do not fit."""
        return self._add(words)

    def put_records(self, records: Sequence[Sequence[int]], width: int) -> int:
        """Add records. Raises `LimitError` for integers that do not fit."""
        table = np.zeros((len(records), width), np.int64)
        for row, words in zip(table, records, strict=True):
            row[: len(words)] = words
        return self._add(table)

    def _add(self, words: npt.ArrayLike) -> int:
        array = np.asarray(words)
        at = self.skip(array.size)
        self.fill(at, array)
        return at

    def fill(self, at: int, array: npt.NDArray[Any]) -> None:
        """Put an array where room was made for it. Raises `LimitError` for integers that do not fit."""
        if array.dtype == np.uint8:
            array = array.view(np.int32)  # whole blocks of 16
        elif array.dtype == np.uint16:
            array = np.concatenate((array, np.zeros(array.size % 2, np.uint16))).view(np.int32)
        elif array.dtype != np.float32:
            if array.dtype != np.int32 and array.size and max(-int(array.min()), int(array.max())) > MAX_WORD:
                raise LimitError("running the network", got=int(abs(array).max()), expected=f"at most {MAX_WORD}")
            array = array.astype(np.int32)
        self._parts.append((at, array.reshape(-1)))

    def finish(self) -> Floats:
        """Return everything as one float32 array; integers are kept bit for bit."""
        out = aligned_zeros(self.size)
        while self._parts:  # each can go when it is copied
            at, part = self._parts.pop()
            out.view(part.dtype)[at : at + part.size] = part
        return out


class Arena:
    """Places buffers in an arena, first fit; `size` is what it needs at most at a time."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = [(0, _ENDLESS)]
        self.size = 0

    def take(self, floats: int) -> tuple[int, int]:
        """Return a buffer: its offset, and its size with room for a block more."""
        size = aligned(floats + _ALIGN)
        for k, (at, room) in enumerate(self._free):
            if room >= size:
                self._free[k] = (at + size, room - size)
                self.size = max(self.size, at + size)
                return at, size
        raise AssertionError("the last free range has no end")

    def give(self, buffer: tuple[int, int]) -> None:
        """Take a buffer back."""
        self._free = sorted([*self._free, buffer])
        joined: list[tuple[int, int]] = []
        for at, size in self._free:
            if joined and joined[-1][0] + joined[-1][1] == at:
                joined[-1] = (joined[-1][0], joined[-1][1] + size)
            else:
                joined.append((at, size))
        self._free = joined


class Home(NamedTuple):
    """The storage of a value, and where in it the value starts (elements of one lane)."""

    storage: int
    offset: int


@record
class Homes:
    """`of` each value: its storage. Of each storage: its size in elements, and the last layer that reads it."""

    of: dict[int, Home]
    sizes: dict[int, int]
    last: dict[int, int]


def plane(shape: Shape, flat: bool) -> int:
    """Positions from one channel of a value to the next: for one image (`flat`) up to whole cache lines."""
    positions = prod(shape[1:])
    return aligned(positions) if flat and positions > 1 else positions


def size(shape: Shape, flat: bool) -> int:
    """Elements that a value takes, filled up planes included."""
    return shape[0] * plane(shape, flat)


def homes(network: Network, flat: bool) -> Homes:
    """Give each value its storage; values that are views of one another share one.

    A flattened value is its source, if that has no filled up planes. What a convolution makes for a `Concat` alone is
    made in its place there. The input never has filled up planes.
    """
    layers = network.layers
    uses: dict[int, int] = {network.output: 1}
    for layer in layers:
        for value in layer.inputs:
            uses[value] = uses.get(value, 0) + 1
    makers = {layer.output: layer for layer in layers}
    joins: dict[int, Home] = {}
    for layer in layers:
        offset = 0
        for value, shape in zip(layer.inputs, layer.in_shapes, strict=True):
            maker = makers.get(value)
            made_alone = maker is not None and isinstance(maker.node, Conv2d) and maker.pool is None
            if isinstance(layer.node, Concat) and made_alone and uses[value] == 1:
                joins[value] = Home(layer.output, offset)
            offset += size(shape, flat)
    of = {0: Home(0, 0)}
    sizes = {0: prod(network.input_shape)}
    last = {0: -1}
    for k, layer in enumerate(layers):
        value = layer.output
        shape = layer.in_shapes[0]
        if isinstance(layer.node, Flatten) and (layer.inputs[0] == 0 or size(shape, flat) == prod(shape)):
            of[value] = of[layer.inputs[0]]
        else:
            of[value] = joins.get(value, Home(value, 0))
            if value not in joins:
                sizes[value] = size(layer.out_shape, flat)
        for read in (*layer.inputs, value):
            last[of[read].storage] = k
    last[of[network.output].storage] = len(layers)
    return Homes(of, sizes, last)
