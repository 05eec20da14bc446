"""The coder of short byte strings, primed with a preset text (spec, "Text coder"): for a file's table of contents.

For each of the last 6, 4, 3, 2 and 1 bytes the coder remembers which byte came next the last time. Those guesses are
tried in turn, longest context first; an adaptive bit says whether a guess is right. A byte that nobody guessed is
spelled out. Both sides first learn the preset, so that usual contents are guessed from the first byte on. This is a
symbol ranking coder (Fenwood 1996 calls the idea by that name), plain Python so that opening a file compiles nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dcformat.codecs.rangecoder import (
    HALF,
    RATE,
    Decoder,
    Encoder,
    code_adaptive,
    code_direct,
)
from dcformat.errors import LimitError, StreamError

ORDERS = (6, 4, 3, 2, 1)
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
        self.success = [HALF] * (len(ORDERS) * (MOST_TRUST + 1) * 2)
        self.spelling = [HALF] * 256
        self.hit = 0

    def copy(self) -> _Model:
        other = _Model()
        other.guesses = dict(self.guesses)
        other.success, other.spelling, other.hit = self.success[:], self.spelling[:], self.hit
        return other

    def candidates(self, history: bytes) -> list[tuple[int, int]]:
        """Return the distinct guesses after `history`, longest context first, as (model of its success, byte)."""
        out: list[tuple[int, int]] = []
        seen = set()
        for rank, order in enumerate(ORDERS):
            guess = self.guesses.get(history[-order:]) if len(history) >= order else None
            if guess is not None and guess[0] not in seen:
                seen.add(guess[0])
                out.append(((rank * (MOST_TRUST + 1) + guess[1]) * 2 + self.hit, guess[0]))
        return out

    def learn(self, history: bytes, byte: int) -> None:
        """Remember that `byte` came after `history`."""
        for order in ORDERS:
            if len(history) >= order:
                context = history[-order:]
                guess = self.guesses.get(context)
                trust = min(guess[1] + 1, MOST_TRUST) if guess is not None and guess[0] == byte else 0
                self.guesses[context] = (byte, trust)


def _code(decode, state, buf, end, model, history, byte):  # type: ignore[no-untyped-def]
    """Code one byte in either direction and let the model learn it."""
    low, rng, pos = state
    hit = 0
    for index, guess in model.candidates(history):
        hit, low, rng, pos = code_adaptive(
            decode, low, rng, pos, buf, end, model.success, index, LIMIT, _RATE, 1 if guess == byte else 0
        )
        if hit:
            byte = guess
            break
    if not hit:
        node = 1
        for shift in range(7, -1, -1):
            bit, low, rng, pos = code_adaptive(
                decode, low, rng, pos, buf, end, model.spelling, node, LIMIT, _RATE, (byte >> shift) & 1
            )
            node = node << 1 | bit
        byte = node - 256
    model.hit = hit
    model.learn(history, byte)
    state[0], state[1], state[2] = low, rng, pos
    return byte


@lru_cache(maxsize=4)
def _primed(preset: bytes) -> _Model:
    """Return the model that has learnt `preset`, by coding it to nowhere."""
    model, encoder = _Model(), Encoder(2 * len(preset) + 16)
    state = [0, 1 << 32, 0]
    for index, byte in enumerate(preset):
        _code(False, state, encoder.buf, 0, model, preset[:index], byte)
    return model


def _window(history: bytes) -> bytes:
    return history[-max(ORDERS) :]


def pack(data: bytes, preset: bytes = b"") -> bytes:
    """Return `data`, of fewer than 2**31 bytes, coded after `preset`, its length included."""
    encoder = Encoder(32 * len(data) + 64)
    model, state, history = _primed(preset).copy(), [0, 1 << 32, 0], preset
    width = len(data).bit_length()
    _direct(False, state, encoder.buf, 0, LENGTH_BITS, width)
    _direct(False, state, encoder.buf, 0, max(width - 1, 0), len(data) & ((1 << max(width - 1, 0)) - 1))
    for byte in data:
        _code(False, state, encoder.buf, 0, model, history, byte)
        history = _window(history + bytes((byte,)))
    encoder.state[:] = state
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
    buf, end, state = bytes(data), len(data), [int(x) for x in decoder.state]
    width = _direct(True, state, buf, end, LENGTH_BITS, 0)
    length = (1 << width - 1) | _direct(True, state, buf, end, width - 1, 0) if width else 0
    if length > limit:
        raise LimitError("packed text", got=f"{length} bytes", expected=f"at most {limit}")
    model, history, out = _primed(preset).copy(), preset, bytearray()
    for _ in range(length):
        byte = _code(True, state, buf, end, model, history, 0)
        if state[2] > end + 8:
            raise StreamError("packed text", got="its end", expected=f"{length - len(out)} bytes more")
        out.append(byte)
        history = _window(history + bytes((byte,)))
    decoder.state[:] = state
    decoder.finish()
    return bytes(out)


def _direct(decode, state, buf, end, width, value):  # type: ignore[no-untyped-def]
    value, state[0], state[1], state[2] = code_direct(decode, state[0], state[1], state[2], buf, end, width, value)
    return value
