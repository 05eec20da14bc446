"""The kit for writing the compiled form of a helper (`jit.intrinsic`) in LLVM's IR.

Nothing here depends on the machine: LLVM chooses registers and instructions for the target that it compiles for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

F32 = ir.FloatType()
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))

_OF = {"i": types.int64, "f": types.float32}


def vector(n: int) -> ir.VectorType:
    """Return the type of `n` floats."""
    return ir.VectorType(F32, n)


def i64(n: int) -> ir.Constant:
    """Return an int64 constant."""
    return ir.Constant(I64, n)


class Writer:
    """Writes IR for one use of a helper."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.b = context, builder

    def array(self, kind: Any, value: Any) -> Any:
        """Return the fields of an array."""
        return self.context.make_array(kind)(self.context, self.b, value)

    def record(self, kind: Any, value: Any) -> Any:
        """Return the fields of a named tuple as int64."""
        fields = cgutils.unpack_tuple(self.b, value)
        cast = [self.context.cast(self.b, field, of, types.int64) for field, of in zip(fields, kind.types, strict=True)]
        return SimpleNamespace(**dict(zip(kind.fields, cast, strict=True)))

    def plus(self, base: Any, index: Any, scale: int = 1) -> Any:
        """Return ``base + index * scale``; `index` is a value or a Python int."""
        if isinstance(index, int):
            index, scale = i64(index * scale), 1
        return self.b.add(base, index if scale == 1 else self.b.mul(index, i64(scale)))

    def at(self, array: Any, index: Any, count: int, kind: Any = F32) -> Any:
        """Return a pointer to `kind` at item `index`; with bounds checks, `count` items must lie in the array."""
        if config.BOUNDSCHECK:
            low = self.b.icmp_signed("<", index, i64(0))
            high = self.b.icmp_signed(">", self.plus(index, count), array.nitems)
            with self.b.if_then(self.b.or_(low, high), likely=False):
                self.context.call_conv.return_user_exc(self.b, IndexError, ("kernel access out of bounds",))
        return self.b.bitcast(self.b.gep(array.data, [index]), kind.as_pointer())

    def load(self, array: Any, index: Any, kind: Any = F32) -> Any:
        """Load a value, or one for each lane of `kind`, from an array of 32-bit items."""
        words = kind.count * kind.element.width // 32 if _is_integers(kind) else getattr(kind, "count", 1)
        value = self.b.load(self.at(array, index, words, kind))
        value.align = 4
        return value

    def store(self, value: Any, array: Any, index: Any) -> None:
        """Store a value."""
        done = self.b.store(value, self.at(array, index, getattr(value.type, "count", 1), value.type))
        done.align = 4

    def gather(self, array: Any, start: Any, index: Any, item: Any = F32) -> Any:
        """Load an item of 32 bits for each lane of `index`, counted from `start`, by the target's gather if it has one.

        Bounds are checked as in `at`.
        """
        n, name = index.type.count, "f32" if item == F32 else str(item)
        if config.BOUNDSCHECK:
            for lane in range(n):
                self.at(array, self.b.add(start, self.b.sext(self.b.extract_element(index, I32(lane)), I64)), 1)
        base = self.b.gep(array.data, [start])
        places = self.b.gep(base, [I32(0)])
        # llvmlite does not know that a vector of indices gives a vector of pointers.
        places.indices, places.operands, places.type = [index], [base, index], ir.VectorType(base.type, n)
        mask, kind = ir.Constant(ir.VectorType(I1, n), [1] * n), ir.VectorType(item, n)
        called = f"llvm.masked.gather.v{n}{name}.v{n}{pointer_name(base, name)}"
        return self.call(called, kind, places, I32(4), mask, ir.Constant(kind, None))

    def word(self, array: Any, index: Any) -> Any:
        """Load an int32 as int64."""
        return self.b.sext(self.load(array, index, I32), I64)

    def splat(self, value: Any, n: int) -> Any:
        """Repeat a value in every lane."""
        first = self.b.insert_element(ir.Constant(ir.VectorType(value.type, n), ir.Undefined), value, I32(0))
        return self.b.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, n), [0] * n))

    def call(self, name: str, result: Any, *args: Any) -> Any:
        """Call one of LLVM's intrinsics."""
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, name), args)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """Return ``x * y + z``, rounded once on machines with an instruction for it; a call would be far slower."""
        return self.call(f"llvm.fmuladd.v{x.type.count}f32", x.type, x, y, z)

    def step(self, exact: bool, x: Any, y: Any, z: Any) -> Any:
        """Return ``x * y + z``, with two roundings if `exact`."""
        return self.b.fadd(self.b.fmul(x, y), z) if exact else self.fma(x, y, z)

    def larger(self, x: Any, y: Any) -> Any:
        """Return the maximum, lane by lane."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def clip(self, bounds: tuple[Any, Any], x: Any) -> Any:
        """Return ``min(max(x, low), high)``, lane by lane, in two instructions; NaN stays NaN."""
        low, high = (self.splat(bound, x.type.count) for bound in bounds)
        x = self.b.select(self.b.fcmp_ordered(">", low, x), low, x)
        return self.b.select(self.b.fcmp_ordered("<", high, x), high, x)

    def flag(self, value: Any) -> Any:
        """Return whether an integer is not 0."""
        return self.b.icmp_signed("!=", value, i64(0))

    def variables(self, count: int, kind: Any) -> list[Any]:
        """Make `count` variables, which LLVM keeps in registers."""
        return [cgutils.alloca_once(self.b, kind) for _ in range(count)]

    @contextmanager
    def loop(self, start: Any, stop: Any, step: Any) -> Iterator[Any]:
        """Loop over ``range(start, stop, step)``; `step` is a value or a Python int."""
        step = i64(step) if isinstance(step, int) else step
        with cgutils.for_range_slice(self.b, start, stop, step, I64) as (index, _):
            yield index

    def lanes(self, below: Any, n: int) -> Any:
        """Return a mask of the lanes, out of `n`, whose number is less than `below`."""
        numbers = ir.Constant(ir.VectorType(I32, n), list(range(n)))
        return self.b.icmp_signed("<", numbers, self.splat(self.b.trunc(below, I32), n))


def pointer_name(pointer: Any, kind: str) -> str:
    """Return the part of an intrinsic's name that stands for a pointer, opaque or not."""
    return "p0" if str(pointer.type) == "ptr" else f"p0{kind}"


def _is_integers(kind: Any) -> bool:
    return isinstance(kind, ir.VectorType) and isinstance(kind.element, ir.IntType)


def helper(codes: str, result: Any, write: Callable[..., Any]) -> Any:
    """Make an intrinsic.

    Parameters
    ----------
    codes : str
        The kind of each argument: ``A`` an array, ``R`` a record of integers, ``i`` an integer, ``f`` a float.
    result : Numba type
    write : function
        Takes a writer and the arguments and writes the IR; a record has its fields as attributes.
    """

    def typed(typing_context: Any, *args: Any) -> Any:
        kinds = [_OF.get(code, arg) for code, arg in zip(codes, args, strict=True)]

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            w = Writer(context, builder)
            ready = [
                w.array(kind, value) if code == "A" else w.record(kind, value) if code == "R" else value
                for code, kind, value in zip(codes, signature.args, values, strict=True)
            ]
            out = write(w, *ready)
            return context.get_dummy_value() if out is None else out

        return result(*kinds), generate

    names = [f"p{k}" for k in range(len(codes))]  # Numba requires named parameters.
    scope: dict[str, Any] = {"typed": typed}
    exec(f"def helper(context, {', '.join(names)}): return typed(context, {', '.join(names)})", scope)
    return intrinsic(scope["helper"])
