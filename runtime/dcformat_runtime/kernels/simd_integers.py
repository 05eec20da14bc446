"""The compiled form of the helpers of `integer_forms`, which says what they do."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types

from dcformat.jit.compiler import code_generation
from dcformat_runtime.kernels.integer_forms import LANES, QUADS, TILES, WORD
from dcformat_runtime.kernels.simd_products import switch
from dcformat_runtime.kernels.simd_writer import F32, I8, I16, I32, I64, Writer, helper, i64, vector

_WORDS, _BYTES, _FLOATS = ir.VectorType(I32, LANES), ir.VectorType(I8, LANES), vector(LANES)
_ALL = ir.VectorType(I8, LANES * WORD)
_SHORTS = ir.VectorType(I16, 2 * LANES)
#: Instructions that multiply pairs of int16: the feature that has them, and their lanes. The last is on every x86-64.
_PAIRS = (
    ("+avx512bw", "llvm.x86.avx512.pmaddw.d.512", 16), ("+avx2", "llvm.x86.avx2.pmadd.wd", 8),
    ("", "llvm.x86.sse2.pmadd.wd", 4),
)  # fmt: skip
#: Added to a number of at most 2^22 it leaves the nearest whole number in the lowest bits.
_MAGIC, _MAGIC_BITS = 12582912.0, 0x4B400000
#: Since this version of LLVM, the operands of its dot products are bytes.
_BYTE_OPERANDS = 22


def _constant(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _load(w: Writer, arena: Any, at: Any, kind: Any, count: int) -> Any:
    value = w.b.load(w.at(arena, at, count, kind))
    value.align = 1
    return value


def _dot(w: Writer, total: Any, values: Any, weights: Any) -> Any:
    """Add the products of four unsigned bytes and four weights to each lane of a total."""
    features = code_generation.machine_features()
    if "+avx512vnni" in features:
        kind = _ALL if binding.llvm_version_info[0] >= _BYTE_OPERANDS else _WORDS
        operands = [w.b.bitcast(operand, kind) for operand in (values, weights)]
        return w.call("llvm.x86.avx512.vpdpbusd.512", _WORDS, total, *operands)
    if code_generation.machine_name() == "x86_64":
        value, weight = w.b.bitcast(values, _SHORTS), w.b.bitcast(weights, _SHORTS)
        eight = _constant(_SHORTS, 8)
        even = w.b.and_(value, _constant(_SHORTS, 0xFF)), w.b.ashr(w.b.shl(weight, eight), eight)
        odd = w.b.lshr(value, eight), w.b.ashr(weight, eight)
        return w.b.add(w.b.add(total, _pairs(w, features, *even)), _pairs(w, features, *odd))
    for place in range(WORD):
        value = w.b.and_(w.b.lshr(values, _constant(_WORDS, 8 * place)), _constant(_WORDS, 0xFF))
        weight = w.b.shl(weights, _constant(_WORDS, 24 - 8 * place)) if place < WORD - 1 else weights
        total = w.b.add(total, w.b.mul(value, w.b.ashr(weight, _constant(_WORDS, 24))))
    return total


def _pairs(w: Writer, features: str, x: Any, y: Any) -> Any:
    """Return the sums of the products of pairs of int16 in each lane, with the widest instruction of the target."""
    name, lanes = next((name, lanes) for feature, name, lanes in _PAIRS if feature in features)
    kind, parts = ir.VectorType(I32, lanes), []
    for first in range(0, 2 * LANES, 2 * lanes):
        places = ir.Constant(ir.VectorType(I32, 2 * lanes), list(range(first, first + 2 * lanes)))
        parts.append(w.call(name, kind, w.b.shuffle_vector(x, x, places), w.b.shuffle_vector(y, y, places)))
    while len(parts) > 1:
        places = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
        parts = [w.b.shuffle_vector(a, b, places) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


class _Output:
    """Turns numbers into bytes and stores them."""

    def __init__(self, w: Writer, arena: Any, mem: Any, runs: Any, how: Any) -> None:
        self.w, self.arena, self.mem, self.runs, self.how = w, arena, mem, runs, how
        self.low = w.splat(w.b.sitofp(how.low, F32), LANES)
        self.high = w.splat(w.b.sitofp(how.high, F32), LANES)
        self.shift = w.splat(w.b.sub(w.b.trunc(how.shift, I32), I32(_MAGIC_BITS)), LANES)

    def factor(self, block: int = 0) -> Any:
        """Load the factors of a block of channels."""
        return self.w.load(self.mem, self.w.plus(self.how.factors, block * LANES), _FLOATS)

    def store(self, numbers: Any, factor: Any, position: Any, block: int = 0) -> None:
        """Round float32 numbers and write them at a position."""
        w = self.w
        product = w.b.fmul(numbers, factor)
        product = w.b.select(w.b.fcmp_ordered(">", product, self.low), product, self.low)
        product = w.b.select(w.b.fcmp_ordered("<", product, self.high), product, self.high)
        bits = w.b.bitcast(w.b.fadd(product, _constant(_FLOATS, _MAGIC)), _WORDS)
        found = w.b.trunc(w.b.add(bits, self.shift), _BYTES)
        place = w.b.add(w.word(self.mem, w.b.add(self.runs.outputs, position)), self.runs.column)
        done = w.b.store(found, w.at(self.arena, w.plus(place, block * LANES), LANES, _BYTES))
        done.align = 1


def convolve() -> Any:
    """Write `integer_forms.convolve`."""

    def write(w: Writer, k: Any, n: Any, arena: Any, mem: Any, runs: Any, weights: Any, bias: Any, how: Any) -> None:
        output = _Output(w, arena, mem, runs, how)

        def variant(blocks: int, positions: int) -> None:
            sums = [w.variables(blocks, _WORDS) for _ in range(positions)]
            (at,) = w.variables(1, I64)
            with w.loop(i64(0), runs.positions, positions) as first:
                for b in range(blocks):
                    start = w.load(mem, w.plus(bias, b * LANES), _WORDS)
                    for row in sums:
                        w.b.store(start, row[b])
                starts = [w.word(mem, w.plus(w.b.add(runs.inputs, first), p)) for p in range(positions)]
                w.b.store(weights, at)
                with w.loop(i64(0), runs.pieces, 1) as run:
                    entry = w.b.add(runs.runs, w.b.mul(run, i64(2)))
                    offset, words = w.word(mem, entry), w.word(mem, w.plus(entry, 1))
                    here = w.b.load(at)
                    with w.loop(i64(0), words, 1) as word:
                        place = w.b.add(here, w.b.mul(word, i64(blocks * LANES)))
                        block = [w.load(mem, w.plus(place, b * LANES), _WORDS) for b in range(blocks)]
                        byte = w.b.add(offset, w.b.mul(word, i64(WORD)))
                        for start, row in zip(starts, sums, strict=True):
                            value = w.splat(_load(w, arena, w.b.add(start, byte), I32, WORD), LANES)
                            for b in range(blocks):
                                w.b.store(_dot(w, w.b.load(row[b]), value, block[b]), row[b])
                    w.b.store(w.b.add(here, w.b.mul(words, i64(blocks * LANES))), at)
                for b in range(blocks):
                    factor = output.factor(b)
                    for p, row in enumerate(sums):
                        numbers = w.b.sitofp(w.b.load(row[b]), _FLOATS)
                        output.store(numbers, factor, w.plus(first, p), b)

        switch(w, (n, k), [(blocks, count) for blocks, counts in TILES.items() for count in counts], variant)

    return helper("iiAARiiR", types.void, write)


def convolve_channels() -> Any:
    """Write `integer_forms.convolve_channels`."""

    def write(w: Writer, quads: Any, arena: Any, mem: Any, runs: Any, weights: Any, bias: Any, how: Any) -> None:
        output = _Output(w, arena, mem, runs, how)
        pair = ir.Constant(ir.VectorType(I32, 2 * LANES), list(range(2 * LANES)))
        order = [lane + LANES * tap for lane in range(LANES) for tap in range(WORD)]
        across = ir.Constant(ir.VectorType(I32, WORD * LANES), order)

        def variant(quads: int) -> None:
            block = [w.load(mem, w.plus(weights, q * LANES), _WORDS) for q in range(quads)]
            taps = [w.word(mem, w.plus(runs.runs, t)) for t in range(quads * WORD)]
            begin, factor = w.load(mem, bias, _WORDS), output.factor()
            with w.loop(i64(0), runs.positions, 1) as position:
                start, total = w.b.add(w.word(mem, w.b.add(runs.inputs, position)), runs.column), begin
                for q in range(quads):
                    found = [
                        _load(w, arena, w.b.add(start, tap), _BYTES, LANES) for tap in taps[q * WORD : q * WORD + WORD]
                    ]
                    halves = [w.b.shuffle_vector(found[i], found[i + 1], pair) for i in (0, 2)]
                    mixed = w.b.shuffle_vector(*halves, across)
                    total = _dot(w, total, w.b.bitcast(mixed, _WORDS), block[q])
                output.store(w.b.sitofp(total, _FLOATS), factor, position)

        switch(w, (quads,), [(quads,) for quads in QUADS], variant)

    return helper("iAARiiR", types.void, write)


def pool_channels() -> Any:
    """Write `integer_forms.pool_channels`."""

    def write(w: Writer, arena: Any, mem: Any, runs: Any, pooling: Any, how: Any) -> None:
        output, (total,) = _Output(w, arena, mem, runs, how), w.variables(1, _WORDS)
        least = w.splat(w.b.trunc(pooling.least, I32), LANES)
        all_least = w.splat(w.b.trunc(w.b.mul(pooling.least, runs.pieces), I32), LANES)
        divisor, factor = w.splat(w.b.sitofp(pooling.divisor, F32), LANES), output.factor()

        def pooled(maximum: bool) -> None:
            with w.loop(i64(0), runs.positions, 1) as position:
                start = w.b.add(w.word(mem, w.b.add(runs.inputs, position)), runs.column)
                w.b.store(ir.Constant(_WORDS, None), total)
                with w.loop(i64(0), runs.pieces, 1) as tap:
                    place = w.b.add(start, w.word(mem, w.b.add(runs.runs, tap)))
                    found, so_far = w.b.zext(_load(w, arena, place, _BYTES, LANES), _WORDS), w.b.load(total)
                    larger = w.b.icmp_signed(">", found, so_far)
                    w.b.store(w.b.select(larger, found, so_far) if maximum else w.b.add(found, so_far), total)
                numbers = w.b.sitofp(w.b.add(w.b.load(total), least if maximum else all_least), _FLOATS)
                output.store(numbers if maximum else w.b.fdiv(numbers, divisor), factor, position)

        with w.b.if_else(w.flag(pooling.maximum)) as (then, otherwise):
            with then:
                pooled(True)
            with otherwise:
                pooled(False)

    return helper("AARRR", types.void, write)


def add_channels() -> Any:
    """Write `integer_forms.add_channels`."""

    def write(w: Writer, arena: Any, mem: Any, addends: Any, runs: Any, how: Any) -> None:
        output = _Output(w, arena, mem, runs, how)
        tables = (addends.first, addends.second)
        least = [w.splat(w.b.trunc(part, I32), LANES) for part in (addends.first_least, addends.second_least)]
        scales = [w.splat(w.load(mem, w.plus(addends.scales, k)), LANES) for k in range(2)]
        factor = output.factor()
        with w.loop(i64(0), runs.positions, 1) as position:
            parts = []
            for table, lowest, scale in zip(tables, least, scales, strict=True):
                place = w.b.add(w.word(mem, w.b.add(table, position)), runs.column)
                whole = w.b.add(w.b.zext(_load(w, arena, place, _BYTES, LANES), _WORDS), lowest)
                parts.append(w.b.fmul(w.b.sitofp(whole, _FLOATS), scale))
            output.store(w.b.fadd(*parts), factor, position)

    return helper("AARRR", types.void, write)
