"""Section 7 of `coders.md`: the text coder, which codes packed contents."""

from __future__ import annotations

from collections.abc import Callable

from reference_coders import Model, RangeDecoder, clamp, fresh
from reference_reader import check


def decode_text(data: bytes, preset: bytes, limit: int) -> bytes:
    """Section 7, "Text coder": the bytes after the preset."""
    coder = RangeDecoder(data)
    width = coder.direct(5)
    length = (1 << width - 1) + coder.direct(width - 1) if width else 0
    check(length <= limit, "E06", "[A15] length of a text")
    text = Text(len(preset) + length)
    for byte in preset:
        text.learn(byte)
    for _ in range(length):
        text.decode(coder)
    coder.end()
    return bytes(text.past[len(preset) :])


class Text:
    """Section 7: the state."""

    ORDERS = (9, 7, 5, 4, 3, 2, 1)

    def __init__(self, size: int) -> None:
        self.past = bytearray()
        self.bits = clamp(size.bit_length() + 2, 16, 20)
        #: Slots that are not empty, by order and number: check, byte, trust.
        self.guesses: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.success, self.spelling = fresh(28), fresh(256)

    def decode(self, coder: RangeDecoder) -> None:
        """Decode a byte."""
        self.step(lambda model, _bit: coder.adaptive(model, 30), None)

    def learn(self, byte: int) -> None:
        """Learn a byte of the preset: models are updated as if its bits had been coded."""

        def known(model: Model, bit: int) -> int:
            model.update(bit, 30)
            return bit

        self.step(known, byte)

    def step(self, code: Callable[[Model, int], int], byte: int | None) -> None:
        """Take steps 1 to 3; `byte` is None if it is to be decoded, and `code` gives the bits."""
        contexts = [(k, self.hash(n)) for k, n in enumerate(self.ORDERS) if len(self.past) >= n]
        tried: set[int] = set()
        result = None
        for k, h in contexts:
            guess, trust = self.guess(k, h)
            if guess < 0 or guess in tried:
                continue
            tried.add(guess)
            if code(self.success[4 * k + trust], int(guess == byte)):
                result = guess
                break
        if result is None:
            node = 1
            for i in range(8):
                node = node << 1 | code(self.spelling[node], (byte or 0) >> 7 - i & 1)
            result = node - 256
        for k, h in contexts:
            guess, trust = self.guess(k, h)
            self.guesses[k, h >> 32 - self.bits] = (h % 32, result, min(trust + 1, 3) if guess == result else 0)
        self.past.append(result)

    def hash(self, n: int) -> int:
        """Return the hash of the context of order n."""
        h = 0
        for byte in self.past[: -n - 1 : -1]:
            h = (h + byte + 1) * 748296117 % (1 << 32)
        return h

    def guess(self, k: int, h: int) -> tuple[int, int]:
        """Return the guess of a context of order number k: a byte and its trust; -1 if there is none."""
        check, byte, trust = self.guesses.get((k, h >> 32 - self.bits), (-1, -1, 0))
        return (byte, trust) if check == h % 32 else (-1, 0)
