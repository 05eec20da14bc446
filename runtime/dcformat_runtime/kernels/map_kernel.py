"""The compiled kernel that runs a map: a small program over the elements of arrays, a block at a time.

A block of every intermediate result stays in the first-level cache. Sizes and functions are data, so one compilation
serves every map. The kernel validates nothing (`compile.maps` proves the program to be in range), and treats denormal
numbers as zeros.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dcformat.jit import device, kernel
from dcformat_runtime.kernels.map_functions import (
    BLOCK,
    DIMENSION,
    DIMENSIONS,
    FIRST,
    FUNCTION,
    LOAD,
    RANK,
    SECOND,
    SOURCE,
    STORE,
    TARGET,
    THIRD,
    compute,
    copy,
)
from dcformat_runtime.kernels.simd import flush_denormals, restore_denormals

Array = npt.NDArray[Any]

#: The number of arrays that a map can read.
SOURCES = 6


def _steps(out: Array, program: Array) -> int:
    return 8 * (len(program) + 1) * (len(out) + BLOCK)


@kernel(
    "void(float32[::1], const float32[::1], const float32[::1], const float32[::1], const float32[::1], "
    "const float32[::1], const float32[::1], const float32[::1], float32[:, ::1], const int64[:, ::1], "
    "const int64[:, ::1])",
    work=_steps,
)
def run_map(
    out: Array, x0: Array, x1: Array, x2: Array, x3: Array, x4: Array, x5: Array, constants: Array, registers: Array,
    loads: Array, program: Array,
) -> None:  # fmt: skip
    """Run a program for every element of `out`.

    Parameters
    ----------
    out : float32
        It may be one of the arrays that are read, if that has the shape of the result.
    x0, x1, x2, x3, x4, x5 : float32
        The arrays that loads read.
    constants : float32
        The contents of the first registers throughout.
    registers : float32 (registers, BLOCK)
    loads : int64 (loads, at least DIMENSIONS)
    program : int64 (instructions, INSTRUCTION)
    """
    floats = flush_denormals()
    total = len(out)
    for k in range(len(constants)):
        for i in range(min(BLOCK, total)):
            registers[k, i] = constants[k]
    sources = (x0, x1, x2, x3, x4, x5)
    for start in range(0, total, BLOCK):
        n = min(BLOCK, total - start)
        for p in range(len(program)):
            function = program[p, FUNCTION]
            d = program[p, TARGET]
            a = program[p, FIRST]
            if function == LOAD:
                source = sources[loads[a, SOURCE]]
                if loads[a, RANK] == 0:
                    copy(registers[d], 0, source, start, n)
                else:
                    _spread(registers[d], source, start, n, loads[a])
            elif function == STORE:
                copy(out, start, registers[a], 0, n)
            else:
                second, third = program[p, SECOND], program[p, THIRD]
                compute(function, registers[d], registers[a], registers[second], registers[third], n)
    restore_denormals(floats)


@device
def _spread(target: Array, source: Array, start: int, n: int, load: Array) -> None:
    """Load the part of a broadcast array that belongs to elements `start` to `start + n - 1` of the result."""
    inner = load[DIMENSIONS]
    step = load[DIMENSIONS + 1]
    done = 0
    while done < n:
        # One run along the innermost dimension, whose stride is 0 or 1.
        outer = (start + done) // inner
        first = start + done - outer * inner
        count = min(inner - first, n - done)
        at = first * step
        for k in range(1, load[RANK]):
            size = load[DIMENSIONS + DIMENSION * k]
            place = outer
            if k + 1 < load[RANK]:
                outer = outer // size
                place -= outer * size
            at += place * load[DIMENSIONS + DIMENSION * k + 1]
        if step:
            copy(target, done, source, at, count)
        else:
            value = source[at]
            t = target[done : done + count]
            for i in range(count):
                t[i] = value
        done += count
