"""The compiled form of the helpers of `float_functions` that choose between numbers, or look at their bits."""

from __future__ import annotations

from typing import Any

from numba import types

from dcformat_runtime.kernels.simd_writer import F32, I32, Writer, helper

#: The bits of a float32 fraction, those of 1, and the place and the bias of the exponent.
_FRACTION, _ONE, _PLACE, _BIAS = 0x7FFFFF, 0x3F800000, 23, 127


def choose() -> Any:
    """Write `float_functions.choose`."""
    return helper("bff", types.float32, lambda w, condition, x, y: w.b.select(condition, x, y))


def power_of_two() -> Any:
    """Write `float_functions.power_of_two`."""

    def write(w: Writer, n: Any) -> Any:
        biased = w.b.add(w.b.fptosi(n, I32), I32(_BIAS))
        return w.b.bitcast(w.b.shl(biased, I32(_PLACE)), F32)

    return helper("f", types.float32, write)


def exponent() -> Any:
    """Write `float_functions.exponent`."""

    def write(w: Writer, x: Any) -> Any:
        biased = w.b.and_(w.b.lshr(w.b.bitcast(x, I32), I32(_PLACE)), I32(0xFF))
        return w.b.sitofp(w.b.sub(biased, I32(_BIAS)), F32)

    return helper("f", types.float32, write)


def fraction() -> Any:
    """Write `float_functions.fraction`."""

    def write(w: Writer, x: Any) -> Any:
        return w.b.bitcast(w.b.or_(w.b.and_(w.b.bitcast(x, I32), I32(_FRACTION)), I32(_ONE)), F32)

    return helper("f", types.float32, write)


def with_sign() -> Any:
    """Write `float_functions.with_sign`."""
    return helper("ff", types.float32, lambda w, x, y: w.call("llvm.copysign.f32", F32, x, y))


def square_root() -> Any:
    """Write `float_functions.square_root`."""
    return helper("f", types.float32, lambda w, x: w.call("llvm.sqrt.f32", F32, x))
