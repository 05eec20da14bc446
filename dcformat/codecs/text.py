"""The coder of byte strings, primed with a preset text (spec, "Text coder"): for a file's table of contents.

For each of the last 9, 7, 5, 4, 3, 2 and 1 bytes the coder remembers which byte came next the last time. It tries
those guesses in turn, longest context first; an adaptive bit says whether a guess is right. A byte that nobody guessed
is spelled out. Both sides first learn the preset, so that usual contents are guessed from the first byte on. This is
symbol ranking (Fenwick 1996).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dcformat.codecs.rangecoder import HALF, RATE, Decoder, Encoder, code_bit
from dcformat.codecs.values import get, put
from dcformat.errors import LimitError, StreamError
from dcformat.jit import can_compile, device, kernel
from dcformat.limits import require_memory, require_work

ORDERS = (9, 7, 5, 4, 3, 2, 1)
#: How often a guess was right in a row, counted up to this.
MOST_TRUST = 3
#: A model's probability never rests on more than this many bits.
LIMIT = 30
LENGTH_BITS = 5
#: Guesses are kept in a table for each order, of 2 ** 16 to 2 ** 20 slots: four to eight for each byte.
LEAST_SLOT_BITS, MOST_SLOT_BITS, SPARE_BITS = 16, 20, 2
#: Coding a byte takes at most about so many steps: guesses, spelling, hashing.
STEPS_EACH = 64
#: Shorter texts, preset included, are coded in Python if the kernel would have to be compiled first.
_SHORT = 1 << 13

LEARN, ENCODE, DECODE = range(3)


@device
def _code(mode, low, rng, pos, buf, end, models, index, rate, bit):  # type: ignore[no-untyped-def]
    """Code a bit by its model, or only learn it. The models are Python's integers where this runs as Python."""
    state = models[index]
    if mode:
        bit, low, rng, pos = code_bit(mode == 2, low, rng, pos, buf, end, min(max(state >> 15, 32), 65504), bit)
    count = state & 511
    p = state >> 9
    if bit:
        p += ((4194303 - p) * rate[count]) >> 16
    else:
        p -= (p * rate[count]) >> 16
    models[index] = p << 9 | min(count + 1, 30)
    return bit, low, rng, pos


@kernel(
    "int64(int64, int64[::1], uint8[::1], int64, int32[::1], int32[::1], uint16[::1], int64[::1], int64,"
    " const int64[::1], uint8[::1], int64)"
)
def _text(mode, state, buf, end, success, spelling, guesses, hashes, bits, rate, text, first):  # type: ignore[no-untyped-def]
    """Code the bytes of `text` from `first` on; return 0, or -1 where the stream has ended long before them.

    A guess is 1 + byte + (trust << 8) + (five bits of its context's hash << 10), or 0 for none. `hashes` has room for
    those of the seven contexts, then for the bytes that were tried.
    """
    low, rng, pos = state[0], state[1], state[2]
    for index in range(first, len(text)):
        value = 0
        known = 7
        for back in range(1, min(index, 9) + 1):
            value = ((value + text[index - back] + 1) * 748296117) & 4294967295
            if back < 6 or back & 1:
                known -= 1
                hashes[known] = value
        byte = 0 if mode == 2 else text[index]
        found = 0
        tried = 7
        for rank in range(known, 7):
            guess = guesses[rank << bits | hashes[rank] >> (32 - bits)] - 1
            if guess < 0 or guess >> 10 != hashes[rank] & 31:
                continue
            fresh = 1
            for k in range(7, tried):
                if hashes[k] == guess & 255:
                    fresh = 0
            if fresh:
                hashes[tried] = guess & 255
                tried += 1
                found, low, rng, pos = _code(
                    mode, low, rng, pos, buf, end, success, rank << 2 | (guess >> 8 & 3), rate,
                    1 if guess & 255 == byte else 0,
                )  # fmt: skip
                if found:
                    byte = guess & 255
                    break
        if not found:
            node = 1
            for shift in range(7, -1, -1):
                bit, low, rng, pos = _code(mode, low, rng, pos, buf, end, spelling, node, rate, byte >> shift & 1)
                node = node << 1 | bit
            byte = node - 256
        if mode == 2:
            text[index] = byte
            if pos > end + 8:
                return -1
        for rank in range(known, 7):
            slot = rank << bits | hashes[rank] >> (32 - bits)
            guess = guesses[slot] - 1
            trust = 0
            if guess >= 0 and guess >> 10 == hashes[rank] & 31 and guess & 255 == byte:
                trust = min((guess >> 8 & 3) + 1, 3)
            guesses[slot] = 1 + (byte | trust << 8 | (hashes[rank] & 31) << 10)
    state[0], state[1], state[2] = low, rng, pos
    return 0


class _Coder:
    """The kernel, or its Python over lists, where nothing compiles or where that takes longer than a short text."""

    def __init__(self, size: int) -> None:
        self.bits = min(max(size.bit_length() + SPARE_BITS, LEAST_SLOT_BITS), MOST_SLOT_BITS)
        self.as_python = not _text.ready() and (size <= _SHORT or not can_compile())

    def primed(self, preset: bytes) -> list[Any]:
        """Return models that have learnt `preset`: of guesses' success, of spelled bytes, and the guesses."""
        success, spelling = np.full(4 * len(ORDERS), HALF, np.int32), np.full(256, HALF, np.int32)
        guesses = np.zeros(len(ORDERS) << self.bits, np.uint16)
        models: list[Any] = [success, spelling, guesses]
        if self.as_python:
            models = [model.tolist() for model in models]
        self.run(LEARN, Encoder(0), models, self.text(preset), 0)
        return models

    def run(self, mode: int, coder: Encoder | Decoder, models: list[Any], text: Any, first: int) -> int:
        """Code `text`, a uint8 array or, as Python, a bytearray, from `first` on."""
        function: Callable[..., int] = _text
        hashes: Any = np.zeros(2 * len(ORDERS), np.int64)
        rate: Any = RATE
        if self.as_python:
            function, hashes, rate = _text.python, hashes.tolist(), RATE.tolist()
        return int(
            function(mode, coder.state, coder.buf, len(coder.buf), *models, hashes, self.bits, rate, text, first)
        )

    def text(self, data: bytes) -> Any:
        """Return bytes in the form that `run` takes."""
        return bytearray(data) if self.as_python else np.frombuffer(data, np.uint8).copy()


def pack(data: bytes, preset: bytes = b"") -> bytes:
    """Return `data`, of fewer than 2**31 bytes, coded after `preset`, its length included."""
    coder, encoder = _Coder(len(preset) + len(data)), Encoder(32 * len(data) + 64)
    width = len(data).bit_length()
    put(encoder, LENGTH_BITS, width)
    if width:
        put(encoder, width - 1, len(data) & ((1 << width) >> 1) - 1)
    coder.run(ENCODE, encoder, coder.primed(preset), coder.text(preset + data), len(preset))
    return encoder.take()


def unpack(
    data: bytes, limit: int, preset: bytes = b"", *, max_memory: int | None = None, max_work: int | None = None
) -> bytes:
    """Return what `pack` packed.

    Raises
    ------
    LimitError
        More than `limit` bytes.
    MemoryLimitError, WorkLimitError
        More than `max_memory` bytes, the least tables not counted, or `max_work` steps would be needed.
    StreamError, TrailingDataError
        The stream ends early, or not where and as `pack` ends it.
    """
    decoder = Decoder(np.frombuffer(data, np.uint8))
    length = _read_length(decoder)
    if length > limit:
        raise LimitError("packed text", got=f"{length} bytes", expected=f"at most {limit}")
    decoder.expect(length, "packed text")  # a byte takes a decision at least
    require_work("packed text", STEPS_EACH * length, max_work)
    coder = _Coder(len(preset) + length)
    slot = 8 if coder.as_python else 2
    need = 2 * length + slot * len(ORDERS) * ((1 << coder.bits) - (1 << LEAST_SLOT_BITS))
    require_memory("packed text", need, max_memory)
    text = coder.text(preset + bytes(length))
    if coder.run(DECODE, decoder, coder.primed(preset), text, len(preset)):
        raise StreamError("packed text", got="its end", expected=f"{length} bytes")
    decoder.finish()
    return bytes(text[len(preset) :])


def stated_length(data: bytes) -> int:
    """Return how many bytes `unpack` would give, without unpacking them."""
    return _read_length(Decoder(np.frombuffer(data, np.uint8)))


def _read_length(decoder: Decoder) -> int:
    width = get(decoder, LENGTH_BITS)
    return ((1 << width) >> 1) | (get(decoder, width - 1) if width else 0)
