"""A kernel helper that decodes symbols of several rANS states at a time (coders.md, "Planes")."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.words import Integer
from dcformat.jit import intrinsic

Array = npt.NDArray[Any]

#: The number of states that `decode_block` takes.
BLOCK = 16


def _write_decode_block() -> Any:
    from llvmlite import ir
    from numba import types

    from dcformat.jit.compiler import code_generation
    from dcformat.jit.compiler.ir_writer import I8, I16, I32, I64, Writer, helper, i64

    bytes16, shorts, words32 = (ir.VectorType(kind, BLOCK) for kind in (I8, I16, I32))

    def splat(value: int) -> Any:
        return ir.Constant(words32, [value] * BLOCK)

    def loaded(w: Writer, array: Any, index: Any, kind: Any) -> Any:
        value = w.b.load(w.at(array, index, BLOCK, kind))
        value.align = 1
        return w.b.zext(value, words32)

    def spread(w: Writer, words: Any, at: Any, takes: Any) -> Any:
        """Return the next words, one for each lane that takes one; any number in the other lanes."""
        if "+avx512f" in code_generation.machine_features():
            near = loaded(w, words, at, shorts)
            return w.call("llvm.x86.avx512.mask.expand.v16i32", words32, near, splat(0), takes)
        out = splat(0)
        for lane in range(BLOCK):
            word = w.b.zext(w.b.load(w.at(words, at, 1, I16)), I32)
            out = w.b.insert_element(out, word, I32(lane))
            at = w.b.add(at, w.b.zext(w.b.extract_element(takes, I32(lane)), I64))
        return out

    def write(
        w: Writer, states: Any, lane: Any, slots: Any, classes: Any, words: Any, at: Any, out: Any, first: Any
    ) -> Any:
        b = w.b
        state = w.load(states, lane, words32)
        (place,) = w.variables(1, words32)
        b.store(b.and_(state, splat(4095)), place)
        with b.if_then(w.flag(classes.nitems)):
            table = b.shl(loaded(w, classes, first, bytes16), splat(12))
            b.store(b.add(b.load(place), table), place)
        entry = w.gather(slots, i64(0), b.load(place), I32)
        b.store(b.trunc(entry, bytes16), w.at(out, first, BLOCK, bytes16)).align = 1
        frequency = b.add(b.lshr(entry, splat(20)), splat(1))
        start = b.and_(b.lshr(entry, splat(8)), splat(4095))
        state = b.add(b.mul(frequency, b.lshr(state, splat(12))), start)
        takes = b.icmp_unsigned("<", state, splat(1 << 16))
        longer = b.or_(b.shl(state, splat(16)), spread(w, words, at, takes))
        w.store(b.select(takes, longer, state), states, lane)
        return b.zext(b.ctpop(b.bitcast(takes, I16)), I64)

    return helper("AiAAAiAi", types.int64, write)


@intrinsic(_write_decode_block)
def decode_block(
    states: Array, lane: Integer, slots: Array, classes: Array, words: Array, at: Integer, out: Array, first: Integer
) -> int:
    """Decode a symbol of each of 16 states, and return the number of words that they take.

    Parameters
    ----------
    states : uint32
    lane : int
        The first of the states.
    slots : uint32
        As `rans.decode` makes them, 4,096 for each table.
    classes : uint8
        The table of each symbol; empty if there is only one table.
    words : uint16
        The words; 16 from `at` on may be read.
    at : int
        The next word.
    out : uint8
        The symbols.
    first : int
        The first one to decode.
    """
    own = states[lane : lane + BLOCK]
    table = classes[first : first + BLOCK].astype(np.int64) << 12 if len(classes) else 0
    entry = slots[table + (own & 4095)].astype(np.int64)
    out[first : first + BLOCK] = entry & 255
    state = ((entry >> 20) + 1) * (own >> 12) + ((entry >> 8) & 4095)
    takes = state < 1 << 16
    taken = int(np.count_nonzero(takes))
    state[takes] = state[takes] << 16 | words[at : at + taken]
    own[:] = state
    return taken
