"""Sections 6.2 and 6.3 of `dcformat.md`: the streams of packed chunks, and the codes of their symbols."""

from __future__ import annotations

from reference_coders import RangeDecoder, fresh
from reference_reader import check

#: A code: (length, word) to symbol.
Code = dict[tuple[int, int], int]


def planes(alphabet: int) -> list[int]:
    """Section 6.2: the sizes of the planes of an alphabet of code symbols."""
    if alphabet == 1:
        return []
    return [alphabet] if alphabet <= 256 else [256, -(-alphabet // 256)]


def canonical(lengths: list[int]) -> Code:
    """Section 6.2, "Coder 1": canonical Huffman codes; a length of -1 means that the symbol is not in use."""
    code: Code = {}
    word = last = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length >= 0):
        word <<= length - last
        code[length, word] = symbol
        word, last = word + 1, length
    return code


def code_lengths(coder: RangeDecoder, alphabet: int) -> list[int]:
    """Section 6.3: the length of each symbol's code; -1 for symbols not in use."""
    width = (alphabet - 1).bit_length()
    form = coder.direct(2)
    check(form != 3, "E12", "[K7] an unknown form of table")
    lengths = [-1] * alphabet
    if form == 0:
        lengths = [width] * alphabet
    elif form == 1:
        symbol = coder.direct(width)
        check(symbol < alphabet, "E12", "[K10] a symbol past the alphabet")
        lengths[symbol] = 0
    else:
        listed_lengths(coder, lengths, width)
    total = sum(4096 >> length for length in lengths if length >= 0)
    check(total == 4096, "E12", "[K6] code lengths that are not complete")
    return lengths


def listed_lengths(coder: RangeDecoder, lengths: list[int], p: int) -> None:
    """Section 6.3, form 2."""
    models, t, total = fresh(11), 1, 0
    for symbol in range(len(lengths)):
        if total >= 4096:
            return
        if not coder.adaptive(models[0], 30):
            continue
        if coder.adaptive(models[1 + t], 30):
            t = 0
        else:
            shorter = coder.adaptive(models[4 + t], 30)
            room, d = p - 1 if shorter else 12 - p, 1
            while d < room and coder.adaptive(models[7 + min(d, 4) - 1], 30):
                d += 1
            p += -d if shorter else d
            check(1 <= p <= 12, "E12", "[K8] a code length out of range")
            t = 1 + shorter
        lengths[symbol] = p
        total += 4096 >> p


class Bits:
    """Section 6.2: bit i of the streams is bit i mod 8 of byte i div 8."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bit(self) -> int:
        """Return the next bit."""
        check(self.at < 8 * len(self.data), "E13", "[K12] the streams end early")
        self.at += 1
        return self.data[self.at - 1 >> 3] >> (self.at - 1 & 7) & 1

    def stream(self, count: int, code: Code) -> list[int]:
        """Return `count` symbols; the first bit of a code comes first."""
        symbols = []
        for _ in range(count):
            length = word = 0
            while (length, word) not in code:
                length, word = length + 1, word << 1 | self.bit()
            symbols.append(code[length, word])
        return symbols

    def sequence(self, count: int, code: Code, lengths: list[int]) -> list[int]:
        """Return a sequence of symbols: one stream, or four of given lengths in bits."""
        if not lengths:
            return self.stream(count, code)
        symbols = []
        quarter = -(-count // 4)
        for i, length in enumerate(lengths):
            end = self.at + length
            symbols += self.stream(min(quarter, count - i * quarter), code)
            check(self.at == end, "E13", "[K2] a stream of another length")
        return symbols

    def end(self) -> None:
        """Reject bytes that remain, and padding bits that are not zero."""
        check((self.at + 7) // 8 == len(self.data), "E13", "[K4] bytes after the streams")
        while self.at & 7:
            check(self.bit() == 0, "E08", "[K3] padding that is not zero")
