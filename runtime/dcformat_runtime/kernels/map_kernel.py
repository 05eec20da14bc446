"""The compiled kernel that runs a map: a small program over the elements of arrays, a block at a time.

A block of every intermediate result stays in the first-level cache. Sizes and functions are data, so one compilation
serves every map. The kernel validates nothing (`compile.maps` proves the program to be in range), and treats denormal
numbers as zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, kernel
from dcformat_runtime.kernels import float_functions as fn
from dcformat_runtime.kernels.simd import flush_denormals, restore_denormals

Array = npt.NDArray[Any]

#: The number of elements in a register.
BLOCK = 1024
#: The number of arrays that a map can read.
SOURCES = 6
#: An instruction: its function, the register that it writes, and up to three registers that it reads.
FUNCTION, TARGET, FIRST, SECOND, THIRD = range(5)
INSTRUCTION = 5
#: `LOAD` reads the array that row `FIRST` of the table of loads describes; `STORE` writes the result.
(
    LOAD, STORE, NEG, ABS, SIGN, FLOOR, CEIL, ROUND, SQRT, EXP, LOG, ERF, SIGMOID, TANH, ADD, SUB, MUL, DIV, MINIMUM,
    MAXIMUM, EQUAL, LESS, LESS_EQUAL, WHERE,
) = range(24)  # fmt: skip
#: A load: the number of its array, and the dimensions over which the array is broadcast, the innermost first: each has
#: a size and a stride. An array that is like the result has no dimension; of the outermost, the size does not matter.
SOURCE, RANK, DIMENSIONS = range(3)
#: The words of a dimension.
DIMENSION = 2

_ONE, _ZERO = np.float32(1), np.float32(0)
exp, log, erf, sigmoid, tanh = fn.exp, fn.log, fn.erf, fn.sigmoid, fn.tanh
sign, floor, ceil, rounded, square_root = fn.sign, fn.floor, fn.ceil, fn.rounded, fn.square_root
lesser, greater = fn.lesser, fn.greater


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
        May be one of the arrays that are read, if this is like the result.
    x0, x1, x2, x3, x4, x5 : float32
        The arrays that loads read.
    constants : float32
        What the first registers hold throughout.
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
            elif function < ADD:
                _unary(registers, function, d, a, n)
            elif function < EQUAL:
                _binary(registers, function, d, a, program[p, SECOND], n)
            else:
                _choose(registers, function, d, a, program[p, SECOND], program[p, THIRD], n)
    restore_denormals(floats)


@device
def copy(target: Array, to: int, source: Array, at: int, n: int) -> None:
    """Copy `n` numbers."""
    t = target[to : to + n]
    s = source[at : at + n]
    for i in range(n):
        t[i] = s[i]


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


@device
def _unary(r: Array, function: int, d: int, a: int, n: int) -> None:
    if function == NEG:
        for i in range(n):
            r[d, i] = -r[a, i]
    elif function == ABS:
        for i in range(n):
            r[d, i] = abs(r[a, i])
    elif function == SIGN:
        for i in range(n):
            r[d, i] = sign(r[a, i])
    elif function == FLOOR:
        for i in range(n):
            r[d, i] = floor(r[a, i])
    elif function == CEIL:
        for i in range(n):
            r[d, i] = ceil(r[a, i])
    elif function == ROUND:
        for i in range(n):
            r[d, i] = rounded(r[a, i])
    elif function == SQRT:
        for i in range(n):
            r[d, i] = square_root(r[a, i])
    elif function == EXP:
        for i in range(n):
            r[d, i] = exp(r[a, i])
    elif function == LOG:
        for i in range(n):
            r[d, i] = log(r[a, i])
    elif function == ERF:
        for i in range(n):
            r[d, i] = erf(r[a, i])
    elif function == SIGMOID:
        for i in range(n):
            r[d, i] = sigmoid(r[a, i])
    else:
        for i in range(n):
            r[d, i] = tanh(r[a, i])


@device
def _binary(r: Array, function: int, d: int, a: int, b: int, n: int) -> None:
    if function == ADD:
        for i in range(n):
            r[d, i] = r[a, i] + r[b, i]
    elif function == SUB:
        for i in range(n):
            r[d, i] = r[a, i] - r[b, i]
    elif function == MUL:
        for i in range(n):
            r[d, i] = r[a, i] * r[b, i]
    elif function == DIV:
        for i in range(n):
            r[d, i] = r[a, i] / r[b, i]
    elif function == MINIMUM:
        for i in range(n):
            r[d, i] = lesser(r[a, i], r[b, i])
    else:
        for i in range(n):
            r[d, i] = greater(r[a, i], r[b, i])


@device
def _choose(r: Array, function: int, d: int, a: int, b: int, c: int, n: int) -> None:
    if function == EQUAL:
        for i in range(n):
            r[d, i] = _ONE if r[a, i] == r[b, i] else _ZERO
    elif function == LESS:
        for i in range(n):
            r[d, i] = _ONE if r[a, i] < r[b, i] else _ZERO
    elif function == LESS_EQUAL:
        for i in range(n):
            r[d, i] = _ONE if r[a, i] <= r[b, i] else _ZERO
    else:
        for i in range(n):
            chosen, other = r[b, i], r[c, i]  # both are loaded, so that nothing branches
            r[d, i] = chosen if r[a, i] != _ZERO else other
