"""The coder of short byte strings, primed with a preset text (spec, "Text coder"): for a file's table of contents.

For each of the last 9, 7, 5, 4, 3, 2 and 1 bytes the coder remembers which byte came next the last time. It tries
those guesses in turn, longest context first; an adaptive bit says whether a guess is right. A byte that nobody guessed
is spelled out. Both sides first learn the preset, so that usual contents are guessed from the first byte on. This is
symbol ranking (Fenwick 1996), in plain Python so that opening a file compiles nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dcformat.codecs.rangecoder import HALF, RATE, Decoder, Encoder, code_bit
from dcformat.errors import LimitError, StreamError

ORDERS = (9, 7, 5, 4, 3, 2, 1)
#: How often a guess was right in a row, counted up to this.
MOST_TRUST = 3
#: A model's probability never rests on more than this many bits.
LIMIT = 30
LENGTH_BITS = 5

_RATE = RATE.tolist()
_Guess = tuple[int, int]


class _Model:
    """What is known after some bytes: guesses by context, models of the guesses' success, models of spelled bytes."""

    def __init__(self) -> None:
        self.guesses: dict[bytes, _Guess] = {}
        self.success = [HALF] * (len(ORDERS) * (MOST_TRUST + 1))
        self.spelling = [HALF] * 256

    def copy(self) -> _Model:
        other = _Model()
        other.guesses = dict(self.guesses)
        other.success, other.spelling = self.success[:], self.spelling[:]
        return other

    def candidates(self, history: bytes) -> list[tuple[int, int]]:
        """Return the distinct guesses after `history`, longest context first, as (model of its success, byte)."""
        out: list[tuple[int, int]] = []
        seen = set()
        for rank, order in enumerate(ORDERS):
            guess = self.guesses.get(history[-order:]) if len(history) >= order else None
            if guess is not None and guess[0] not in seen:
                seen.add(guess[0])
                out.append((rank * (MOST_TRUST + 1) + guess[1], guess[0]))
        return out

    def learn(self, history: bytes, byte: int) -> None:
        """Remember that `byte` came after `history`."""
        for order in ORDERS:
            if len(history) >= order:
                context = history[-order:]
                guess = self.guesses.get(context)
                trust = min(guess[1] + 1, MOST_TRUST) if guess is not None and guess[0] == byte else 0
                self.guesses[context] = (byte, trust)


class _Learner:
    """Lets models learn known bits: how both sides read the preset."""

    def bit(self, models: list[int], index: int, bit: int) -> int:
        count, p = models[index] & 511, models[index] >> 9
        p += ((4194303 - p) * _RATE[count]) >> 16 if bit else -((p * _RATE[count]) >> 16)
        models[index] = p << 9 | min(count + 1, LIMIT)
        return bit

    def byte(self, model: _Model, history: bytes, byte: int) -> int:
        """Code one byte, which a decoder does not know, and let the model learn it."""
        for index, guess in model.candidates(history):
            if self.bit(model.success, index, int(guess == byte)):
                byte = guess
                break
        else:
            node = 1
            for shift in range(7, -1, -1):
                node = node << 1 | self.bit(model.spelling, node, (byte >> shift) & 1)
            byte = node - 256
        model.learn(history, byte)
        return byte


class _Coder(_Learner):
    """Codes the bits too, to or from a range coder stream."""

    def __init__(self, coder: Encoder | Decoder) -> None:
        self.decode = isinstance(coder, Decoder)
        self.buf = coder.buf
        self.low, self.rng, self.pos = (int(x) for x in coder.state)

    def plain(self, p: int, bit: int) -> int:
        bit, self.low, self.rng, self.pos = code_bit(
            self.decode, self.low, self.rng, self.pos, self.buf, len(self.buf), p, bit
        )
        return bit

    def bit(self, models: list[int], index: int, bit: int) -> int:
        return super().bit(models, index, self.plain(min(max(models[index] >> 15, 32), 65504), bit))

    def number(self, width: int, value: int) -> int:
        out = 0
        for shift in range(width - 1, -1, -1):
            out = out << 1 | self.plain(32768, (value >> shift) & 1)
        return out


@lru_cache(maxsize=4)
def _primed(preset: bytes) -> _Model:
    """Return the model that has learnt `preset`."""
    model, learner = _Model(), _Learner()
    for index, byte in enumerate(preset):
        learner.byte(model, _window(preset[:index]), byte)
    return model


def _window(history: bytes) -> bytes:
    return history[-ORDERS[0] :]


def pack(data: bytes, preset: bytes = b"") -> bytes:
    """Return `data`, of fewer than 2**31 bytes, coded after `preset`, its length included."""
    encoder = Encoder(32 * len(data) + 64)
    coder, model, history = _Coder(encoder), _primed(preset).copy(), _window(preset)
    width = len(data).bit_length()
    coder.number(LENGTH_BITS, width)
    coder.number(width - 1, len(data) & ((1 << width) >> 1) - 1)
    for byte in data:
        coder.byte(model, history, byte)
        history = _window(history + bytes((byte,)))
    encoder.state[:] = coder.low, coder.rng, coder.pos
    return encoder.take()


def unpack(data: bytes, limit: int, preset: bytes = b"") -> bytes:
    """Return what `pack` packed.

    Raises
    ------
    LimitError
        More than `limit` bytes.
    StreamError, TrailingDataError
        The stream ends early, or not where and as `pack` ends it.
    """
    decoder = Decoder(np.frombuffer(data, np.uint8))
    coder = _Coder(decoder)
    length = _read_length(coder)
    if length > limit:
        raise LimitError("packed text", got=f"{length} bytes", expected=f"at most {limit}")
    model, history, out = _primed(preset).copy(), _window(preset), bytearray()
    for _ in range(length):
        byte = coder.byte(model, history, -1)
        if coder.pos > len(data) + 8:
            raise StreamError("packed text", got="its end", expected=f"{length - len(out)} bytes more")
        out.append(byte)
        history = _window(history + bytes((byte,)))
    decoder.state[:] = coder.low, coder.rng, coder.pos
    decoder.finish()
    return bytes(out)


def stated_length(data: bytes) -> int:
    """Return how many bytes `unpack` would give, for who wants to know before."""
    return _read_length(_Coder(Decoder(np.frombuffer(data, np.uint8))))


def _read_length(coder: _Coder) -> int:
    width = coder.number(LENGTH_BITS, 0)
    return ((1 << width) >> 1) | coder.number(width - 1, 0)
