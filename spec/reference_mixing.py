"""Coder 3 of `coders.md`, section 6: logistic mixing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from math import log2

from reference_coders import CodeSymbols, Model, RangeDecoder, clamp, fresh, stretch
from reference_reader import check

# ----------------------------------------------------------------------------------------- 6.1 Tables and mixing

NEAR = {1: 1024, 2: 181, 4: 32, 5: 18, 8: 6}
LIMIT = 510


@cache
def squash(x: int) -> int:
    """Return the integer nearest to 65536 / (1 + 2^(-x / 256))."""
    return round(65536 / (1 + 2 ** (-x / 256)))


@cache
def log(n: int) -> int:
    """Return the integer nearest to 256 x log2(n)."""
    if n >= 8192:
        return log(n >> 1) + 256
    return round(256 * log2(n)) if n else 0


def log_odds(model: Model) -> int:
    """Return the log-odds of a model."""
    return stretch(model.p >> 10) * (2560 * model.n // (10 * model.n + 18)) >> 8


def odds(a: int, b: int, f: int, k: int) -> int:
    """Return the log-odds of `a` entries among `b` cells; `f` is a density in 1/4096, and `k` its weight in cells."""
    return log(a * 4096 + k * f) - log((b - a) * 4096 + k * (4096 - f))


class Mixer:
    """Five weights and a count."""

    def __init__(self, weights: tuple[int, ...], base: int, gain: int) -> None:
        self.weights, self.base, self.gain, self.count = [655 * w for w in weights], base, gain, 0

    def predict(self, inputs: list[int]) -> int:
        """Return the prediction."""
        return clamp(sum(w * x for w, x in zip(self.weights, inputs, strict=True)) >> 16, -3071, 3071)

    def learn(self, inputs: list[int], bit: int) -> None:
        """Learn the bit that followed."""
        error = (bit << 16) - squash(self.predict(inputs))
        step = self.base + self.gain // (min(self.count, 127) + 4)
        self.weights = [w + (x * error * step + 131072 >> 18) for w, x in zip(self.weights, inputs, strict=True)]
        self.count += 1


# ------------------------------------------------------------------------------------------------ 6.2 Parameters


def mixed_chunk(
    coder: RangeDecoder, symbols: CodeSymbols, lines: int, length: int, stored: int
) -> tuple[list[int], list[int]]:
    """Section 6, "Coder 3": the places of the entries, and their code symbols."""
    if stored == 0:
        return [], []
    check(lines * length <= 1 << 26 and length <= 1 << 20, "E06", "[A12] too many cells")
    lag = coder.direct(8)
    check(lag != 1, "E13", "[A13] a lag of 1")
    lines_coded, columns_coded = coder.direct(1), coder.direct(1)
    nonempty_lines, nonempty_columns = [True] * lines, [True] * length
    if lines_coded:
        models = fresh(8)
        for i in range(lines):
            nonempty_lines[i] = bool(coder.adaptive(models[i > 0 and nonempty_lines[i - 1]], 60))
    if columns_coded:
        models = fresh(8)
        for j in range(length):
            number = int(j > 0 and nonempty_columns[j - 1])
            if lag:
                number += 2 * (j >= lag and nonempty_columns[j - lag])
                number += 4 * (j >= lag - 1 and nonempty_columns[j - lag + 1])
            nonempty_columns[j] = bool(coder.adaptive(models[number], 60))
    lines_left = [i for i in range(lines) if nonempty_lines[i]]
    columns_left = [j for j in range(length) if nonempty_columns[j]]
    check(len(lines_left) * len(columns_left) >= stored, "E13", "[A14] fewer cells than entries")
    return ChunkDecoder(coder, symbols, lag, length, lines_left, columns_left, stored).decode()


# ----------------------------------------------------------------------------------------------------- 6.3 Cells


@dataclass
class Column:
    """The state of a column."""

    entries: int = 0
    signs: int = 0
    magnitudes: int = 0
    before: int = 0  # its cell in the nonempty line before: 0 no entry, 1 positive, 2 negative


@dataclass
class Line:
    """The state of the present line."""

    density: int
    entries: int = 0
    cells: int = 0
    balance: int = 0
    magnitudes: int = 0
    #: Columns to (1 or -1, magnitude) of entries; groups to numbers of entries.
    cell: dict[int, tuple[int, int]] = field(default_factory=dict)
    groups: dict[int, int] = field(default_factory=dict)
    last_cell: int = 0


class ChunkDecoder:
    """Sections 6.3, "Cells", and 6.4, "Code symbols"."""

    def __init__(
        self,
        coder: RangeDecoder,
        symbols: CodeSymbols,
        lag: int,
        length: int,
        lines: list[int],
        columns: list[int],
        stored: int,
    ) -> None:
        self.coder, self.symbols, self.lag, self.length = coder, symbols, lag, length
        self.lines, self.columns, self.missing = lines, columns, stored
        self.density = clamp((stored << 12) // (len(lines) * len(columns)), 1, 4095)
        self.column: defaultdict[int, Column] = defaultdict(Column)
        self.groups: dict[int, list[int]] = {}  # entries, cells
        self.last: tuple[int, int] | None = None  # sign and magnitude of the last code symbol
        self.usual = (stored << 4) // len(lines)
        self.cell_models = fresh(2048 + 2048 + 512)
        self.cell_mixers = [Mixer((38, 15, 13, 5, 34), 4, 75) for _ in range(17)]
        self.sign_models = fresh(125)
        self.trees = fresh((598 if symbols.bits <= 8 else 8) << symbols.bits)
        self.symbol_mixers = [Mixer((3, 22, 38, 22, 16), 6, 155) for _ in range(9)]

    def decode(self) -> tuple[list[int], list[int]]:
        """Go through the cells, line by line."""
        places, found = [], []
        left = len(self.lines) * len(self.columns)
        for before, number in enumerate(self.lines):
            line = Line(clamp(self.density + (self.usual << 8) // len(self.columns) >> 1, 1, 4095))
            for j in self.columns:
                if self.missing == 0:
                    return places, found
                symbol = self.cell(line, j, before, self.missing == left)
                left -= 1
                if symbol is not None:
                    places.append(number * self.length + j)
                    found.append(symbol)
            for j in self.columns:
                sign, _ = line.cell.get(j, (0, 0))
                self.column[j].before = sign % 3
            self.usual = self.usual + 16 * line.entries >> 1
        return places, found

    def near(self, line: Line, j: int) -> tuple[int, int]:
        """Section 6.3: strength and pull of the neighbours."""
        s = t = 0
        for a in range(3 if self.lag else 1):
            for b in range(-2, 3 if a else 0):
                column = j - a * self.lag + b
                if not 0 <= column < j or column not in line.cell:
                    continue
                sign, magnitude = line.cell[column]
                weight = NEAR[a * a + b * b]
                s += weight * (4 + (8 * magnitude >> self.symbols.bits)) >> 2
                t += sign * weight
        return s, t

    def cell(self, line: Line, j: int, lines_before: int, certain: bool) -> int | None:
        """Decode a cell; return its code symbol if it is an entry."""
        q, i = divmod(j, self.lag or 1)
        group, column = self.groups.setdefault(q, [0, 0]), self.column[j]
        strength, pull = self.near(line, j)
        s = clamp((log(strength) >> 7) - 8, 1, 15) if strength else 0
        if certain:
            entry = True
        else:
            f, m = self.density, min(line.groups.get(q, 0), 31)
            x0 = odds(group[0], group[1], f, 23)
            numbers = (
                (clamp(x0 - log(f) + log(4096 - f) + 2048 >> 7, 0, 31) * 32 + m) * 2 + line.last_cell,
                2048 + min(i, 63) * 32 + m,
                4096 + s * 32 + clamp(odds(line.entries, line.cells, line.density, 25) + 4096 >> 8, 0, 31),
            )
            models = [self.cell_models[n] for n in numbers]
            inputs = [x0, odds(column.entries, lines_before, f, 12), *map(log_odds, models)]
            entry = bool(self.mixed([self.cell_mixers[0], self.cell_mixers[1 + s]], models, inputs))
        group[1] += 1
        line.cells += 1
        line.last_cell = int(entry)
        if not entry:
            return None
        symbol, minus, magnitude = self.symbol(line, column, s, pull)
        scaled, sign = magnitude << 8 >> self.symbols.bits, 1 - 2 * minus
        self.missing -= 1
        group[0] += 1
        line.entries, line.balance, line.magnitudes = line.entries + 1, line.balance + sign, line.magnitudes + scaled
        line.groups[q] = line.groups.get(q, 0) + 1
        line.cell[j] = (sign, magnitude)
        column.entries, column.signs = column.entries + 1, column.signs + sign
        column.magnitudes += scaled
        self.last = (minus, magnitude)
        return symbol

    def mixed(self, mixers: list[Mixer], models: list[Model], inputs: list[int]) -> int:
        """Sections 6.3 and 6.4: a bit from the mean of the mixers' predictions; mixers and models learn it."""
        prediction = sum(each.predict(inputs) for each in mixers) // len(mixers)
        bit = self.coder.bit(clamp(squash(prediction), 32, 65504))
        for each in mixers:
            each.learn(inputs, bit)
        for model in models:
            model.update(bit, LIMIT)
        return bit

    # -------------------------------------------------------------------------------------------- 6.4 Code symbols

    def symbol(self, line: Line, column: Column, s: int, pull: int) -> tuple[int, int, int]:
        """Section 6.4: code symbol, sign and magnitude of an entry."""

        def mixed(which: int, models: list[Model]) -> int:
            return self.mixed([self.symbol_mixers[which]], models, list(map(log_odds, models)))

        def sign() -> int:
            r, c = clamp(line.balance + 4, 0, 8), clamp(column.signs + 4, 0, 8)
            t = max((log(abs(pull)) >> 7) - 12, 1) * (1 if pull > 0 else -1) if pull else 0
            last = 0 if self.last is None else 1 + self.last[0]
            numbers = (0, 1 + 9 * r + c, 94 + t, 107 + 3 * column.before + last, 116 + r)
            return mixed(0, [self.sign_models[n] for n in numbers])

        def mean(total: int, count: int) -> int:
            return (total // count >> 4) + 1 if count else 0

        def bit(minus: int, k: int, node: int) -> int:
            if self.symbols.bits > 8:
                trees = (minus, 2, 3, 4, 6 + minus)
            else:
                r, c = mean(line.magnitudes, line.entries), mean(column.magnitudes, column.entries)
                m = 0 if self.last is None else self.last[1] + 1
                trees = (minus, 2 + 17 * r + c, 291 + s, 307 + m, 564 + 2 * r + minus)
            return mixed(min(k, 8), [self.trees[(tree << self.symbols.bits) + node] for tree in trees])

        return self.symbols.decode(sign, bit)
