"""The instructions of maps: small programs over the elements of arrays, a block at a time.

`map_kernel` runs them for arrays, and `element_kernel` for the layers of a network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device
from dcformat_runtime.kernels import float_functions as fn

Array = npt.NDArray[Any]

#: The number of elements in a register.
BLOCK = 1024
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


@device
def copy(target: Array, to: int, source: Array, at: int, n: int) -> None:
    """Copy `n` numbers."""
    t = target[to : to + n]
    s = source[at : at + n]
    for i in range(n):
        t[i] = s[i]


@device
def compute(function: int, t: Array, x: Array, y: Array, z: Array, n: int) -> None:
    """Compute `n` elements of `t` from those of up to three operands, none of which shares memory with it."""
    if function < ADD:
        _unary(function, t, x, n)
    elif function < EQUAL:
        _binary(function, t, x, y, n)
    else:
        _choose(function, t, x, y, z, n)


@device
def _unary(function: int, t: Array, x: Array, n: int) -> None:
    if function == NEG:
        for i in range(n):
            t[i] = -x[i]
    elif function == ABS:
        for i in range(n):
            t[i] = abs(x[i])
    elif function == SIGN:
        for i in range(n):
            t[i] = sign(x[i])
    elif function == FLOOR:
        for i in range(n):
            t[i] = floor(x[i])
    elif function == CEIL:
        for i in range(n):
            t[i] = ceil(x[i])
    elif function == ROUND:
        for i in range(n):
            t[i] = rounded(x[i])
    elif function == SQRT:
        for i in range(n):
            t[i] = square_root(x[i])
    elif function == EXP:
        for i in range(n):
            t[i] = exp(x[i])
    elif function == LOG:
        for i in range(n):
            t[i] = log(x[i])
    elif function == ERF:
        for i in range(n):
            t[i] = erf(x[i])
    elif function == SIGMOID:
        for i in range(n):
            t[i] = sigmoid(x[i])
    else:
        for i in range(n):
            t[i] = tanh(x[i])


@device
def _binary(function: int, t: Array, x: Array, y: Array, n: int) -> None:
    if function == ADD:
        for i in range(n):
            t[i] = x[i] + y[i]
    elif function == SUB:
        for i in range(n):
            t[i] = x[i] - y[i]
    elif function == MUL:
        for i in range(n):
            t[i] = x[i] * y[i]
    elif function == DIV:
        for i in range(n):
            t[i] = x[i] / y[i]
    elif function == MINIMUM:
        for i in range(n):
            t[i] = lesser(x[i], y[i])
    else:
        for i in range(n):
            t[i] = greater(x[i], y[i])


@device
def _choose(function: int, t: Array, x: Array, y: Array, z: Array, n: int) -> None:
    if function == EQUAL:
        for i in range(n):
            t[i] = _ONE if x[i] == y[i] else _ZERO
    elif function == LESS:
        for i in range(n):
            t[i] = _ONE if x[i] < y[i] else _ZERO
    elif function == LESS_EQUAL:
        for i in range(n):
            t[i] = _ONE if x[i] <= y[i] else _ZERO
    else:
        for i in range(n):
            chosen, other = y[i], z[i]  # both are loaded, so that nothing branches
            t[i] = chosen if x[i] != _ZERO else other
