"""Sections 1 to 5 of `coders.md`: range coder, codebooks, values, code symbols, coder 2."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from math import log2

from reference_reader import check

BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8}
EXPONENT = {"float32": 8, "float16": 5, "bfloat16": 8, "int8": 8}


def clamp(x: int, low: int, high: int) -> int:
    """Notation: min(max(x, low), high)."""
    return min(max(x, low), high)


# ------------------------------------------------------------------------------------------------ 1. Range coder


class Model:
    """Section 1.1: a probability of 22 bits and a count."""

    def __init__(self) -> None:
        self.p, self.n = 1 << 21, 0

    def update(self, bit: int, limit: int) -> None:
        """Learn a bit."""
        rate = 131072 // (2 * self.n + 3)
        if bit:
            self.p += (4194303 - self.p) * rate >> 16
        else:
            self.p -= self.p * rate >> 16
        self.n = min(self.n + 1, limit)


def fresh(count: int) -> list[Model]:
    """Return `count` new models."""
    return [Model() for _ in range(count)]


class RangeDecoder:
    """Section 1, "Range coder"."""

    def __init__(self, data: bytes) -> None:
        self.data, self.read = data, 0
        self.code, self.range = 0, 1 << 32
        for _ in range(4):
            self.code = self.code << 8 | self.byte()

    def byte(self) -> int:
        """Return the next byte; zero beyond the end."""
        self.read += 1
        check(self.read <= len(self.data) + 4, "E13", "[A1] a stream that ends early")
        return self.data[self.read - 1] if self.read <= len(self.data) else 0

    def bit(self, p: int) -> int:
        """Return a bit of probability p / 65536."""
        bound = (self.range >> 16) * p
        bit = int(self.code < bound)
        if bit:
            self.range = bound
        else:
            self.code -= bound
            self.range -= bound
        while self.range < 1 << 24:
            self.code = self.code << 8 | self.byte()
            self.range <<= 8
        return bit

    def end(self) -> None:
        """Section 1, "End": reject any stream but the one that is valid for these bits."""
        padded = self.data + bytes(4)
        word = int.from_bytes(padded[self.read - 4 : self.read], "big")
        low = (word - self.code) % (1 << 32)
        value, n = -(-low >> 32) << 32, 0
        if value >= low + self.range:
            value, n = -(-low >> 24) << 24, 1
        check(len(self.data) <= self.read - 4 + n, "E04", "[A1] a stream that is too long")
        check(len(self.data) == self.read - 4 + n, "E13", "[A1] a stream that ends early")
        check(value % (1 << 32) == word, "E13", "[A1] a stream that ends otherwise")

    def direct(self, width: int) -> int:
        """Section 1.1: a direct number."""
        number = 0
        for _ in range(width):
            number = number << 1 | self.bit(32768)
        return number

    def adaptive(self, model: Model, limit: int) -> int:
        """Section 1.1: an adaptive bit."""
        bit = self.bit(clamp(model.p >> 6, 32, 65504))
        model.update(bit, limit)
        return bit

    def tree(self, models: list[Model], first: int, width: int, limit: int) -> int:
        """Section 1.1: a tree."""
        node = 1
        for _ in range(width):
            node = node << 1 | self.adaptive(models[first + node], limit)
        return node - (1 << width)

    def gamma(self, models: list[Model]) -> int:
        """Section 1.2: a gamma number."""
        width = self.tree(models, 0, 6, 60)
        check(width < 32, "E15", "[A5] a number past the last bit pattern")
        t = min(width, 2)
        high = self.tree(models, 64 + 4 * width, t, 60)
        return (1 << width) + (high << width - t) + self.direct(width - t) - 1

    def integer(self, models: list[Model], signed: bool) -> int:
        """Section 1.2: an integer."""
        width = 0
        while width < 31 and self.adaptive(models[width], 60):
            width += 1
        if width == 0:
            return 0
        high = 2 + self.adaptive(models[32 + width], 60)
        absolute = (high << width - 1) + self.direct(width - 1) - 1
        return -absolute if signed and self.adaptive(models[31], 60) else absolute


# ------------------------------------------------------------------------------------- 2. and 3. values


def decode_codebook(coder: RangeDecoder, dtype: str, count: int) -> list[int]:
    """Section 2, "Codebooks": `count` bit patterns."""
    bits = BITS[dtype]
    if dtype == "float32" and coder.direct(1):
        scale = decode_scale(coder)
        first, others, number = fresh(64), fresh(64), 0
        values = []
        for i in range(count):
            number = number + 1 + coder.integer(others, False) if i else coder.integer(first, True)
            check(abs(number) < 1 << 20, "E15", "[A3] a grid's integer")
            values.append(multiply(scale, number))
            check(values[-1] & 0x7FFFFFFF != 0x7F800000, "E15", "[P5] an infinite value of a grid")
        return values
    zeros = coder.direct(5) if dtype != "int8" else 0
    check(zeros < bits, "E08", "[A4] low bits that are zero")
    models, number, half = fresh(192), 0, 1 << bits - 1 - zeros
    values = []
    for i in range(count):
        number = number + 1 + coder.gamma(models) if i else coder.direct(bits - zeros)
        check(number < 2 * half, "E15", "[A5] a number past the last bit pattern")
        if dtype == "int8":
            values.append(number ^ 128)
        else:
            values.append(number - half << zeros if number >= half else (1 << bits - 1) + (half - 1 - number << zeros))
    return values


def decode_scale(coder: RangeDecoder) -> int:
    """Section 2.1, "Scale": a bit pattern."""
    width = coder.direct(5)
    check(width <= 23, "E08", "[A6] bits of a scale")
    exponent = coder.direct(8)
    scale = (exponent << 23) + (coder.direct(width) << 23 - width)
    check(0 < scale < 0x7F800000, "E08", "[A6] a scale that is zero or not finite")
    return scale


def multiply(scale: int, number: int) -> int:
    """Section 2: the binary32 nearest to scale x number, ties to even; a binary64 holds 24 + 20 bits exactly."""
    product = struct.unpack("<f", scale.to_bytes(4, "little"))[0] * number
    try:
        return int.from_bytes(struct.pack("<f", product), "little")
    except OverflowError:
        return 0x7F800000 | (number < 0) << 31


def decode_values(coder: RangeDecoder, dtype: str, count: int) -> list[int]:
    """Section 3, "Value streams": `count` bit patterns."""
    bits, e = BITS[dtype], EXPONENT[dtype]
    if dtype == "float32" and coder.direct(1):
        scale, models = decode_scale(coder), fresh(64)
        numbers = [coder.integer(models, True) for _ in range(count)]
        check(all(abs(number) < 1 << 20 for number in numbers), "E08", "[A7] a grid's integer")
        values = [multiply(scale, number) for number in numbers]
        check(all(value & 0x7FFFFFFF != 0x7F800000 for value in values), "E08", "[A9] an infinite value of a grid")
        return values
    mantissa = max(bits - 1 - e, 0)
    zeros, t = coder.direct(5), coder.direct(2)
    check(zeros <= mantissa, "E08", "[A8] low bits that are zero")
    raw = max(mantissa - t - zeros, 0)
    coded = mantissa - zeros - raw
    models = fresh(257 + 8)
    values = []
    for _ in range(count):
        value = coder.tree(models, 0, e, 60) << mantissa
        if mantissa:
            value |= coder.adaptive(models[256], 60) << bits - 1
            value |= coder.tree(models, 257, coded, 60) << raw + zeros
            value |= coder.direct(raw) << zeros
        values.append(value)
    return values


# ------------------------------------------------------------------------------------------------------ 4. Code symbols


class CodeSymbols:
    """Section 4: an alphabet of code symbols; those below `negatives` stand for negative values."""

    def __init__(self, alphabet: int, negatives: int) -> None:
        self.alphabet, self.negatives = alphabet, negatives
        self.bits = (max(negatives, alphabet - negatives) - 1).bit_length()

    def decode(self, sign: Callable[[], int], bit: Callable[[int, int, int], int]) -> tuple[int, int, int]:
        """Return code symbol, sign and magnitude.

        `sign()` decodes a sign, `bit(sign, k, node)` the k-th bit of a magnitude.
        """
        if self.negatives in (0, self.alphabet):
            minus = int(self.negatives > 0)
        else:
            minus = sign()
        count = self.negatives if minus else self.alphabet - self.negatives
        magnitude = 0
        for k in range(1, self.bits + 1):
            value = 1 << self.bits - k
            node = (1 << k - 1) + (magnitude >> self.bits - k + 1)
            if magnitude + value < count and bit(minus, k, node):
                magnitude += value
        return (self.negatives - 1 - magnitude if minus else self.negatives + magnitude), minus, magnitude


# ----------------------------------------------------------------------------------------------------- 5. Coder 2


def adaptive_chunk(
    coder: RangeDecoder, symbols: CodeSymbols, lines: int, length: int, stored: int
) -> tuple[list[int], list[int]]:
    """Section 5, "Coder 2": places of the entries, and symbols."""
    if stored == 0:
        return [], []
    variant = coder.direct(1)
    limit = (30, 127, 255, 510)[coder.direct(2)]
    return (context_chunk if variant else run_chunk)(coder, symbols, lines, length, stored, limit)


def run_chunk(
    coder: RangeDecoder, symbols: CodeSymbols, lines: int, length: int, stored: int, limit: int
) -> tuple[list[int], list[int]]:
    """Section 5.1, "Variant 0: runs"."""
    width = coder.direct(3) + 1
    escape = (1 << width) - 1
    gaps, models = fresh(1 << width), fresh(max(1 << symbols.bits, 1))
    places, found, at = [], [], 0
    for _ in range(stored):
        while (gap := coder.tree(gaps, 0, width, limit)) == escape:
            at += escape
        at += gap
        check(at < lines * length, "E13", "[A10] an entry beyond the last line")
        symbol, _, _ = symbols.decode(
            lambda: coder.adaptive(models[0], limit), lambda _minus, _k, node: coder.adaptive(models[node], limit)
        )
        places.append(at)
        found.append(symbol)
        at += 1
    return places, found


@cache
def stretch(q: int) -> int:
    """Sections 5.2 and 6.1: stretch(q)."""
    return round(256 * log2((q + 0.5) / (4095.5 - q)))


def level(density: int) -> int:
    """Section 5.2: level(a)."""
    return clamp((stretch(density >> 4) + 1472) // 192, 0, 15)


def context_chunk(
    coder: RangeDecoder, symbols: CodeSymbols, lines: int, length: int, stored: int, limit: int
) -> tuple[list[int], list[int]]:
    """Section 5.2, "Variant 1: contexts"."""
    check(lines * length <= 1 << 28 and length <= 1 << 20, "E06", "[A11] too many cells")
    lag = coder.direct(8)
    trees = 16 if symbols.bits <= 8 else 1
    cells, signs, models = fresh(1024), fresh(9), fresh(trees << symbols.bits)
    start = clamp((stored << 16) // (lines * length), 64, 65472)
    densities, sizes = [start] * length, [-1] * length
    places, found, missing = [], [], stored
    for line in range(lines):
        density, size = start, -1
        speed = clamp(line.bit_length() + 1, 2, 5)
        kinds = [0] * length  # 0 no entry, 1 a positive entry, 2 a negative one
        for column in range(length):
            if missing == 0:
                return places, found
            before = kinds[column - 1] if column else 0
            above = kinds[column - lag] if 0 < lag <= column else 0
            bit = 1
            if missing < lines * length - (line * length + column):
                place = (level(density) * 16 + level(densities[column])) * 4 + 2 * (before > 0) + (above > 0)
                model = cells[place]
                if model.n == 0:
                    model.p = (density + densities[column] >> 1) << 6
                bit = coder.adaptive(model, limit)
            if not bit:
                densities[column] -= densities[column] >> speed
                density -= density >> 5
                continue
            densities[column] += 65535 - densities[column] >> speed
            density += 65535 - density >> 5
            known = [s for s in (size, sizes[column]) if s >= 0]
            tree = sum(known) >> 3 + len(known) if known else 8
            base = tree << symbols.bits if trees > 1 else 0
            symbol, minus, magnitude = symbols.decode(
                lambda before=before, above=above: coder.adaptive(signs[3 * before + above], limit),
                lambda _minus, _k, node, base=base: coder.adaptive(models[base + node], limit),
            )
            scaled = magnitude << 8 >> symbols.bits
            sizes[column] = scaled if sizes[column] < 0 else sizes[column] + (scaled - sizes[column] >> 2)
            size = scaled if size < 0 else size + (scaled - size >> 3)
            kinds[column] = 1 + minus
            places.append(line * length + column)
            found.append(symbol)
            missing -= 1
    return places, found
