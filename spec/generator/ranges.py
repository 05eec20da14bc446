"""The encoding side of `coders.md`: numbers to bits, and bits to a range coder stream.

The encoder is the reference decoder with its bits given: models learn as they do there, so this file repeats only the
order of the bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reference_coders import BITS, EXPONENT, CodeSymbols, Model, RangeDecoder, adaptive_chunk, decode_values, fresh
from reference_decoder import PRESET
from reference_mixing import mixed_chunk
from reference_text import Text

Bits = list[int]


class RangeEncoder(RangeDecoder):
    """Section 1 of `coders.md`: writes the bits of its queue as the decoder asks for them."""

    def __init__(self) -> None:
        super().__init__(b"")
        self.low, self.shifts = 0, 0
        self.queue: Bits = []

    def bit(self, p: int) -> int:
        """Code the next bit of the queue."""
        bit = self.queue.pop(0)
        bound = (self.range >> 16) * p
        if not bit:
            self.low += bound
        self.range = bound if bit else self.range - bound
        while self.range < 1 << 24:
            self.low, self.range, self.shifts = self.low << 8, self.range << 8, self.shifts + 1
        return bit

    def put(self, number: int, width: int) -> None:
        """Code a direct number."""
        self.queue += number_bits(number, width)
        self.direct(width)

    def put_adaptive(self, model: Model, bit: int, limit: int) -> None:
        """Code an adaptive bit."""
        self.queue.append(bit)
        self.adaptive(model, limit)

    def finish(self) -> bytes:
        """Section 1, "End": the fewest bytes."""
        assert not self.queue
        for n in range(5):
            unit = 1 << 8 * (4 - n)
            value = -(-self.low // unit) * unit
            if value < self.low + self.range:
                break
        return value.to_bytes(4 + self.shifts, "big")[: self.shifts + n]


def number_bits(number: int, width: int) -> Bits:
    """Section 1.1: the bits of a direct number or of a tree, high bit first."""
    return [number >> width - 1 - i & 1 for i in range(width)]


def gamma_bits(number: int) -> Bits:
    """Section 1.2: a gamma number."""
    width = (number + 1).bit_length() - 1
    return number_bits(width, 6) + number_bits(number + 1 - (1 << width), width)


def integer_bits(number: int, signed: bool) -> Bits:
    """Section 1.2: an integer."""
    width = (abs(number) + 1).bit_length() - 1
    bits = [1] * width + [0] * (width < 31) + number_bits(abs(number) + 1 - (1 << width), width)
    return bits + ([int(number < 0)] if signed and number else [])


# ------------------------------------------------------------------------------------- codebooks and values


def encode_codebook(coder: RangeEncoder, dtype: str, codebook: Sequence[int]) -> None:
    """Section 2: a codebook that is not a grid."""
    bits = BITS[dtype]
    if dtype == "float32":
        coder.put(0, 1)
    zeros = 0
    if dtype != "int8":
        while zeros < bits - 2 and not any(value >> zeros & 1 for value in codebook):
            zeros += 1
        coder.put(zeros, 5)
    half = 1 << bits - 1 - zeros
    numbers = []
    for value in codebook:
        if dtype == "int8":
            numbers.append(value ^ 128)
        else:
            magnitude = (value & ~(1 << bits - 1)) >> zeros
            numbers.append(half - 1 - magnitude if value >> bits - 1 else half + magnitude)
    encode_numbers(coder, numbers, bits - zeros)


def encode_numbers(coder: RangeEncoder, numbers: Sequence[int], width: int) -> None:
    """Section 2, step 3: ascending numbers of `width` bits."""
    models = fresh(196)
    for i, number in enumerate(numbers):
        if i == 0:
            coder.put(number, width)
        else:
            coder.queue += gamma_bits(number - numbers[i - 1] - 1)
            coder.gamma(models)


def put_scale(coder: RangeEncoder, scale: int) -> None:
    """Section 2.1: a scale, with all bits of its mantissa."""
    coder.put(23, 5)
    coder.put(scale >> 23, 8)
    coder.put(scale & 0x7FFFFF, 23)


def encode_grid(coder: RangeEncoder, scale: int, integers: Sequence[int]) -> None:
    """Section 2, step 2: a codebook as a grid."""
    coder.put(1, 1)
    put_scale(coder, scale)
    first, others = fresh(64), fresh(64)
    for i, number in enumerate(integers):
        if i:
            coder.queue += integer_bits(number - integers[i - 1] - 1, False)
            coder.integer(others, False)
        else:
            coder.queue += integer_bits(number, True)
            coder.integer(first, True)


def value_bits(dtype: str, values: Sequence[int], zeros: int = 0, t: int = 3) -> Bits:
    """Section 3: a value stream that is not a grid."""
    bits, e = BITS[dtype], EXPONENT[dtype]
    mantissa = max(bits - 1 - e, 0)
    out = [0] * (dtype == "float32") + number_bits(zeros, 5) + number_bits(t, 2)
    for value in values:
        out += number_bits(value >> mantissa & (1 << e) - 1, e)
        if mantissa:
            out.append(value >> bits - 1)
            out += number_bits((value & (1 << mantissa) - 1) >> zeros, mantissa - zeros)
    return out


def grid_value_bits(scale: int, integers: Sequence[int]) -> Bits:
    """Section 3: a value stream that is a grid."""
    out = [1, *number_bits(23, 5), *number_bits(scale >> 23, 8), *number_bits(scale & 0x7FFFFF, 23)]
    for number in integers:
        out += integer_bits(number, True)
    return out


def encode_values(coder: RangeEncoder, dtype: str, bits: Bits, count: int) -> None:
    """Section 3: code the bits of a value stream."""
    coder.queue += bits
    decode_values(coder, dtype, count)


# ---------------------------------------------------------------------------------- tables of code lengths


def encode_lengths(coder: RangeEncoder, alphabet: int, lengths: Sequence[int], lie: Sequence[int] = ()) -> None:
    """Section 6.3 of `dcformat.md`; `lie` gives a form and a false number or false lengths to write."""
    width = (alphabet - 1).bit_length()
    used = [length for length in lengths if length >= 0]
    form = lie[0] if lie else 1 if len(used) == 1 else 0 if list(lengths) == [width] * (1 << width) else 2
    coder.put(form, 2)
    if form == 1:
        coder.put(lie[1] if lie else list(lengths).index(0), width)
    if form < 2:
        return
    models, t, total, p = fresh(11), 1, 0, min(max(width, 1), 12)
    for length in lie[1:] or lengths:
        if total >= 4096:
            return
        coder.put_adaptive(models[0], int(length >= 0), 30)
        if length < 0:
            continue
        coder.put_adaptive(models[1 + t], int(length == p), 30)
        if length == p:
            t = 0
        else:
            shorter = int(length < p)
            coder.put_adaptive(models[4 + t], shorter, 30)
            room, d = p - 1 if shorter else 12 - p, 1
            while d < room:
                more = int(abs(length - p) > d)
                coder.put_adaptive(models[7 + min(d, 4) - 1], more, 30)
                if not more:
                    break
                d += 1
            p, t = length, 1 + shorter
        total += 4096 >> p if 0 < p <= 12 else 0


# ------------------------------------------------------------------------------------------- coders 2 and 3


def symbol_bits(symbols: CodeSymbols, symbol: int) -> Bits:
    """Section 4: the coded bits of a symbol."""
    minus = symbol < symbols.negatives
    count = symbols.negatives if minus else symbols.alphabet - symbols.negatives
    magnitude = symbols.negatives - 1 - symbol if minus else symbol - symbols.negatives
    bits = [int(minus)] if 0 < symbols.negatives < symbols.alphabet else []
    for k in reversed(range(symbols.bits)):
        if (magnitude >> k + 1 << k + 1) + (1 << k) < count:
            bits.append(magnitude >> k & 1)
    return bits


def cell_bits(symbols: CodeSymbols, entries: dict[int, int], cells: Iterable[int], left: int) -> Bits:
    """Sections 5.2 and 6.3: a bit for each cell that is not certain, and the code symbols of entries."""
    bits: Bits = []
    missing = len(entries)
    for cell in cells:
        if missing == 0:
            break
        if missing < left:
            bits.append(int(cell in entries))
        if cell in entries:
            bits += symbol_bits(symbols, entries[cell])
            missing -= 1
        left -= 1
    return bits


def run_bits(symbols: CodeSymbols, entries: dict[int, int], width: int) -> Bits:
    """Section 5.1: gap symbols and code symbols."""
    bits, last, most = number_bits(width - 1, 3), -1, (1 << width) - 1
    for place, symbol in sorted(entries.items()):
        run = place - last - 1
        bits += [1] * width * (run // most) + number_bits(run % most, width) + symbol_bits(symbols, symbol)
        last = place
    return bits


def encode_runs(
    coder: RangeEncoder, symbols: CodeSymbols, lines: int, length: int, entries: dict[int, int], limit: int, width: int
) -> None:
    """Section 5: a chunk under coder 2, variant 0."""
    if entries:
        coder.queue = [0, *number_bits(limit, 2), *run_bits(symbols, entries, width)]
        adaptive_chunk(coder, symbols, lines, length, len(entries))


def encode_cells(
    coder: RangeEncoder, symbols: CodeSymbols, lines: int, length: int, entries: dict[int, int], limit: int, lag: int
) -> None:
    """Section 5: a chunk under coder 2, variant 1."""
    if entries:
        body = [*number_bits(lag, 8), *cell_bits(symbols, entries, range(lines * length), lines * length)]
        coder.queue = [1, *number_bits(limit, 2), *body]
        adaptive_chunk(coder, symbols, lines, length, len(entries))


def encode_mixed(
    coder: RangeEncoder, symbols: CodeSymbols, lines: int, length: int, entries: dict[int, int],
    lag: int = 0, nonempty: tuple[bool, bool] = (False, False),
) -> None:  # fmt: skip
    """Section 6: a chunk under coder 3; `nonempty` says whether nonempty lines and columns are coded."""
    if not entries:
        return
    rows = sorted({place // length for place in entries}) if nonempty[0] else range(lines)
    columns = sorted({place % length for place in entries}) if nonempty[1] else range(length)
    coder.queue = [*number_bits(lag, 8), int(nonempty[0]), int(nonempty[1])]
    if nonempty[0]:
        coder.queue += [int(i in rows) for i in range(lines)]
    if nonempty[1]:
        coder.queue += [int(j in columns) for j in range(length)]
    cells = (i * length + j for i in rows for j in columns)
    coder.queue += cell_bits(symbols, entries, cells, len(rows) * len(columns))
    mixed_chunk(coder, symbols, lines, length, len(entries))


# ----------------------------------------------------------------------------------------------- text coder


def pack_text(contents: bytes, length: int | None = None) -> bytes:
    """Section 7 of `coders.md`, "Text coder"."""
    coder = RangeEncoder()
    n = len(contents) if length is None else length
    coder.put(n.bit_length(), 5)
    if n:
        coder.put(n & (1 << n.bit_length() - 1) - 1, n.bit_length() - 1)
    text = Text(len(PRESET) + n)
    for byte in PRESET:
        text.learn(byte)
    for byte in contents:

        def told(model: object, bit: int) -> int:
            coder.put_adaptive(model, bit, 30)  # type: ignore[arg-type]
            return bit

        text.step(told, byte)
    return coder.finish()
