"""Several bytes at a time from anywhere in a byte array; compiled, a few instructions each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic

Bytes = npt.NDArray[np.uint8]
Integer = int | np.integer[Any]

#: Farther than any line is long.
_NOT = 1 << 62


def _load() -> Any:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic as by_hand

    @by_hand  # type: ignore[untyped-decorator]
    def load64(typing: Any, buf: Any, byte: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = _address(context, builder, signature.args[0], arguments[0], arguments[1], ir.IntType(64))
            loaded = builder.load(word)
            loaded.align = 1
            return loaded

        return types.int64(buf, types.int64), generate

    return load64


def _store() -> Any:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic as by_hand

    @by_hand  # type: ignore[untyped-decorator]
    def store32(typing: Any, buf: Any, byte: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.IntType(32)
            place = _address(context, builder, signature.args[0], arguments[0], arguments[1], kind)
            builder.store(builder.trunc(arguments[2], kind), place).align = 1
            return context.get_dummy_value()

        return types.void(buf, types.int64, types.int64), generate

    return store32


def _zeros() -> Any:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic as by_hand

    @by_hand  # type: ignore[untyped-decorator]
    def leading_zeros(typing: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.int64), generate

    return leading_zeros


def _place() -> Any:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic as by_hand

    byte, short, word, long = (ir.IntType(bits) for bits in (8, 16, 32, 64))

    def spread(builder: Any, value: Any) -> Any:
        vector = ir.Constant(ir.VectorType(value.type, 8), ir.Undefined)
        first = builder.insert_element(vector, value, word(0))
        return builder.shuffle_vector(first, vector, ir.Constant(ir.VectorType(word, 8), [0] * 8))

    @by_hand  # type: ignore[untyped-decorator]
    def place8(typing: Any, gaps: Any, number: Any, most: Any, position: Any, indices: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            gaps_, number_, most_, position_, indices_, at_ = arguments
            source = _address(context, builder, signature.args[0], gaps_, number_, ir.VectorType(byte, 8))
            symbols = builder.load(source)
            symbols.align = 1
            others = builder.icmp_unsigned("==", symbols, spread(builder, builder.trunc(most_, byte)))
            shorts = ir.VectorType(short, 8)
            sums = builder.add(builder.zext(symbols, shorts), ir.Constant(shorts, [1] * 8))
            for step in (1, 2, 4):
                lanes = [k - step if k >= step else 8 for k in range(8)]  # 8: a zero
                moved = ir.Constant(ir.VectorType(word, 8), lanes)
                sums = builder.add(sums, builder.shuffle_vector(sums, ir.Constant(shorts, [0] * 8), moved))
            placed = builder.zext(sums, ir.VectorType(word, 8))
            placed = builder.add(placed, spread(builder, builder.trunc(position_, word)))
            place = _address(context, builder, signature.args[4], indices_, at_, ir.VectorType(word, 8))
            builder.store(placed, place).align = 4
            total = builder.zext(builder.extract_element(sums, word(7)), long)
            return builder.select(
                builder.icmp_unsigned("==", builder.bitcast(others, byte), byte(0)), total, long(_NOT)
            )

        return types.int64(gaps, types.int64, types.int64, types.int64, indices, types.int64), generate

    return place8


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, target: Any) -> Any:
    """Return a pointer to `target` where an array's item `index` lies."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


@intrinsic(_load)
def load64(buf: Bytes, byte: Integer) -> int:
    """Return eight bytes from `byte` on as a little-endian number; the top bit is a sign."""
    return int.from_bytes(buf[byte : byte + 8].tobytes(), "little", signed=True)


@intrinsic(_store)
def store32(buf: Bytes, byte: Integer, word: Integer) -> None:
    """Store the low four bytes of a number from `byte` on, little-endian."""
    buf[byte : byte + 4] = np.frombuffer(int(word & 0xFFFFFFFF).to_bytes(4, "little"), np.uint8)


@intrinsic(_zeros)
def leading_zeros(word: Integer) -> int:
    """Return how many of a number's 64 bits come before its first one."""
    return 64 - (int(word) & (1 << 64) - 1).bit_length()


@intrinsic(_place)
def place8(
    gaps: Bytes, number: Integer, most: Integer, position: Integer, indices: npt.NDArray[np.int32], at: Integer
) -> int:
    """Store, from `at` on, the positions of eight gap symbols that are entries, and return how far they lead.

    Returns `_NOT` if one of them is `most`, which is no entry: what was stored then means nothing.
    """
    symbols = gaps[number : number + 8]
    placed = np.cumsum(symbols.astype(np.int64) + 1)
    indices[at : at + 8] = position + placed
    return _NOT if (symbols == most).any() else int(placed[-1])
