"""Eight bytes at a time from anywhere in a byte array; compiled, one load or store each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic

Bytes = npt.NDArray[np.uint8]


def _load() -> Any:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic as by_hand

    @by_hand  # type: ignore[untyped-decorator]
    def load64(typing: Any, buf: Any, byte: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = _address(context, builder, signature.args[0], arguments[0], arguments[1], ir)
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
    def store64(typing: Any, buf: Any, byte: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = _address(context, builder, signature.args[0], arguments[0], arguments[1], ir)
            builder.store(arguments[2], place).align = 1
            return context.get_dummy_value()

        return types.void(buf, types.int64, types.int64), generate

    return store64


def _address(context: Any, builder: Any, kind: Any, array: Any, byte: Any, ir: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [byte]), ir.IntType(64).as_pointer())


@intrinsic(_load)
def load64(buf: Bytes, byte: int) -> int:
    """Return eight bytes from `byte` on as a little-endian number; the top bit is a sign."""
    return int.from_bytes(buf[byte : byte + 8].tobytes(), "little", signed=True)


@intrinsic(_store)
def store64(buf: Bytes, byte: int, word: int) -> None:
    """Store eight bytes from `byte` on, little-endian."""
    buf[byte : byte + 8] = np.frombuffer(int(word).to_bytes(8, "little", signed=True), np.uint8)
