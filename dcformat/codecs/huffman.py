"""Canonical Huffman coding, length-limited (spec, "Coder 1"): code lengths, codes, compact tables of lengths, streams.

Lengths come from Huffman's algorithm, or from package-merge (Larmore and Hirschberg 1990) if the limit binds. A table
of `LIMIT` bits gives up to three symbols at once. Four streams are decoded side by side, so that no lookup waits for
another stream's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcformat.codecs.rangecoder import Decoder, Encoder, Stream, code_adaptive, code_direct, fresh, keep, opened
from dcformat.codecs.words import leading_zeros, load64, store32
from dcformat.errors import HuffmanError
from dcformat.jit import device, kernel

Lengths = npt.NDArray[np.int64]

LIMIT = 12
#: The length given to a symbol that does not occur.
UNUSED = 255
#: Slots of a lookup table, and a complete code's Kraft sum in 1 / SLOTS.
SLOTS = 1 << LIMIT


def code_lengths(counts: npt.NDArray[np.int64], limit: int = LIMIT) -> Lengths:
    """Return optimal code lengths of at most `limit` bits: `UNUSED` for a count of 0, and 0 for a single symbol."""
    used = [int(s) for s in np.flatnonzero(counts)]
    out = np.full(len(counts), UNUSED, np.int64)
    if len(used) < 2:
        out[used] = 0
        return out
    weights = [int(counts[s]) for s in used]
    lengths = _huffman(weights)
    if max(lengths) > limit:
        lengths = _package_merge(weights, limit)
    out[used] = lengths
    return out


def _huffman(weights: list[int]) -> list[int]:
    # Nodes arise in the order of their weights, so two queues suffice: the sorted leaves, and the nodes. Leaves win
    # ties.
    leaves = sorted(range(len(weights)), key=weights.__getitem__)
    sums = list(weights)
    parents = [0] * (2 * len(weights) - 1)
    leaf, inner = 0, len(weights)
    for node in range(len(weights), len(parents)):
        total = 0
        for _ in range(2):
            if inner == node or (leaf < len(leaves) and sums[leaves[leaf]] <= sums[inner]):
                child, leaf = leaves[leaf], leaf + 1
            else:
                child, inner = inner, inner + 1
            parents[child] = node
            total += sums[child]
        sums.append(total)
    depths = [0] * len(parents)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[: len(weights)]


def _package_merge(weights: list[int], limit: int) -> list[int]:
    import heapq

    base: list[tuple[int, tuple[int, ...]]] = sorted((w, (i,)) for i, w in enumerate(weights))
    merged = list(base)
    for _ in range(limit - 1):
        pairs = [
            (merged[k][0] + merged[k + 1][0], merged[k][1] + merged[k + 1][1]) for k in range(0, len(merged) - 1, 2)
        ]
        merged = list(heapq.merge(base, pairs))
    lengths = [0] * len(weights)
    for _, symbols in merged[: 2 * len(weights) - 2]:
        for symbol in symbols:
            lengths[symbol] += 1
    return lengths


def canonical_codes(lengths: Lengths) -> npt.NDArray[np.int64]:
    """Return each symbol's code, first bit lowest; shorter codes come first, equal lengths in the order of symbols."""
    codes = np.zeros(len(lengths), np.int64)
    _assign_codes(lengths, codes)
    return codes


@kernel("void(const int64[::1], int64[::1])", work=lambda lengths: 7 * len(lengths) + 20)
def _assign_codes(lengths, codes):  # type: ignore[no-untyped-def]
    """Fill in the codes; a symbol with no code or an empty one gets zero."""
    code = np.int64(0)
    for length in range(1, LIMIT + 1):
        code <<= 1
        for symbol in range(len(lengths)):
            if lengths[symbol] == length:
                reverse = np.int64(0)
                for bit in range(length):
                    reverse |= (code >> bit & 1) << (length - 1 - bit)
                codes[symbol] = reverse
                code += 1


def cost_bits(lengths: Lengths, counts: npt.NDArray[np.int64]) -> int:
    """Return the number of bits that symbols with these `counts` take."""
    used = counts > 0
    return int((lengths[used] * counts[used]).sum())


# --- tables of lengths, in a range coder stream (spec, "Code length tables") ------------------------------------

_TABLE_MODELS = 11


#: Forms of a table: all lengths equal, only one symbol, any lengths.
_EQUAL, _ONLY, _ANY = range(3)


@device
def _form_of(lengths, width):  # type: ignore[no-untyped-def]
    """Return the shortest possible form of a table."""
    for symbol in range(len(lengths)):
        if lengths[symbol] == 0:
            return _ONLY
    if (1 << width) != len(lengths):
        return _ANY
    for symbol in range(len(lengths)):
        if lengths[symbol] != width:
            return _ANY
    return _EQUAL


@device
def _code_only(stream, interval, width, lengths):  # type: ignore[no-untyped-def]
    """Code the only symbol, and return the Kraft sum."""
    only = 0
    for symbol in range(len(lengths)):
        if not stream.decode and lengths[symbol] == 0:
            only = symbol
    only, interval = code_direct(stream, interval, width, only)
    kraft = 0
    if stream.decode:
        lengths[:] = UNUSED
        if only < len(lengths):
            lengths[only] = 0
            kraft = SLOTS
    return kraft, interval


@device
def _code_step(stream, interval, models, last, same, step):  # type: ignore[no-untyped-def]
    """Code the difference of a length from the `last` one: whether it is 0, its sign, its magnitude in unary."""
    bit, interval = code_adaptive(stream, interval, models, 1 + same, 30, 1 if step == 0 else 0)
    if bit:
        return 0, 0, interval
    sign, interval = code_adaptive(stream, interval, models, 4 + same, 30, 1 if step < 0 else 0)
    limit = last - 1 if sign else LIMIT - last
    magnitude = 1
    while magnitude < limit:
        model = 7 + min(magnitude, 4) - 1
        more, interval = code_adaptive(stream, interval, models, model, 30, 1 if abs(step) > magnitude else 0)
        if not more:
            break
        magnitude += 1
    return (-magnitude if sign else magnitude), 1 + sign, interval


@device
def _code_any(stream, interval, models, width, lengths):  # type: ignore[no-untyped-def]
    """Code lengths symbol by symbol until the code is complete, and return the Kraft sum."""
    last = width  # 1 to 9: no alphabet is larger.
    same = 1
    symbol = 0
    kraft = 0
    while symbol < len(lengths) and kraft < SLOTS:
        used, interval = code_adaptive(stream, interval, models, 0, 30, 1 if lengths[symbol] != UNUSED else 0)
        if used:
            step, same, interval = _code_step(stream, interval, models, last, same, lengths[symbol] - last)
            last += step
            if last < 1 or last > LIMIT:
                return 2 * SLOTS, interval
            if stream.decode:
                lengths[symbol] = last
            kraft += SLOTS >> last
        symbol += 1
    return kraft, interval


@device
def _code_table(stream, state, models, lengths):  # type: ignore[no-untyped-def]
    """Code a table of lengths; return the Kraft sum in 1 / 2 ** LIMIT."""
    interval = opened(state)
    width = 0
    while (1 << width) < len(lengths):
        width += 1
    form = 0 if stream.decode else _form_of(lengths, width)
    form, interval = code_direct(stream, interval, 2, form)
    kraft = 0
    if form == _EQUAL:
        lengths[:] = width
        kraft = len(lengths) << LIMIT >> width
    elif form == _ONLY:
        kraft, interval = _code_only(stream, interval, width, lengths)
    elif form == _ANY:
        kraft, interval = _code_any(stream, interval, models, width, lengths)
    keep(state, interval)
    return kraft


_TABLE = "int64(int64[::1], uint8[::1], int64, int32[::1], int64[::1])"


def _table_work(lengths: Lengths) -> int:
    return 32 * len(lengths) + 40


@kernel(_TABLE, work=_table_work)
def _encode_table(state, buf, end, models, lengths):  # type: ignore[no-untyped-def]
    return _code_table(Stream(False, buf, end), state, models, lengths)


@kernel(_TABLE, work=_table_work)
def _decode_table(state, buf, end, models, lengths):  # type: ignore[no-untyped-def]
    return _code_table(Stream(True, buf, end), state, models, lengths)


def write_lengths(encoder: Encoder, lengths: Lengths) -> None:
    """Append a table of code lengths to a range coder stream."""
    encoder.reserve(4 * len(lengths) + 64)
    _encode_table(encoder.state, encoder.buf, 0, fresh(_TABLE_MODELS), lengths)


def read_lengths(decoder: Decoder, size: int, field: str) -> Lengths:
    """Read the code lengths of `size` symbols and require a complete prefix code."""
    lengths = np.full(size, UNUSED, np.int64)
    kraft = _decode_table(decoder.state, decoder.buf, len(decoder.buf), fresh(_TABLE_MODELS), lengths)
    if kraft != SLOTS:
        raise HuffmanError(field, got=f"a Kraft sum of {kraft}/{SLOTS}", expected="exactly 1")
    return lengths


# --- streams ----------------------------------------------------------------------------------------------------


@kernel(
    "int64(const uint8[::1], const int64[::1], const int64[::1], uint8[::1], int64)",
    work=lambda symbols: 3 * len(symbols) + 10,
)
def write_codes(symbols, codes, lengths, out, at):  # type: ignore[no-untyped-def]
    """Write the symbols' codes from bit `at` of `out` on, where all bits are zero; return the bit after the last."""
    position = at >> 3
    filled = at & 7
    word = np.int64(out[position])
    for symbol in symbols:
        word |= codes[symbol] << filled
        filled += lengths[symbol]
        while filled >= 8:
            out[position] = word & 255
            position += 1
            word >>= 8
            filled -= 8
    if filled:
        out[position] = word & 255
    return position * 8 + filled


@kernel("void(const int64[::1], const int64[::1], uint16[::1], uint32[::1])", work=lambda lengths: 20000 + len(lengths))
def _fill_tables(codes, lengths, single, multi):  # type: ignore[no-untyped-def]
    """Fill the tables of one symbol (length << 8 | symbol) and of up to three (symbols << 8 | count << 6 | bits)."""
    for symbol in range(len(lengths)):
        length = lengths[symbol]
        if length != UNUSED:
            for slot in range(codes[symbol], SLOTS, 1 << length):
                single[slot] = length << 8 | symbol
    for slot in range(SLOTS):
        used = np.int64(0)
        count = 0
        symbols = np.int64(0)
        while count < 3:
            entry = np.int64(single[slot >> used])
            length = entry >> 8
            if used + length > LIMIT:
                break
            symbols |= (entry & 255) << (8 * count)
            used += length
            count += 1
        multi[slot] = symbols << 8 | count << 6 | used


def decoding_tables(lengths: Lengths) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """Return a complete code's lookup tables for `read_one` and `read_four`."""
    single, multi = np.zeros(SLOTS, np.uint16), np.zeros(SLOTS, np.uint32)
    _fill_tables(canonical_codes(lengths), lengths, single, multi)
    return single, multi


@device
def _rest(buf, end, single, out, position, start, stop):  # type: ignore[no-untyped-def]
    """Decode the last few symbols one by one; return the bit after them, or -1 past bit `end`."""
    for index in range(start, stop):
        if position > end:
            return np.int64(-1)
        # Twelve bits may span three bytes, and the last of these may lie past the array's end.
        byte = position >> 3
        bits = np.int64(0)
        for k in range(min(3, len(buf) - byte)):
            bits |= np.int64(buf[byte + k]) << (8 * k)
        entry = np.int64(single[(bits >> (position & 7)) & (SLOTS - 1)])
        out[index] = entry & 255
        position += entry >> 8
    return position if position <= end else np.int64(-1)


#: Four lookups take at most 48 of the 57 bits that eight bytes from any position hold. A bit above them marks their
#: end: after bits are shifted out, its place shows how many have been used.
_MARK = 1 << 62
#: Four lookups store nothing past the next 13 symbols.
_FOUR = 13


@kernel(
    "int64(const uint8[::1], int64, int64, const uint16[::1], const uint32[::1], uint8[::1], int64)",
    work=lambda count: 2 * count + 20,
)
def read_one(buf, at, end, single, multi, out, count):  # type: ignore[no-untyped-def]
    """Decode `count` symbols of one stream from bit `at`; return the bit after the last, or -1 past bit `end`."""
    index = np.int64(0)
    position = at
    safe = min(end - 48, 8 * (len(buf) - 8))
    while index + _FOUR <= count and position <= safe:
        word = (load64(buf, position >> 3) >> (position & 7)) & (_MARK - 1) | _MARK
        for _ in range(4):
            entry = np.int64(multi[word & (SLOTS - 1)])
            store32(out, index, entry >> 8)
            index += (entry >> 6) & 3
            word >>= entry & 63
        position += leading_zeros(word) - 1
    return _rest(buf, end, single, out, position, index, count)


@kernel(
    "int64(const uint8[::1], int64[::1], const int64[::1], const uint16[::1], const uint32[::1], uint8[::1], int64)",
    work=lambda count: 2 * count + 40,
)
def read_four(buf, starts, ends, single, multi, out, count):  # type: ignore[no-untyped-def]
    """Decode four streams of ``ceil(count / 4)`` symbols each (the last has the rest) into the quarters of `out`.

    `starts` and `ends` are ascending bit positions; on return, `starts` holds the bit after each stream's last symbol.
    The result is 0, or -1 if a stream runs past its end.
    """
    quarter = (count + 3) // 4
    p0, p1, p2, p3 = starts[0], starts[1], starts[2], starts[3]
    i0, i1, i2, i3 = np.int64(0), quarter, 2 * quarter, 3 * quarter
    s0, s1, s2, s3 = quarter - _FOUR, 2 * quarter - _FOUR, 3 * quarter - _FOUR, count - _FOUR
    safe = 8 * (len(buf) - 8)
    e0, e1, e2, e3 = min(ends[0] - 48, safe), min(ends[1] - 48, safe), min(ends[2] - 48, safe), min(ends[3] - 48, safe)
    while (i0 <= s0 and i1 <= s1 and i2 <= s2 and i3 <= s3) and (p0 <= e0 and p1 <= e1 and p2 <= e2 and p3 <= e3):
        w0 = (load64(buf, p0 >> 3) >> (p0 & 7)) & (_MARK - 1) | _MARK
        w1 = (load64(buf, p1 >> 3) >> (p1 & 7)) & (_MARK - 1) | _MARK
        w2 = (load64(buf, p2 >> 3) >> (p2 & 7)) & (_MARK - 1) | _MARK
        w3 = (load64(buf, p3 >> 3) >> (p3 & 7)) & (_MARK - 1) | _MARK
        for _ in range(4):
            a, b = np.int64(multi[w0 & (SLOTS - 1)]), np.int64(multi[w1 & (SLOTS - 1)])
            c, d = np.int64(multi[w2 & (SLOTS - 1)]), np.int64(multi[w3 & (SLOTS - 1)])
            store32(out, i0, a >> 8)
            store32(out, i1, b >> 8)
            store32(out, i2, c >> 8)
            store32(out, i3, d >> 8)
            i0 += (a >> 6) & 3
            i1 += (b >> 6) & 3
            i2 += (c >> 6) & 3
            i3 += (d >> 6) & 3
            w0 >>= a & 63
            w1 >>= b & 63
            w2 >>= c & 63
            w3 >>= d & 63
        p0 += leading_zeros(w0) - 1
        p1 += leading_zeros(w1) - 1
        p2 += leading_zeros(w2) - 1
        p3 += leading_zeros(w3) - 1
    starts[0] = _rest(buf, ends[0], single, out, p0, i0, quarter)
    starts[1] = _rest(buf, ends[1], single, out, p1, i1, 2 * quarter)
    starts[2] = _rest(buf, ends[2], single, out, p2, i2, 3 * quarter)
    starts[3] = _rest(buf, ends[3], single, out, p3, i3, count)
    return min(min(starts[0], starts[1]), min(starts[2], starts[3]))
