"""The vector types of the kernels' helpers, and the kit that writes their LLVM IR."""

from __future__ import annotations

from llvmlite import ir

from dcformat.jit.compiler.ir_writer import F32, I1, I8, I16, I32, I64, Writer, helper, i64, vector
from dcformat_runtime.kernels.simd_widths import BLOCK

__all__ = ["F32", "I1", "I8", "I16", "I32", "I64", "U8S", "U16S", "Writer", "helper", "i64", "vector"]

U16S = ir.VectorType(I16, BLOCK)
U8S = ir.VectorType(I8, BLOCK)
