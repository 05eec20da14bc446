"""The binary range coder behind all adaptive coding (spec, "Range coder"), and its adaptive probabilities.

One function codes a bit in either direction, so each model is written once and its two directions cannot differ.
Kernels come in pairs that call the same device function, with ``decode`` True or False.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import StreamError, TrailingDataError
from dcformat.jit import device, kernel
from dcformat.wording import counted

Bytes = npt.NDArray[np.uint8]
State = npt.NDArray[np.int64]

TOP = 1 << 24
FULL = (1 << 32) - 1
WHOLE = 1 << 32
#: The state of a bit model: 22 bits for the probability of a 1, then 9 bits that count the bits seen.
HALF = 1 << 30
COUNT_BITS = 9
COUNT_MASK = (1 << COUNT_BITS) - 1
PROBABILITY_MAX = (1 << 22) - 1
#: A byte holds fewer adaptive bits than this: each takes at least log2(1 / (1 - 32 / 65536)) bits, minus the interval's
#: rounding (the true bound is 11,402).
MAX_DECISIONS = 12000
#: RATE[n] is how far the n-th bit moves a probability, in 1/65536: about 1 / (n + 1.5).
RATE = np.array([131072 // (2 * n + 3) for n in range(512)], np.int64)


class Stream(NamedTuple):
    """The stream that a kernel reads or writes, as its device functions take it.

    They also take the `interval` ``(low, span, position)`` and return it changed. When encoding, `low` is the
    interval's lower end (33 bits); when decoding, it is the code minus that. `span` is the interval's length, and
    `position` is the next byte of the buffer. Only `code_bit` uses these fields.

    Attributes
    ----------
    decode : bool
    buffer : uint8 array
        An encoder has reserved room for all the bytes that it will write.
    end : int
        Number of bytes in the buffer that a decoder may read; it reads zeros after them.
    """

    decode: bool
    buffer: Bytes
    end: int


@device
def opened(state):  # type: ignore[no-untyped-def]
    """Return the interval from the `state` of an `Encoder` or `Decoder`."""
    return state[0], state[1], state[2]


@device
def keep(state, interval):  # type: ignore[no-untyped-def]
    """Put the interval back into the `state`."""
    state[0], state[1], state[2] = interval


@device
def overrun(stream, interval):  # type: ignore[no-untyped-def]
    """Return whether a decoder has read far more zeros after the end than any valid stream requires."""
    return stream.decode and interval[2] > stream.end + 8


@device
def code_bit(stream, interval, p, bit):  # type: ignore[no-untyped-def]
    """Code one bit whose probability of being 1 is ``p / 65536``, 1 <= p <= 65535."""
    (decode, buffer, end), (low, span, position) = stream, interval
    bound = (span >> 16) * p
    if decode:
        if low < bound:
            bit = 1
            span = bound
        else:
            bit = 0
            low -= bound
            span -= bound
        while span < TOP:
            low <<= 8
            if position < end:
                low |= np.int64(buffer[np.uint64(position)])
            position += 1
            span <<= 8
    else:
        if bit:
            span = bound
        else:
            low += bound
            span -= bound
        while span < TOP:
            if low > FULL:
                carry = position - 1
                while buffer[carry] == 255:
                    buffer[carry] = 0
                    carry -= 1
                buffer[carry] += np.uint8(1)
                low &= FULL
            buffer[position] = low >> 24
            position += 1
            low = (low << 8) & FULL
            span <<= 8
    return bit, (low, span, position)


@device
def update(models, index, limit, bit):  # type: ignore[no-untyped-def]
    """Move a probability towards the coded bit; the step shrinks with the number of bits seen, up to `limit`."""
    place = np.uint64(index)  # An unsigned index needs no test for being negative.
    state = np.int64(models[place])
    count = state & COUNT_MASK
    p = state >> COUNT_BITS
    if bit:
        p += ((PROBABILITY_MAX - p) * RATE[count]) >> 16
    else:
        p -= (p * RATE[count]) >> 16
    if count < limit:
        count += 1
    models[place] = p << COUNT_BITS | count


@device
def probability(models, index):  # type: ignore[no-untyped-def]
    """Return a bit model's probability of a 1, in 1/65536, clipped to 32 .. 65504."""
    p = np.int64(models[np.uint64(index)]) >> 15
    return min(max(p, 32), 65504)


@device
def code_adaptive(stream, interval, models, index, limit, bit):  # type: ignore[no-untyped-def]
    """Code a bit by its bit model and update the model."""
    bit, interval = code_bit(stream, interval, probability(models, index), bit)
    update(models, index, limit, bit)
    return bit, interval


@device
def code_direct(stream, interval, width, value):  # type: ignore[no-untyped-def]
    """Code `width` bits, the highest first, each with probability 1/2."""
    out = 0
    for shift in range(width - 1, -1, -1):
        bit, interval = code_bit(stream, interval, 32768, (value >> shift) & 1)
        out = out << 1 | bit
    return out, interval


@device
def code_tree(stream, interval, models, base, width, limit, value):  # type: ignore[no-untyped-def]
    """Code `width` bits, the highest first, with a bit model for every prefix: ``2 ** width`` models from `base`."""
    node = 1
    for shift in range(width - 1, -1, -1):
        bit, interval = code_adaptive(stream, interval, models, base + node, limit, (value >> shift) & 1)
        node = node << 1 | bit
    return node - (1 << width), interval


@device
def code_gamma(stream, interval, models, base, limit, value):  # type: ignore[no-untyped-def]
    """Code ``value < 2 ** 32 - 1`` as in Elias' gamma code of value + 1, by `GAMMA_MODELS` bit models from `base`.

    A 6-bit tree of models codes its length, models of that length code the two bits below the leading one, and the rest
    is coded directly.
    """
    width = 0
    if not stream.decode:
        while (value + 1) >> (width + 1):
            width += 1
    width, interval = code_tree(stream, interval, models, base, 6, limit, width)
    width = min(width, 32)
    below = (value + 1) & ((1 << width) - 1)
    top = min(width, 2)
    high, interval = code_tree(stream, interval, models, base + 64 + 4 * width, top, limit, below >> (width - top))
    rest, interval = code_direct(stream, interval, width - top, below & ((1 << (width - top)) - 1))
    return ((1 << width) | (high << (width - top)) | rest) - 1, interval


GAMMA_MODELS = 64 + 33 * 4


def fresh(count: int) -> npt.NDArray[np.int32]:
    """Return `count` new bit models: probability one half, no bits seen."""
    return _FRESH[:count].copy() if count <= len(_FRESH) else np.full(count, HALF, np.int32)


#: `np.full` takes as long as the copy of a thousand numbers.
_FRESH = np.full(1 << 10, HALF, np.int32)


class Encoder:
    """An encoder between kernels: its interval in `state`, its buffer in `buf`. `take` ends the stream."""

    def __init__(self, room: int) -> None:
        self.buf = np.zeros(room + 16, np.uint8)
        self.state = np.array([0, WHOLE, 0], np.int64)

    def copy(self) -> Encoder:
        """Return an encoder that continues from here without changing this one."""
        other = Encoder(0)
        other.buf, other.state = self.buf.copy(), self.state.copy()
        return other

    def reserve(self, room: int) -> None:
        """Make sure that `room` more bytes fit."""
        need = int(self.state[2]) + room + 16
        if need > len(self.buf):
            grown = np.zeros(max(need, 2 * len(self.buf)), np.uint8)
            grown[: len(self.buf)] = self.buf
            self.buf = grown

    def take(self) -> bytes:
        """End the stream and return it: the smallest of the shortest byte strings in the final interval."""
        low, rng, pos = self.state.tolist()
        count, value = _final(low, rng)
        out = int.from_bytes(self.buf[:pos].tobytes(), "big") if value >> 32 else 0
        head = (out + 1).to_bytes(pos, "big") if value >> 32 else self.buf[:pos].tobytes()
        return head + (value & FULL).to_bytes(4, "big")[:count]


class Decoder:
    """A decoder between kernels: its interval in `state`, a copy of its bytes in `buf`."""

    def __init__(self, data: Bytes) -> None:
        # Copy the bytes, so that checked bytes cannot change, and because kernels take no read-only array.
        self.buf = np.array(data, np.uint8)
        first = bytes(self.buf[:4]).ljust(4, b"\0")
        self.state = np.array([int.from_bytes(first, "big"), WHOLE, 4], np.int64)

    def expect(self, decisions: int, field: str) -> None:
        """Require a stream long enough for a number of binary decisions, so that a short one costs little time."""
        if decisions > MAX_DECISIONS * (len(self.buf) + 8):
            raise StreamError(
                field,
                got=counted(len(self.buf), "byte"),
                expected=f"enough for {counted(decisions, 'binary decision')}",
            )

    def finish(self) -> None:
        """Require that the stream ends here, exactly as the encoder would have ended it."""
        code, rng, pos = self.state.tolist()
        window = int.from_bytes(bytes(self.buf[max(pos - 4, 0) : pos]).ljust(4, b"\0"), "big")
        count, value = _final((window - code) & FULL, rng)
        used = pos - 4 + count
        if used < len(self.buf):
            raise TrailingDataError(
                "range coder stream", got=counted(len(self.buf), "byte"), expected=counted(used, "byte")
            )
        if used > len(self.buf) or value & FULL != window:
            raise StreamError(
                "range coder stream",
                got=counted(len(self.buf), "byte"),
                expected=f"{counted(used, 'byte')}, canonically ended",
            )


def _final(low: int, rng: int) -> tuple[int, int]:
    """Return how many bytes end the stream, and the value of the last four-byte window (33 bits: it may carry)."""
    for count in range(5):
        unit = 1 << 8 * (4 - count)
        value = -(-low // unit) * unit
        if value < low + rng:
            return count, value
    raise AssertionError("an interval is never empty")


@kernel("int64(int64[::1], uint8[::1], int64, int64, int64)", work=lambda width: 2 * width + 4)
def _encode_bits(state, buf, end, width, value):  # type: ignore[no-untyped-def]
    _, interval = code_direct(Stream(False, buf, end), opened(state), width, value)
    keep(state, interval)
    return value


@kernel("int64(int64[::1], uint8[::1], int64, int64, int64)", work=lambda width: 2 * width + 4)
def _decode_bits(state, buf, end, width, value):  # type: ignore[no-untyped-def]
    value, interval = code_direct(Stream(True, buf, end), opened(state), width, 0)
    keep(state, interval)
    return value


def put(encoder: Encoder, width: int, value: int) -> None:
    """Append `width` plain bits."""
    encoder.reserve(16)
    _encode_bits(encoder.state, encoder.buf, 0, width, value)


def get(decoder: Decoder, width: int) -> int:
    """Read `width` plain bits."""
    return int(_decode_bits(decoder.state, decoder.buf, len(decoder.buf), width, 0))
