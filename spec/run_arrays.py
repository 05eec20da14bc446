"""Arrays of binary32 numbers, in plain Python, for `run_graph.py`."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

Index = tuple[int, ...]


def f32(value: float) -> float:
    """Section 1: a number rounded to binary32."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


class Array:
    """A value: its shape, and its elements in row-major order."""

    def __init__(self, shape: Sequence[int], values: Sequence[float]) -> None:
        self.shape, self.values = list(shape), list(values)

    @classmethod
    def made(cls, shape: Sequence[int], element: Callable[[Index], float]) -> Array:
        """Return an array whose elements a function computes from their places."""
        return cls(shape, [f32(element(index)) for index in places(shape)])

    def at(self, index: Sequence[int]) -> float:
        """Return the element at a place."""
        offset = 0
        for size, place in zip(self.shape, index, strict=True):
            offset = offset * size + place
        return self.values[offset]

    def spread(self, index: Index) -> float:
        """Section 5.4, "Broadcasting": the element at a place of the result."""
        own = index[len(index) - len(self.shape) :]
        return self.at([0 if size == 1 else place for size, place in zip(self.shape, own, strict=True)])


def places(shape: Sequence[int]) -> Iterator[Index]:
    """Return all places of a shape in row-major order."""
    return product(*map(range, shape))


def real(bits: str) -> float:
    """Return the binary32 whose bits are given as hexadecimal digits."""
    return from_bits(int(bits, 16))


def from_bits(bits: int) -> float:
    """Return the binary32 of these bits."""
    return float(struct.unpack("<f", bits.to_bytes(4, "little"))[0])


class Call:
    """An operator that is run: its attributes, its weights and the shape of its result."""

    def __init__(self, operator: dict[str, Any], tensors: dict[str, Array], shape: list[int]) -> None:
        self.a: dict[str, Any] = operator.get("attributes", {})
        self.shape = shape
        self._operator, self._tensors = operator, tensors

    def weight(self, field: str = "weight") -> Array:
        """Return a weight."""
        return self._tensors[self._operator[field]]

    def bias(self, field: str, place: int) -> float:
        """Return an element of a bias; a missing one is 0."""
        name = self._operator.get(field) or self.a.get(field)
        return self._tensors[name].values[place] if name else 0.0


def divided(x: float, y: float) -> float:
    """Return x / y as IEEE 754 does."""
    if y:
        return x / y
    return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1, y)


def sigmoid(x: float) -> float:
    """Section 5.4, "Elementwise"."""
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
