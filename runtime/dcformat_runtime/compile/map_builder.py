"""Translates elementwise nodes to the instructions of a map, which `kernels.map_functions` lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Add, Binary, Node, Operand, Quantize, ReLU, Requantize, Unary, Where
from dcformat.records import record
from dcformat_runtime.elementwise_layers import POWERS
from dcformat_runtime.kernels import map_functions as words

Words = npt.NDArray[np.int64]
#: The sizes and strides of the dimensions over which an operand is broadcast, the innermost first.
Dimensions = Sequence[tuple[int, int]]

#: The functions of the kernel for those of the nodes.
UNARY = {
    "neg": words.NEG, "abs": words.ABS, "sign": words.SIGN, "floor": words.FLOOR, "ceil": words.CEIL,
    "round": words.ROUND, "sqrt": words.SQRT, "exp": words.EXP, "log": words.LOG, "erf": words.ERF,
    "sigmoid": words.SIGMOID, "tanh": words.TANH,
}  # fmt: skip
_BINARY = {
    "sub": words.SUB, "mul": words.MUL, "div": words.DIV, "minimum": words.MINIMUM, "maximum": words.MAXIMUM,
    "equal": words.EQUAL, "less": words.LESS, "less_equal": words.LESS_EQUAL,
}  # fmt: skip


@record(eq=False)
class MapCode:
    """The instructions of a map.

    `operands` are the values and tensors that it loads, `loads` (int64) has a row for each, and `constants` (float32)
    are the contents of the first of the `registers`. `program` (int64) has a row for each instruction.
    """

    operands: tuple[int | str, ...]
    loads: Words
    constants: npt.NDArray[np.float32]
    program: Words
    registers: int


class _Instruction(NamedTuple):
    """An instruction whose result and operands are numbers of results; a `LOAD` reads row `load` of the table."""

    function: int
    result: int
    reads: tuple[int, ...] = ()
    load: int = 0


class MapBuilder:
    """Translates nodes to instructions whose operands are numbers of results, and then to registers.

    Result numbers count constants, loads and instructions in the order in which they were first needed.

    Parameters
    ----------
    dimensions : callable
        Returns the dimensions over which a value or tensor is broadcast; none if it is like the result. The innermost
        stride is 0 or 1.
    """

    def __init__(self, dimensions: Callable[[int | str], Dimensions]) -> None:
        self._dimensions = dimensions
        self._results: dict[int | str, int] = {}
        self._constants: dict[bytes, int] = {}  # the result that holds each float32
        self._operands: list[int | str] = []
        self._loads: list[list[int]] = []
        self._code: list[_Instruction] = []
        self._count = 0

    def add(self, node: Node, value: int) -> None:
        """Add a node that makes a value; it must be one that maps can have (`is_elementwise`)."""
        power = isinstance(node, Binary) and node.function == "pow"  # its exponent is no operand of an instruction
        at = [self._operand(operand) for operand in (node.inputs[:1] if power else node.inputs)]
        match node:
            case ReLU():
                made = self._emit(words.MAXIMUM, at[0], self._constant(0.0))
            case Unary():
                made = self._emit(UNARY[node.function], at[0])
            case Add():
                made = at[0]
                for operand in at[1:]:
                    made = self._emit(words.ADD, made, operand)
            case Binary(function="pow"):
                made = at[0]
                for _ in range(POWERS[float(node.inputs[1])] - 1):
                    made = self._emit(words.MUL, made, at[0])
            case Binary():
                made = self._emit(_BINARY[node.function], *at)
            case Where():
                made = self._emit(words.WHERE, *at)
            case Quantize():
                made = self._quantize(node, at[0])
            case Requantize():
                made = self._requantize(node, *at)
        self._results[value] = made

    def _quantize(self, node: Quantize, x: int) -> int:
        scale, zero = self._constant(node.scale), self._constant(node.zero_point)
        steps = self._emit(words.ADD, self._emit(words.ROUND, self._emit(words.DIV, x, scale)), zero)
        steps = self._emit(words.MAXIMUM, steps, self._constant(node.low))
        steps = self._emit(words.MINIMUM, steps, self._constant(node.high))
        return self._emit(words.MUL, self._emit(words.SUB, steps, zero), scale)

    def _requantize(self, node: Requantize, x: int, scale: int) -> int:
        factor = self._emit(words.MUL, self._constant(node.input_scale), scale)
        factor = self._emit(words.DIV, factor, self._constant(node.output_scale))
        steps = self._emit(words.ROUND, self._emit(words.MUL, x, factor))
        steps = self._emit(words.MAXIMUM, steps, self._constant(node.low))
        return self._emit(words.MINIMUM, steps, self._constant(node.high))

    def _emit(self, function: int, *reads: int, load: int = 0) -> int:
        result = self._next()
        self._code.append(_Instruction(function, result, reads, load))
        return result

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _constant(self, number: float) -> int:
        bits = np.float32(number).tobytes()
        if bits not in self._constants:
            self._constants[bits] = self._next()
        return self._constants[bits]

    def _operand(self, operand: Operand) -> int:
        if isinstance(operand, float):
            return self._constant(operand)
        if operand not in self._results:
            self._results[operand] = self._emit(words.LOAD, load=len(self._loads))
            self._load(operand)
        return self._results[operand]

    def _load(self, operand: int | str) -> None:
        dimensions = self._dimensions(operand)
        row = [len(self._operands), len(dimensions)]
        for size, stride in dimensions:
            row += [size, stride]
        self._operands.append(operand)
        self._loads.append(row)

    def finish(self, target: int) -> MapCode:
        """Return the instructions that make value `target`."""
        store = _Instruction(words.STORE, self._count, (self._results[target],))
        program, count = _allocate([*self._code, store], list(self._constants.values()))
        width = max(map(len, self._loads), default=words.DIMENSIONS)
        loads = np.array([row + [0] * (width - len(row)) for row in self._loads], np.int64)
        constants = np.frombuffer(b"".join(self._constants), np.float32)
        return MapCode(tuple(self._operands), loads, constants, program, count)


def _allocate(code: Sequence[_Instruction], constants: Sequence[int]) -> tuple[Words, int]:
    """Return a program with registers in place of results, and the number of registers.

    Constants keep the first registers. No instruction writes a register that it reads, so that loops vectorise.
    """
    last = {result: k for k, instruction in enumerate(code) for result in (instruction.result, *instruction.reads)}
    held = {result: register for register, result in enumerate(constants)}
    free: list[int] = []
    count = len(constants)
    program = np.zeros((len(code), words.INSTRUCTION), np.int64)
    for k, (function, result, reads, load) in enumerate(code):
        if not free:
            free.append(count)
            count += 1
        held[result] = free.pop()
        operands = (load,) if function == words.LOAD else [held[read] for read in reads]
        program[k, : words.FIRST + len(operands)] = (function, held[result], *operands)
        free += sorted(held[done] for done in {result, *reads} if last[done] == k and done not in constants)
    return program, count
