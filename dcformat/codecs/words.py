"""Kernel helpers that handle several bytes at a time; each compiles to a few instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic

Bytes = npt.NDArray[np.uint8]
Integer = int | np.integer[Any]

#: Not an entry: greater than the length of any line.
_NOT = 1 << 62


def _write_load64() -> Any:
    from numba import types

    from dcformat.jit.compiler.ir_writer import I64, Writer, helper

    def write(w: Writer, buf: Any, byte: Any) -> Any:
        loaded = w.b.load(w.at(buf, byte, 8, I64))
        loaded.align = 1
        return loaded

    return helper("Ai", types.int64, write)


def _write_store32() -> Any:
    from numba import types

    from dcformat.jit.compiler.ir_writer import I32, Writer, helper

    def write(w: Writer, buf: Any, byte: Any, word: Any) -> None:
        w.b.store(w.b.trunc(word, I32), w.at(buf, byte, 4, I32)).align = 1

    return helper("Aii", types.void, write)


def _write_leading_zeros() -> Any:
    from numba import types

    from dcformat.jit.compiler.ir_writer import I1, Writer, helper

    def write(w: Writer, word: Any) -> Any:
        return w.b.ctlz(word, I1(0))

    return helper("i", types.int64, write)


def _write_place8() -> Any:
    from llvmlite import ir
    from numba import types

    from dcformat.jit.compiler.ir_writer import I8, I16, I32, I64, Writer, helper, i64

    bytes8, shorts, words = (ir.VectorType(kind, 8) for kind in (I8, I16, I32))
    zeros = ir.Constant(shorts, [0] * 8)

    def write(w: Writer, gaps: Any, number: Any, escape: Any, position: Any, indices: Any, at: Any) -> Any:
        b = w.b
        symbols = b.load(w.at(gaps, number, 8, bytes8))
        symbols.align = 1
        escapes = b.icmp_unsigned("==", symbols, w.splat(b.trunc(escape, I8), 8))
        sums = b.add(b.zext(symbols, shorts), ir.Constant(shorts, [1] * 8))
        for step in (1, 2, 4):
            lanes = [k - step if k >= step else 8 for k in range(8)]  # 8: a zero
            sums = b.add(sums, b.shuffle_vector(sums, zeros, ir.Constant(words, lanes)))
        placed = b.add(b.zext(sums, words), w.splat(b.trunc(position, I32), 8))
        b.store(placed, w.at(indices, at, 8, words)).align = 4
        total = b.zext(b.extract_element(sums, I32(7)), I64)
        return b.select(b.icmp_unsigned("==", b.bitcast(escapes, I8), I8(0)), total, i64(_NOT))

    return helper("AiiiAi", types.int64, write)


@intrinsic(_write_load64)
def load64(buf: Bytes, byte: Integer) -> int:
    """Return eight bytes from `byte` on as a signed little-endian number."""
    return int.from_bytes(buf[byte : byte + 8].tobytes(), "little", signed=True)


@intrinsic(_write_store32)
def store32(buf: Bytes, byte: Integer, word: Integer) -> None:
    """Store the low four bytes of a number from `byte` on, little-endian."""
    buf[byte : byte + 4] = np.frombuffer(int(word & 0xFFFFFFFF).to_bytes(4, "little"), np.uint8)


@intrinsic(_write_leading_zeros)
def leading_zeros(word: Integer) -> int:
    """Return the number of zeros before the first 1 in a number's 64 bits."""
    return 64 - (int(word) & (1 << 64) - 1).bit_length()


@intrinsic(_write_place8)
def place8(
    gaps: Bytes, number: Integer, escape: Integer, position: Integer, indices: npt.NDArray[np.int32], at: Integer
) -> int:
    """Store the indices of eight entries from gap symbol `number` on; return the distance from `position` to the last.

    If one of the symbols is the `escape`, which is not an entry, the stored indices are meaningless and the result is
    `_NOT`.
    """
    symbols = gaps[number : number + 8]
    placed = np.cumsum(symbols.astype(np.int64) + 1)
    indices[at : at + 8] = position + placed
    return _NOT if (symbols == escape).any() else int(placed[-1])
