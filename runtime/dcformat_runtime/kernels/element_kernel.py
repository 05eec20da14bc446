"""The part of the kernel that computes elementwise operators."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dcformat.jit import device
from dcformat_runtime import isa
from dcformat_runtime.kernels import map_functions as maps
from dcformat_runtime.kernels.simd import word

Array = npt.NDArray[Any]

_BLOCK, _LOAD, _STORE = maps.BLOCK, maps.LOAD, maps.STORE
_TARGET, _FIRST, _SECOND, _THIRD, _INSTRUCTION = maps.TARGET, maps.FIRST, maps.SECOND, maps.THIRD, maps.INSTRUCTION
compute, copy = maps.compute, maps.copy


@device
def run_elements(a: Array, mem: Array, op: int, target: int, part: int, parts: int) -> None:
    """Run a map; each part takes adjacent blocks of elements."""
    count = word(mem, op + isa.MAP_COUNT)
    program = word(mem, op + isa.MAP_PROGRAM)
    loads = word(mem, op + isa.MAP_LOADS)
    # Parts without registers of their own leave the work to the others.
    workers = min(parts, word(mem, op + isa.MAP_SCRATCHES))
    registers = word(mem, op + isa.MAP_SCRATCH) + part * word(mem, op + isa.MAP_SCRATCH_STEP)
    blocks = (count + _BLOCK - 1) // _BLOCK
    start = part * blocks // workers * _BLOCK
    stop = min((part + 1) * blocks // workers * _BLOCK, count)
    if start < stop:
        for k in range(word(mem, op + isa.MAP_CONSTANT_COUNT)):
            value = mem[word(mem, op + isa.MAP_CONSTANTS) + k]
            register = a[registers + k * _BLOCK : registers + (k + 1) * _BLOCK]
            for i in range(min(_BLOCK, count)):
                register[i] = value
    while start < stop:
        n = min(_BLOCK, stop - start)
        for p in range(word(mem, op + isa.MAP_INSTRUCTIONS)):
            at = program + p * _INSTRUCTION
            function = word(mem, at)
            d = registers + _BLOCK * word(mem, at + _TARGET)
            first = word(mem, at + _FIRST)
            if function == _LOAD:
                source = word(mem, loads + 2 * first)
                repeats = word(mem, loads + 2 * first + 1)
                if repeats == 0:
                    copy(a, d, a, source + start, n)
                else:
                    _spread(a, d, source, start, n, repeats, word(mem, op + isa.MAP_LANES))
            elif function == _STORE:
                copy(a, target + start, a, registers + _BLOCK * first, n)
            else:
                x = registers + _BLOCK * first
                y = registers + _BLOCK * word(mem, at + _SECOND)
                z = registers + _BLOCK * word(mem, at + _THIRD)
                compute(function, a[d : d + n], a[x : x + n], a[y : y + n], a[z : z + n], n)
        start += _BLOCK


@device
def _spread(a: Array, to: int, source: int, start: int, n: int, repeats: int, lanes: int) -> None:
    """Load the lanes of each channel, which belong to `repeats` elements of the result."""
    done = 0
    while done < n:
        channel = (start + done) // repeats
        count = min((channel + 1) * repeats - start, n) - done
        value = a[source + channel * lanes]
        out = a[to + done : to + done + count]
        if lanes == 1:
            for i in range(count):
                out[i] = value
        else:
            for i in range(count // lanes):
                copy(out, i * lanes, a, source + channel * lanes, lanes)
        done += count
