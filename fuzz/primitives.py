"""The material of mutations: edge cases of numbers, floats and names, and changes of bytes."""

from __future__ import annotations

import struct
from random import Random

from dcformat.cursor import varint

#: Numbers at which something changes: a varint's length, a limit of the format, the range of a machine word.
EDGES = (
    0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 63, 64, 127, 128, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097,
    65535, 65536, 65537, 1 << 20, (1 << 24) - 1, 1 << 24, (1 << 26) + 1, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
    1 << 32, 1 << 33, (1 << 40) - 1, 1 << 40, (1 << 40) + 1, 1 << 41, (1 << 42) - 1,
)  # fmt: skip
#: Floats at which something changes: zeros, ones, the least and the greatest, infinities, quiet and signalling NaN.
FLOATS = tuple(
    struct.pack("<I", bits)
    for bits in (
        0, 0x80000000, 0x3F800000, 0xBF800000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF,
        0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFA00000, 0x3C23D70A, 0x501502F9,
    )
)  # fmt: skip
NAMES = (
    b"", b"w", b"../../x", b"/etc/x", b"C:\\x", b"a/../../b", b"__metadata__", b"x.npy", b"w.npy", b"\0", b"a\nb",
    b"\x1b[31m", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x80\xae", b"n" * 255, b"n" * 256,
    b"w.dcformat_scale", "\N{LATIN SMALL LETTER A WITH DIAERESIS}".encode() * 127, b"a\\b", b"CON", b"w_orig",
    b"w_mask", b"num_batches_tracked",
)  # fmt: skip


def number(random: Random, old: int = 0) -> int:
    """Return a number near the old one, at an edge, or anywhere."""
    what = random.randrange(10)
    if what < 3:
        return max(0, old + random.choice((-2, -1, 1, 2)))
    if what < 5:
        return random.randrange(9)
    if what < 8:
        return random.choice(EDGES)
    if what < 9:
        return max(0, (old << 1 | random.getrandbits(1)) if random.getrandbits(1) else old >> 1) & ((1 << 42) - 1)
    return random.getrandbits(random.randrange(1, 43))


def change_bytes(random: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return the bytes with one to four changes: changed bits or bytes, and pieces removed, doubled or inserted."""
    out = bytearray(data)
    for _ in range(1 + random.getrandbits(2) if random.getrandbits(1) else 1):
        _change_once(random, out, other)
    return bytes(out)


def _change_once(random: Random, out: bytearray, other: bytes) -> None:
    what, at = random.randrange(11), random.randrange(len(out) + 1)
    size = min(1 + int(random.expovariate(0.2)), 64)
    if what < 3 and at < len(out):
        out[at] ^= 1 << random.randrange(8)
    elif what == 3 and at < len(out):
        out[at] = random.choice((0, 1, 127, 128, 255, random.getrandbits(8)))
    elif what == 4:
        del out[at : at + size]
    elif what == 5:
        out[at:at] = out[at : at + size]
    elif what == 6:
        out[at:at] = random.randbytes(size)
    elif what == 7:
        out[at : at + size] = random.randbytes(min(size, len(out) - at))
    elif what == 8:
        out[at:at] = varint(random.choice(EDGES))
    elif what == 9:
        piece = other or bytes(out)
        start = random.randrange(len(piece) + 1)
        out[at : at + size * random.getrandbits(1)] = piece[start : start + size]
    else:
        del out[at:]
