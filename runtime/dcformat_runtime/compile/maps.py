"""Makes one compiled pass (`kernels.map_kernel`) of consecutive nodes that treat each element alike.

A map reads arrays like its result, or arrays that broadcast to it, and only the value that it makes last is read by
others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import (
    Add,
    Binary,
    Conv,
    Graph,
    Linear,
    MatMul,
    Node,
    Normalize,
    Operand,
    Quantize,
    Reduce,
    ReLU,
    Requantize,
    Shape,
    Softmax,
    Unary,
    Where,
)
from dcformat.records import record
from dcformat_runtime.kernels import map_kernel as words
from dcformat_runtime.network import Floats
from dcformat_runtime.segments import Segment, last_readers

Words = npt.NDArray[np.int64]

#: The most registers of a map, and the most nodes.
REGISTERS, _NODES = 24, 64
#: The bytes of registers that a call takes.
REGISTER_BYTES = 4 * REGISTERS * words.BLOCK

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
#: Powers that are products: how many times the first operand is a factor.
_POWERS = {2.0: 2, 3.0: 3}
#: The size of an outermost dimension, which no index exceeds.
_UNBOUNDED = 1 << 62
#: Nodes whose results have memory of their own.
_COPYING = (MatMul, Linear, Conv, Softmax, Normalize, Reduce)


@record(eq=False)
class MapSource:
    """An array that a map reads: a value or a tensor, with the number of its elements (of one input, for a value).

    `like` is set if the array has the shape of the result.
    """

    operand: int | str
    size: int
    like: bool


@record(eq=False)
class Map:
    """Nodes `start` to `stop - 1` of a graph, which make value `target` in one pass.

    `constants`, `loads`, `program` and the number of `registers` are for `kernels.map_kernel.run_map`.
    """

    start: int
    stop: int
    target: int
    sources: tuple[MapSource, ...]
    constants: Floats
    loads: Words
    program: Words
    registers: int

    @property
    def values(self) -> tuple[int, ...]:
        """The values that the map reads."""
        return tuple(source.operand for source in self.sources if isinstance(source.operand, int))


def join(
    graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Shape], steps: Sequence[Segment | int]
) -> list[Segment | Map | int]:
    """Return the steps of `segments.divide` with maps in place of the nodes that are part of one.

    Parameters
    ----------
    graph : Graph
    shapes : sequence of tuple of int
        The shape of every value.
    tensors : mapping of str to tuple of int
        The shapes of the tensors.
    steps : sequence of Segment or int
    """
    last = last_readers(graph)
    joined: list[Segment | Map | int] = []
    stop = 0
    for place, step in enumerate(steps):
        if isinstance(step, Segment):
            joined.append(step)
        elif step >= stop:
            end = step
            while place + end - step < len(steps) and steps[place + end - step] == end:
                end += 1
            found = _longest(graph, shapes, tensors, last, step, end)
            joined.append(step if found is None else found)
            stop = step + 1 if found is None else found.stop
    return joined


def _longest(
    graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Shape], last: Sequence[int], start: int, end: int
) -> Map | None:
    """Return the longest map that begins with node `start` and ends before node `end`, or None without one."""
    first = len(graph.inputs)
    shape = shapes[first + start]
    builder = _Builder(shape, shapes, tensors, first + start)
    best = None
    for number in range(start, min(end, start + _NODES)):
        node, value = graph.nodes[number], first + number
        if shapes[value] != shape or not builder.add(node, value):
            break
        if all(last[made] <= number for made in range(first + start, value)) and last[value] >= 0:
            found = builder.finish(start, number + 1)
            best = found or best
    return best


def overwritable(graph: Graph, steps: Sequence[Segment | Map | int]) -> frozenset[int]:
    """Return the values whose memory holds nothing else, so that the last map that reads one may overwrite it."""
    made = {step.target for step in steps if not isinstance(step, int)}
    for step in steps:
        if isinstance(step, int) and isinstance(graph.nodes[step], _COPYING):
            made.add(len(graph.inputs) + step)
        elif isinstance(step, int):
            made.difference_update(graph.nodes[step].values)
    return frozenset(made)


class _Instruction(NamedTuple):
    """An instruction whose result and operands are numbers of results; a `LOAD` reads row `load` of the table."""

    function: int
    result: int
    reads: tuple[int, ...] = ()
    load: int = 0


class _Builder:
    """Translates nodes to instructions whose operands are numbers of results, and then to registers.

    Result numbers count constants, loads and instructions in the order in which they were first needed.
    """

    def __init__(self, shape: Shape, shapes: Sequence[Shape], tensors: Mapping[str, Shape], first: int) -> None:
        self._shape, self._shapes, self._tensors, self._first = shape, shapes, tensors, first
        self._results: dict[int | str, int] = {}
        self._constants: dict[bytes, int] = {}  # the result that holds each float32
        self._sources: list[MapSource] = []
        self._loads: list[list[int]] = []
        self._code: list[_Instruction] = []
        self._count = 0

    def add(self, node: Node, value: int) -> bool:
        """Add a node that makes a value; return whether a map can have it."""
        if not self._supports(node):
            return False
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
                for _ in range(_POWERS[float(node.inputs[1])] - 1):
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
        return True

    def _supports(self, node: Node) -> bool:
        match node:
            case Binary(function="pow"):
                exponent = node.inputs[1]
                return isinstance(exponent, float) and exponent in _POWERS and not isinstance(node.inputs[0], float)
            case Unary():
                return node.function in UNARY
            case Binary():
                return node.function in _BINARY
        return isinstance(node, ReLU | Add | Where | Quantize | Requantize)

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
        is_value = isinstance(operand, int)
        shape = self._shapes[operand] if isinstance(operand, int) else self._tensors[operand]
        dimensions = _dimensions(shape, self._shape, is_value)
        row = [len(self._sources), len(dimensions)]
        for size, stride in dimensions:
            row += [size, stride]
        self._sources.append(MapSource(operand, prod(shape), not dimensions))
        self._loads.append(row)

    def finish(self, start: int, stop: int) -> Map | None:
        """Return the map of the nodes so far, or None if the kernel cannot hold it."""
        if not 0 < len(self._sources) <= words.SOURCES:
            return None
        target = self._first + stop - start - 1
        store = _Instruction(words.STORE, self._count, (self._results[target],))
        allocated = _allocate([*self._code, store], list(self._constants.values()))
        if allocated is None:
            return None
        program, registers = allocated
        width = max(max(map(len, self._loads)), words.DIMENSIONS)
        loads = [row + [0] * (width - len(row)) for row in self._loads]
        constants = np.frombuffer(b"".join(self._constants), np.float32)
        return Map(
            start, stop, target, tuple(self._sources), constants, np.array(loads, np.int64),
            program, registers,
        )  # fmt: skip


def _dimensions(shape: Shape, result: Shape, batched: bool) -> list[tuple[int, int]]:
    """Return the sizes and strides of an operand over a result with a batch, the innermost first, as few as possible.

    None are needed for an operand like the result. The innermost stride is 0 or 1.
    """
    sizes = (1,) * (len(result) - len(shape)) + shape
    merged: list[tuple[int, int]] = []
    stride = 1
    for size, own in zip(reversed(result), reversed(sizes), strict=True):
        if size > 1:
            _merge(merged, size, stride if own > 1 else 0)
        stride *= own
    _merge(merged, 1, stride if batched else 0)  # the batch
    merged[-1] = (_UNBOUNDED, merged[-1][1])
    return [] if len(merged) == 1 and merged[0][1] == 1 else merged


def _merge(merged: list[tuple[int, int]], size: int, stride: int) -> None:
    """Add a dimension outside those that there are; it joins the last if it goes on where that ends."""
    if merged and stride == merged[-1][1] * merged[-1][0]:
        merged[-1] = (merged[-1][0] * size, merged[-1][1])
    else:
        merged.append((size, stride))


def _allocate(code: Sequence[_Instruction], constants: Sequence[int]) -> tuple[Words, int] | None:
    """Return a program with registers in place of results, and the number of registers; None if it needs too many.

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
    return (program, count) if count <= REGISTERS else None
