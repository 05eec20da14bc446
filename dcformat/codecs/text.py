"""The coder of byte strings, primed with a preset text (spec, "Text coder"): for a file's table of contents.

For each context of the last 9, 7, 5, 4, 3, 2 and 1 bytes, the coder remembers the byte that followed last time. It
tries these guesses in turn, longest context first; an adaptive bit says whether a guess is right. The coder spells out
a byte that no context guesses. Encoder and decoder first learn the preset, so that they guess typical contents from the
first byte on. This is symbol ranking (Fenwick 1996).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dcformat.codecs.rangecoder import (
    COUNT_BITS,
    COUNT_MASK,
    HALF,
    PROBABILITY_MAX,
    RATE,
    Decoder,
    Encoder,
    Stream,
    code_bit,
    get,
    keep,
    opened,
    overrun,
    put,
)
from dcformat.errors import LimitError, StreamError
from dcformat.jit import device, kernel
from dcformat.limits import require_memory, require_work
from dcformat.wording import counted

ORDERS = (9, 7, 5, 4, 3, 2, 1)
#: The coder counts how often in a row a guess was right, up to this number.
MAX_TRUST = 3
#: Maximum number of bits that a bit model averages over.
LIMIT = 30
LENGTH_BITS = 5
#: Each order has a table of guesses with 2 ** 16 to 2 ** 20 slots: four to eight for each byte.
MIN_SLOT_BITS, MAX_SLOT_BITS, SPARE_BITS = 16, 20, 2
#: Maximum number of steps needed to code a byte: guesses, spelling and hashing.
STEPS_EACH = 64
#: Texts that are shorter than this with the preset are coded in Python rather than wait for the compiler.
_SHORT = 1 << 13

LEARN, ENCODE, DECODE = range(3)


class _Models(NamedTuple):
    """The coder's models and the tables that it needs.

    Attributes
    ----------
    success : int32 ``(28,)``
        Bit models that predict whether a guess is right, by order and trust.
    spelling : int32 ``(256,)``
        Bit models of a tree, for bytes that no context guessed.
    guesses : uint16
        For each order a table of ``2 ** bits`` guesses: 1 + byte + (trust << 8) + (five bits of the context's hash
        << 10), or 0 for no guess.
    rate : int64
        `rangecoder.RATE`.
    """

    success: Any
    spelling: Any
    guesses: Any
    rate: Any


@device
def _code(mode, stream, interval, models, index, rate, bit):  # type: ignore[no-untyped-def]
    """Code a bit by its bit model, or only learn it. In plain Python, the models are Python integers."""
    state = models[index]
    if mode:
        bit, interval = code_bit(stream, interval, min(max(state >> 15, 32), 65504), bit)
    count = state & COUNT_MASK
    p = state >> COUNT_BITS
    if bit:
        p += ((PROBABILITY_MAX - p) * rate[count]) >> 16
    else:
        p -= (p * rate[count]) >> 16
    models[index] = p << COUNT_BITS | min(count + 1, LIMIT)
    return bit, interval


@device
def _hash_contexts(text, index, hashes):  # type: ignore[no-untyped-def]
    """Store the hashes of a byte's contexts, longest first, and return the index of the first that exists."""
    value = 0
    known = 7
    for back in range(1, min(index, 9) + 1):
        value = ((value + text[index - back] + 1) * 748296117) & 4294967295
        if back < 6 or back & 1:
            known -= 1
            hashes[known] = value
    return known


@device
def _code_byte(mode, stream, interval, models, hashes, bits, known, byte):  # type: ignore[no-untyped-def]
    """Code a byte: try the guesses, longest context first, then spell it out."""
    tried = 7
    for rank in range(known, 7):
        guess = models.guesses[rank << bits | hashes[rank] >> (32 - bits)] - 1
        if guess < 0 or guess >> 10 != hashes[rank] & 31:
            continue
        is_new = 1
        for k in range(7, tried):
            if hashes[k] == guess & 255:
                is_new = 0
        if is_new:
            hashes[tried] = guess & 255
            tried += 1
            found, interval = _code(
                mode, stream, interval, models.success, rank << 2 | (guess >> 8 & 3), models.rate,
                1 if guess & 255 == byte else 0,
            )  # fmt: skip
            if found:
                return guess & 255, interval
    node = 1
    for shift in range(7, -1, -1):
        bit, interval = _code(mode, stream, interval, models.spelling, node, models.rate, byte >> shift & 1)
        node = node << 1 | bit
    return node - 256, interval


@device
def _remember(guesses, hashes, bits, known, byte):  # type: ignore[no-untyped-def]
    """Make a byte the guess of each of its contexts, with more trust if it already was."""
    for rank in range(known, 7):
        slot = rank << bits | hashes[rank] >> (32 - bits)
        guess = guesses[slot] - 1
        trust = 0
        if guess >= 0 and guess >> 10 == hashes[rank] & 31 and guess & 255 == byte:
            trust = min((guess >> 8 & 3) + 1, MAX_TRUST)
        guesses[slot] = 1 + (byte | trust << 8 | (hashes[rank] & 31) << 10)


@kernel(
    "int64(int64, int64[::1], uint8[::1], int64, int32[::1], int32[::1], uint16[::1], int64[::1], int64,"
    " const int64[::1], uint8[::1], int64)",
    work=lambda text, first: 100 * (len(text) - first),
)
def _text(mode, state, buf, end, success, spelling, guesses, hashes, bits, rate, text, first):  # type: ignore[no-untyped-def]
    """Code bytes with the models learnt so far; return 0, or -1 if the stream ended long before the last byte.

    Parameters
    ----------
    mode : int
        `LEARN`, `ENCODE` or `DECODE`.
    state, buf, end
        As in `rangecoder.Stream`.
    success, spelling, guesses
        As in `_Models`.
    hashes : int64 ``(14,)``
        Room for the hashes of a byte's contexts, then for the bytes tried.
    bits : int
        Each order's table of guesses has ``2 ** bits`` slots.
    rate : int64
        `rangecoder.RATE`.
    text : uint8
        The preset and the text.
    first : int
        Index in `text` at which coding starts.
    """
    models = _Models(success, spelling, guesses, rate)
    stream, interval = Stream(mode == DECODE, buf, end), opened(state)
    for index in range(first, len(text)):
        known = _hash_contexts(text, index, hashes)
        byte, interval = _code_byte(
            mode, stream, interval, models, hashes, bits, known, 0 if mode == DECODE else text[index]
        )
        if mode == DECODE:
            text[index] = byte
            if overrun(stream, interval):
                return -1
        _remember(guesses, hashes, bits, known, byte)
    keep(state, interval)
    return 0


class _Coder:
    """Runs the kernel, or its Python code on lists if nothing compiles or a short text would have to wait for it."""

    def __init__(self, size: int) -> None:
        self.bits = min(max(size.bit_length() + SPARE_BITS, MIN_SLOT_BITS), MAX_SLOT_BITS)
        # Arrays are for compiled code only: in Python, the narrow integers that they hold would overflow.
        self.as_python = not _text.ready() and (size <= _SHORT or _text.resolve() is _text.python)

    def primed(self, preset: bytes) -> list[Any]:
        """Return the bit models of success and of spelling, and the guesses, after they have learnt `preset`."""
        success, spelling = np.full(4 * len(ORDERS), HALF, np.int32), np.full(256, HALF, np.int32)
        slots = len(ORDERS) << self.bits
        if self.as_python:
            # Python is faster on its own arrays and lists; a list of all guesses would take four times the memory.
            models: list[Any] = [success.tolist(), spelling.tolist(), array("H", [0]) * slots]
        else:
            models = [success, spelling, np.zeros(slots, np.uint16)]
        self.run(LEARN, Encoder(0), models, self.text(preset), 0)
        return models

    def run(self, mode: int, coder: Encoder | Decoder, models: list[Any], text: Any, first: int) -> int:
        """Code `text`, a uint8 array (in Python, a bytearray), from `first` on."""
        function: Callable[..., int]
        hashes: Any = np.zeros(2 * len(ORDERS), np.int64)
        rate: Any = RATE
        if self.as_python:
            function, hashes, rate = _text.python, hashes.tolist(), RATE.tolist()
        else:
            # A call of the kernel itself might run its Python code, which would overflow on NumPy's integers.
            function = _text.resolve()
        return int(
            function(mode, coder.state, coder.buf, len(coder.buf), *models, hashes, self.bits, rate, text, first)
        )

    def text(self, data: bytes) -> Any:
        """Return `data` in the form that `run` takes."""
        return bytearray(data) if self.as_python else np.frombuffer(data, np.uint8).copy()


def pack(data: bytes, preset: bytes = b"") -> bytes:
    """Learn `preset`, then code `data` (fewer than 2**31 bytes) with its length, and return the result."""
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
    """Return the bytes that `pack` packed.

    Raises
    ------
    LimitError
        The text has more than `limit` bytes.
    MemoryLimitError, WorkLimitError
        Unpacking needs more than `max_memory` bytes, not counting the smallest tables, or more than `max_work` steps.
    StreamError, TrailingDataError
        The stream does not end as `pack` ends it.
    """
    decoder = Decoder(np.frombuffer(data, np.uint8))
    length = _read_length(decoder)
    if length > limit:
        raise LimitError("packed text", got=counted(length, "byte"), expected=f"at most {limit:,}")
    decoder.expect(length, "packed text")  # A byte takes at least one decision.
    require_work("packed text", STEPS_EACH * length, max_work)
    coder = _Coder(len(preset) + length)
    need = 2 * length + 2 * len(ORDERS) * ((1 << coder.bits) - (1 << MIN_SLOT_BITS))
    require_memory("packed text", need, max_memory)
    text = coder.text(preset + bytes(length))
    if coder.run(DECODE, decoder, coder.primed(preset), text, len(preset)):
        raise StreamError("packed text", got="its end", expected=counted(length, "byte"))
    decoder.finish()
    return bytes(text[len(preset) :])


def stated_length(data: bytes) -> int:
    """Return the number of bytes that `unpack` would return, without unpacking them."""
    return _read_length(Decoder(np.frombuffer(data, np.uint8)))


def _read_length(decoder: Decoder) -> int:
    width = get(decoder, LENGTH_BITS)
    return ((1 << width) >> 1) | (get(decoder, width - 1) if width else 0)
