"""The binary range coder under all adaptive coding (spec, "Range coder"), and its adaptive probabilities.

One function codes a bit in either direction, so that a model is written once and its two directions cannot differ:
kernels come in pairs that call the same device function with ``decode`` True or False.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcformat.errors import StreamError, TrailingDataError
from dcformat.jit import device

Bytes = npt.NDArray[np.uint8]
State = npt.NDArray[np.int64]

TOP = 1 << 24
FULL = (1 << 32) - 1
WHOLE = 1 << 32
#: A probability's state: 22 bits of probability that the bit is 1, then 9 bits counting the bits seen.
HALF = 1 << 30
COUNT_BITS = 9
#: A byte holds fewer adaptive bits than this: each takes log2(1 / (1 - 32 / 65536)) bits or more, less the rounding of
#: the interval (the true bound is 11,402).
MOST_DECISIONS = 12000
#: RATE[n] is how far the n-th bit moves a probability, in 1/65536: about 1 / (n + 1.5).
RATE = np.array([131072 // (2 * n + 3) for n in range(512)], np.int64)


@device
def code_bit(decode, low, rng, pos, buf, end, p, bit):  # type: ignore[no-untyped-def]
    """Code one bit whose probability of being 1 is ``p / 65536``, 1 <= p <= 65535.

    `low` is the interval's lower end (encoding, 33 bits) or the code minus it (decoding).
    """
    bound = (rng >> 16) * p
    if decode:
        if low < bound:
            bit = 1
            rng = bound
        else:
            bit = 0
            low -= bound
            rng -= bound
        while rng < TOP:
            low <<= 8
            if pos < end:
                low |= np.int64(buf[pos])
            pos += 1
            rng <<= 8
    else:
        if bit:
            rng = bound
        else:
            low += bound
            rng -= bound
        while rng < TOP:
            if low > FULL:
                carry = pos - 1
                while buf[carry] == 255:
                    buf[carry] = 0
                    carry -= 1
                buf[carry] += np.uint8(1)
                low &= FULL
            buf[pos] = low >> 24
            pos += 1
            low = (low << 8) & FULL
            rng <<= 8
    return bit, low, rng, pos


@device
def update(models, index, bit, limit, rate):  # type: ignore[no-untyped-def]
    """Move a probability towards the bit just coded, by less the more bits it has seen, up to `limit` of them."""
    state = np.int64(models[index])
    count = state & 511
    p = state >> 9
    if bit:
        p += ((4194303 - p) * rate[count]) >> 16
    else:
        p -= (p * rate[count]) >> 16
    if count < limit:
        count += 1
    models[index] = p << 9 | count


@device
def probability(models, index):  # type: ignore[no-untyped-def]
    """Return a model's probability of a 1 in 1/65536, kept within 32 .. 65504."""
    p = np.int64(models[index]) >> 15
    return min(max(p, 32), 65504)


@device
def code_adaptive(decode, low, rng, pos, buf, end, models, index, limit, rate, bit):  # type: ignore[no-untyped-def]
    """Code a bit by its model and update the model."""
    bit, low, rng, pos = code_bit(decode, low, rng, pos, buf, end, probability(models, index), bit)
    update(models, index, bit, limit, rate)
    return bit, low, rng, pos


@device
def code_direct(decode, low, rng, pos, buf, end, width, value):  # type: ignore[no-untyped-def]
    """Code `width` bits, high one first, each as likely 0 as 1."""
    out = 0
    for shift in range(width - 1, -1, -1):
        bit, low, rng, pos = code_bit(decode, low, rng, pos, buf, end, 32768, (value >> shift) & 1)
        out = out << 1 | bit
    return out, low, rng, pos


@device
def code_tree(decode, low, rng, pos, buf, end, models, base, width, limit, rate, value):  # type: ignore[no-untyped-def]
    """Code `width` bits, high one first, each with a model for every prefix: ``2 ** width`` models from `base`."""
    node = 1
    for shift in range(width - 1, -1, -1):
        bit, low, rng, pos = code_adaptive(
            decode, low, rng, pos, buf, end, models, base + node, limit, rate, (value >> shift) & 1
        )
        node = node << 1 | bit
    return node - (1 << width), low, rng, pos


@device
def code_gamma(decode, low, rng, pos, buf, end, models, base, limit, rate, value):  # type: ignore[no-untyped-def]
    """Code ``value < 2 ** 32 - 1`` as in Elias' gamma code of value + 1, by 64 + 33 * 4 models from `base`.

    Its length by a 6-bit tree of models, the two bits below the leading one by models of that length, the rest direct.
    """
    width = 0
    if not decode:
        while (value + 1) >> (width + 1):
            width += 1
    width, low, rng, pos = code_tree(decode, low, rng, pos, buf, end, models, base, 6, limit, rate, width)
    width = min(width, 32)
    below = (value + 1) & ((1 << width) - 1)
    top = min(width, 2)
    high, low, rng, pos = code_tree(
        decode,
        low,
        rng,
        pos,
        buf,
        end,
        models,
        base + 64 + 4 * width,
        top,
        limit,
        rate,
        below >> (width - top),
    )
    rest, low, rng, pos = code_direct(decode, low, rng, pos, buf, end, width - top, below & ((1 << (width - top)) - 1))
    return ((1 << width) | (high << (width - top)) | rest) - 1, low, rng, pos


GAMMA_MODELS = 64 + 33 * 4


def fresh(count: int) -> npt.NDArray[np.int32]:
    """Return `count` models that know nothing: probability one half, no bits seen."""
    return np.full(count, HALF, np.int32)


class Encoder:
    """The encoder's state between kernels. `buf` holds at least what is to be written; `take` ends the stream."""

    def __init__(self, room: int) -> None:
        self.buf = np.zeros(room + 16, np.uint8)
        self.state = np.array([0, WHOLE, 0], np.int64)

    def reserve(self, room: int) -> None:
        """Make sure `room` more bytes fit."""
        need = int(self.state[2]) + room + 16
        if need > len(self.buf):
            grown = np.zeros(max(need, 2 * len(self.buf)), np.uint8)
            grown[: len(self.buf)] = self.buf
            self.buf = grown

    def take(self) -> bytes:
        """End the stream and return it: the shortest byte string in the final interval, the smallest such."""
        low, rng, pos = (int(x) for x in self.state)
        count, value = _final(low, rng)
        out = int.from_bytes(self.buf[:pos].tobytes(), "big") if value >> 32 else 0
        head = (out + 1).to_bytes(pos, "big") if value >> 32 else self.buf[:pos].tobytes()
        return head + (value & FULL).to_bytes(4, "big")[:count]


class Decoder:
    """The decoder's state between kernels, over the rest of a section."""

    def __init__(self, data: Bytes) -> None:
        self.buf = np.array(
            data, np.uint8
        )  # a copy: what was checked cannot change, and kernels take no read-only array
        first = bytes(self.buf[:4]).ljust(4, b"\0")
        self.state = np.array([int.from_bytes(first, "big"), WHOLE, 4], np.int64)

    def expect(self, decisions: int, field: str) -> None:
        """Require that the stream is long enough for so many bits: a short one cannot keep a reader busy for long."""
        if decisions > MOST_DECISIONS * (len(self.buf) + 8):
            raise StreamError(field, got=f"{len(self.buf)} bytes", expected=f"enough for {decisions} binary decisions")

    def finish(self) -> None:
        """Require that the stream ends here and exactly as the encoder would have ended it."""
        code, rng, pos = (int(x) for x in self.state)
        window = int.from_bytes(bytes(self.buf[max(pos - 4, 0) : pos]).ljust(4, b"\0"), "big")
        count, value = _final((window - code) & FULL, rng)
        used = pos - 4 + count
        if used < len(self.buf):
            raise TrailingDataError("range coder stream", got=f"{len(self.buf)} bytes", expected=f"{used} bytes")
        if used > len(self.buf) or value & FULL != window:
            raise StreamError(
                "range coder stream",
                got=f"{len(self.buf)} bytes",
                expected=f"{used} bytes, canonically ended",
            )


def _final(low: int, rng: int) -> tuple[int, int]:
    """Return how many bytes end the stream, and the value of the last window of four (33 bits: it may carry)."""
    for count in range(5):
        unit = 1 << 8 * (4 - count)
        value = -(-low // unit) * unit
        if value < low + rng:
            return count, value
    raise AssertionError("an interval is never empty")
