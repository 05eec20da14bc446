"""The compiled kernel that runs a network of integers: operator by operator, for one image after the other.

Sizes and places are data, so one compilation serves every network. The kernel validates nothing:
`compile.integer_program` proves every place to be in range, and no sum to overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, kernel
from dcformat_runtime.kernels import float_functions as fn
from dcformat_runtime.kernels.integer_forms import (
    Addends,
    Pooling,
    Rounding,
    Runs,
    add_channels,
    convolve,
    convolve_channels,
    pool_channels,
)

Array = npt.NDArray[Any]

#: The operators.
INPUT, CONVOLVE, CHANNELS, POOL, ADD, SOFTMAX, OUTPUT = range(7)
#: The words of a record: those of `Runs` and `Rounding`, and the other fields of an operator.
(
    CODE, INPUTS, OUTPUTS, POSITIONS, RUNS, COUNT, COLUMN, FACTORS, LOW, HIGH, SHIFT, K, N, WEIGHTS, BIAS, MAXIMUM,
    LEAST, DIVISOR, SECOND, SECOND_LEAST, SCALES,
) = range(21)  # fmt: skip
RECORD = 21
#: The words of a record that copies an image from the caller or to it: the place in the arena, the channels, rows and
#: columns, the distances between those in the caller's array and in the arena, and the operand combined with each byte.
PLACE, PLANES, ROWS, COLUMNS, OUT_PLANE, OUT_ROW, OUT_COLUMN, ROW, STEP, CHANGE = range(1, 11)

exp = fn.exp
rounded, lesser, greater = fn.rounded, fn.lesser, fn.greater


@kernel("void(const int8[::1], int8[::1], uint8[::1], const int32[::1], const int64[:, ::1], int64)")
def run_integers(x: Array, out: Array, arena: Array, mem: Array, program: Array, images: int) -> None:
    """Run a program.

    Parameters
    ----------
    x : int8
        The images, one after the other; those of uint8 are seen as int8.
    out : int8
        The results, likewise.
    arena : uint8
        The values of one image; the memory around them keeps its contents.
    mem : int32
        The constants.
    program : int64 (operators, RECORD)
    images : int
        At least 1.
    """
    taken = len(x) // images
    given = len(out) // images
    for image in range(images):
        for p in range(len(program)):
            record = program[p]
            code = record[CODE]
            if code == CONVOLVE:
                convolve(record[K], record[N], arena, mem, _runs(record), record[WEIGHTS], record[BIAS], _how(record))
            elif code == CHANNELS:
                convolve_channels(record[K], arena, mem, _runs(record), record[WEIGHTS], record[BIAS], _how(record))
            elif code == POOL:
                pooling = Pooling(record[MAXIMUM], record[LEAST], record[DIVISOR])
                pool_channels(arena, mem, _runs(record), pooling, _how(record))
            elif code == ADD:
                addends = Addends(record[INPUTS], record[SECOND], record[LEAST], record[SECOND_LEAST], record[SCALES])
                add_channels(arena, mem, addends, _runs(record), _how(record))
            elif code == SOFTMAX:
                _softmax(arena, mem, record)
            elif code == INPUT:
                _copy_in(x, image * taken, arena, record)
            else:
                _copy_out(out, image * given, arena, record)


@device
def _runs(record: Array) -> Runs:
    return Runs(
        record[INPUTS], record[OUTPUTS], record[POSITIONS], record[RUNS], record[COUNT], record[COLUMN]
    )  # fmt: skip


@device
def _how(record: Array) -> Rounding:
    return Rounding(record[FACTORS], record[LOW], record[HIGH], record[SHIFT])


@device
def _copy_in(x: Array, start: int, arena: Array, record: Array) -> None:
    """Copy an image, channels last, and flip the highest bit of each byte if it has a sign."""
    change = record[CHANGE]
    planes = record[PLANES]
    columns = record[COLUMNS]
    if record[OUT_PLANE] == 1 and record[OUT_COLUMN] == planes and record[STEP] == planes:
        planes *= columns  # a row is one piece
        columns = 1
    for row in range(record[ROWS]):
        for column in range(columns):
            source = start + row * record[OUT_ROW] + column * record[OUT_COLUMN]
            line = record[PLACE] + row * record[ROW] + column * record[STEP]
            if record[OUT_PLANE] == 1:
                s = x[source : source + planes]
                t = arena[line : line + planes]
                for i in range(planes):
                    t[i] = (s[i] ^ change) & 0xFF
            else:
                for plane in range(planes):
                    arena[line + plane] = (x[source + plane * record[OUT_PLANE]] ^ change) & 0xFF


@device
def _copy_out(out: Array, start: int, arena: Array, record: Array) -> None:
    """Copy a result and add a number to each byte."""
    change = record[CHANGE]
    for row in range(record[ROWS]):
        for column in range(record[COLUMNS]):
            line = record[PLACE] + row * record[ROW] + column * record[STEP]
            at = start + row * record[OUT_ROW] + column * record[OUT_COLUMN]
            if record[OUT_PLANE] == 1:
                s = arena[line : line + record[PLANES]]
                t = out[at : at + record[PLANES]]
                for i in range(len(t)):
                    t[i] = np.int8(s[i] + change)
            else:
                for plane in range(record[PLANES]):
                    out[at + plane * record[OUT_PLANE]] = np.int8(arena[line + plane] + change)


@device
def _softmax(arena: Array, mem: Array, record: Array) -> None:
    """Compute the softmax of a vector of `COUNT` integers; the words at `SCALES` hold their scale and the factor."""
    scales = mem[record[SCALES] : record[SCALES] + 2].view(np.float32)
    scale = scales[0]
    factor = scales[1]
    start = record[INPUTS]
    largest = arena[start]
    for k in range(1, record[COUNT]):
        largest = max(largest, arena[start + k])
    least = np.int64(record[LEAST])
    top = np.float32(np.int64(largest) + least) * scale
    total = 0.0
    for k in range(record[COUNT]):
        total += np.float64(exp(np.float32(np.int64(arena[start + k]) + least) * scale - top))
    whole = np.float32(total)
    low = np.float32(record[LOW])
    high = np.float32(record[HIGH])
    for k in range(record[COUNT]):
        part = exp(np.float32(np.int64(arena[start + k]) + least) * scale - top) / whole
        steps = lesser(greater(rounded(part * factor), low), high)
        arena[record[OUTPUTS] + k] = (np.int64(steps) + record[SHIFT]) & 0xFF
