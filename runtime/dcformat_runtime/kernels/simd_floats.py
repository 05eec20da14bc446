"""The compiled form of the helpers of `simd` that set how the processor treats denormal numbers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from dcformat.jit.compiler import code_generation
from dcformat_runtime.kernels.simd_writer import I32, I64, Writer, helper, i64

#: Bits that make denormal numbers zeros: in x86's MXCSR, of results (15) and operands (6); in AArch64's FPCR, of both.
_X86, _AARCH64 = 1 << 15 | 1 << 6, 1 << 24
_POINTER = ir.PointerType(ir.IntType(8))


def flush_denormals() -> Any:
    """Write `simd.flush_denormals`."""

    def write(w: Writer) -> Any:
        machine = code_generation.machine_name()
        if machine == "x86_64":
            before = _read_mxcsr(w)
            _write_mxcsr(w, w.b.or_(before, I32(_X86)))
            return w.b.zext(before, I64)
        if machine == "aarch64":
            before = w.call("llvm.aarch64.get.fpcr", I64)
            w.call("llvm.aarch64.set.fpcr", ir.VoidType(), w.b.or_(before, i64(_AARCH64)))
            return before
        return i64(0)

    return helper("", types.int64, write)


def restore_denormals() -> Any:
    """Write `simd.restore_denormals`."""

    def write(w: Writer, before: Any) -> None:
        machine = code_generation.machine_name()
        if machine == "x86_64":
            _write_mxcsr(w, w.b.trunc(before, I32))
        elif machine == "aarch64":
            w.call("llvm.aarch64.set.fpcr", ir.VoidType(), before)

    return helper("i", types.void, write)


def _read_mxcsr(w: Writer) -> Any:
    (place,) = w.variables(1, I32)
    w.call("llvm.x86.sse.stmxcsr", ir.VoidType(), w.b.bitcast(place, _POINTER))
    return w.b.load(place)


def _write_mxcsr(w: Writer, value: Any) -> None:
    (place,) = w.variables(1, I32)
    w.b.store(value, place)
    w.call("llvm.x86.sse.ldmxcsr", ir.VoidType(), w.b.bitcast(place, _POINTER))
