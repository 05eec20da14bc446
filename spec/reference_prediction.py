"""Coder 6 of `coders.md`, section 9: prediction of the integers of int8 tensors."""

from __future__ import annotations

from dataclasses import dataclass

from reference_coders import RangeDecoder, clamp, fresh, stretch
from reference_mixing import Mixer, log_odds, squash
from reference_reader import check

#: Taps that look within the block: rows up, columns left.
TAPS = {
    0: (0, 1), 1: (0, 2), 2: (0, 3), 4: (1, 0), 5: (1, 1), 6: (1, -1), 7: (1, 2), 8: (1, -2), 9: (2, 0), 10: (2, 1),
    11: (2, -1), 12: (3, 0),
}  # fmt: skip
LINE_BEFORE, BLOCK_BEFORE = 3, 13
LIMIT = 510


@dataclass
class Predictor:
    """Section 9.1, "Parameters"."""

    length: int
    width: int
    height: int
    coefficients: list[int]

    def mean(self, known: list[int]) -> int:
        """Section 9.2: the mean of the integer that follows those of the chunk that are known."""
        total = sum(c * self.seen(tap, known) for tap, c in enumerate(self.coefficients))
        return clamp(total, -8192, 8128)

    def seen(self, tap: int, known: list[int]) -> int:
        """Return the integer that a tap sees."""
        i, j = divmod(len(known), self.length)
        block = self.width * self.height
        if tap == LINE_BEFORE:
            return known[-self.length] if i else 0
        if tap == BLOCK_BEFORE:
            return known[-block] if j >= block else 0
        row, x = divmod(j % block, self.width)
        up, left = TAPS[tap]
        inside = row >= up and 0 <= x - left < self.width
        return known[-up * self.width - left] if inside else 0


def read_predictor(coder: RangeDecoder, length: int) -> Predictor:
    """Section 9.1, "Parameters"."""
    taps = coder.direct(4)
    check(taps != 15, "E13", "[A21] too many taps")
    if taps == 0:
        return Predictor(length, length, 1, [])
    models = fresh(64)
    numbers = [coder.integer(models, True) for _ in range(2 + taps)]
    width, height, coefficients = numbers[0] + 1, numbers[1] + 1, numbers[2:]
    check(width >= 1 and height >= 1 and width * height <= length, "E13", "[A22] the size of a block")
    check(all(abs(c) <= 256 for c in coefficients), "E13", "[A22] a coefficient")
    return Predictor(length, width, height, coefficients)


def predicted_chunk(coder: RangeDecoder, lines: int, length: int) -> list[int]:
    """Section 9, "Prediction": the bit patterns of a chunk's integers."""
    check(lines * length <= 1 << 26 and length <= 1 << 20, "E06", "[A20] too many integers")
    predictor = read_predictor(coder, length)
    integers = IntegerDecoder(coder)
    known: list[int] = []
    total, columns = 0, [0] * length
    for i in range(lines):
        along = 0
        recent = (total + 640) // (i * length + 1) << 6
        for j in range(length):
            mean = predictor.mean(known)
            usual = max((total + 640) // (i * length + j + 1), 1)
            a = (along + 16 * usual) // (j + 16)
            c = (columns[j] + 6 * usual) // (i + 6)
            scales = [max(a * c // usual, 8), max(recent >> 6, 8), max(c, 8)]
            known.append(integers.decode(mean, scales))
            error = abs(64 * known[-1] - mean)
            total, along, columns[j] = total + error, along + error, columns[j] + error
            recent += (error << 6) - recent >> 3
    return [x & 255 for x in known]


class IntegerDecoder:
    """Section 9.3, "Integers"."""

    def __init__(self, coder: RangeDecoder) -> None:
        self.coder = coder
        self.models = fresh(33 * 256)
        self.mixers = [Mixer((30, 30, 10, 5, 10), 4, 75) for _ in range(8)]

    def decode(self, mean: int, scales: list[int]) -> int:
        """Decode an integer."""
        v, h, node = -128, 256, 1
        for mixer in self.mixers:
            h >>= 1
            models = [self.models[node], self.models[256 * (1 + (mean + 8192 >> 9)) + node]]
            inputs = [distribution(mean, scale, v, h) for scale in scales] + [log_odds(model) for model in models]
            bit = self.coder.bit(clamp(squash(mixer.predict(inputs)), 32, 65504))
            mixer.learn(inputs, bit)
            for model in models:
                model.update(bit, LIMIT)
            v, node = v + h * bit, 2 * node + bit
        return v


def distribution(mean: int, scale: int, v: int, h: int) -> int:
    """Return the input of a distribution for the interval from v that is 2 x h long."""
    low, cut, high = share(mean, scale, v), share(mean, scale, v + h), share(mean, scale, v + 2 * h)
    return stretch((high - cut + 20 * h << 12) // (high - low + 40 * h))


def share(mean: int, scale: int, v: int) -> int:
    """Return the part of a distribution below v, in 2^-20."""
    if v == -128:
        return 0
    if v == 128:
        return 1 << 20
    d = clamp((64 * v - 32 - mean) * ((1 << 29) // scale) >> 16, -49136, 49135)
    n, f = d >> 4, d & 15
    return 16 * squash(n) + f * (squash(n + 1) - squash(n))
