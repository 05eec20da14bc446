"""The backend of networks that `engine` and the NumPy backend cannot run: several inputs, any rank or operator.

Each segment of the graph has its own backend; maps (`compile.maps`) run in a kernel, and other nodes in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np

from dcformat.graph import Graph, Node
from dcformat.model import Model
from dcformat_runtime.as_floats import to_float32
from dcformat_runtime.compile import maps, rows
from dcformat_runtime.compile.maps import Map
from dcformat_runtime.compile.rows import RowPlan
from dcformat_runtime.kernels import map_functions, map_kernel, row_kernel
from dcformat_runtime.network import Network, lower
from dcformat_runtime.numpy_backend import ordered_elements
from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand, evaluate
from dcformat_runtime.segments import Segment, divide, evenly_padded, seen_by
from dcformat_runtime.weight_matrices import Floats

#: Makes the backend of a segment's network; its `run` takes and returns rows.
MakeEngine = Callable[[Network], "SegmentEngine"]
Compute = Callable[[dict[int, Floats], int], Floats]


#: Operators and functions that NumPy computes with sums or steps whose last bit depends on the machine.
_UNORDERED = frozenset({
    "linear", "conv", "conv_transpose", "matmul", "lstm", "gru", "avg_pool", "resize", "prod", "sin", "cos", "pow",
})  # fmt: skip
#: Those that have an order over the last dimensions only (`compile.rows`).
_ORDERED_ROWS = frozenset({"softmax", "normalize", "mean", "sum"})
#: Stands for the arrays that a map does not read.
_NOTHING = np.empty(0, np.float32)


class _Step(NamedTuple):
    """A segment, a map or a node: its name, the value that it makes, and the values that nothing reads after it."""

    name: str
    target: int
    run: Compute
    done: tuple[int, ...]


class SegmentEngine(Protocol):
    """The backend of a segment."""

    def run(self, x: Floats) -> Floats:
        """Return float32 ``(batch, outputs)`` for C-contiguous float32 ``(batch, features)``."""


class GraphEngine:
    """Runs any graph. It keeps no state between calls, and several threads may call it at once.

    Parameters
    ----------
    model : Model
        A model with a graph.
    make_engine : callable
        Makes the backend of a segment.
    compiled : bool
        Whether compiled kernels run the nodes that they can.
    exact : bool
        Whether NumPy computes nodes by the same steps as the kernels, where both can.
    """

    def __init__(self, model: Model, make_engine: MakeEngine, compiled: bool, exact: bool) -> None:
        assert model.graph is not None
        shapes = {name: tensor.shape for name, tensor in model.tensors.items()}
        self.graph, self.shapes = evenly_padded(model.graph, model.graph.shapes(shapes))
        self._compiled, self._exact = compiled, exact
        self._dense: dict[str, Floats] = {}
        self._steps: list[_Step] = []
        divided = divide(self.graph, self.shapes)
        self._between = [step for step in divided if isinstance(step, int)]
        steps: Sequence[Segment | Map | int] = divided
        if compiled:
            steps = maps.join(self.graph, self.shapes, shapes, divided)
        done, overwritable = _last_uses(self.graph, steps), maps.overwritable(self.graph, steps)
        for step in steps:
            if isinstance(step, Segment):
                name, run, target = _segment_name(step), self._segment(model, step, make_engine), step.target
            elif isinstance(step, Map):
                over = overwritable.intersection(done.get(step.stop - 1, ()))
                name, run, target = _map_name(self.graph, step), self._map(model, step, over), step.target
            else:
                target = len(self.graph.inputs) + step
                name, run = _node_name(self.graph, step), self._node(model, self.graph.nodes[step], target)
            last = step if isinstance(step, int) else step.stop - 1
            self._steps.append(_Step(name, target, run, done.get(last, ())))

    def run(self, inputs: list[Floats], batch: int) -> list[Floats]:
        """Return the outputs, each ``(batch, *shape)``, of the inputs, each float32 ``(batch, *shape)``."""
        values = dict(enumerate(inputs))
        for _ in self._walk(values, batch):
            pass
        return [values[output.value] for output in self.graph.outputs]

    def unordered(self) -> str | None:
        """Return the name of a step whose rounding depends on the machine or the batch; None if there is none."""
        for number in self._between:
            node = self.graph.nodes[number]
            names = {node.kind, getattr(node, "function", "")}
            if names & _UNORDERED or (names & _ORDERED_ROWS and rows.plan(node, self.shapes[node.values[0]]) is None):
                return _node_name(self.graph, number)
        return None

    def profile(self, inputs: list[Floats], batch: int) -> list[tuple[str, float]]:
        """Return each step's name and seconds."""
        times, start = [], perf_counter()
        for name in self._walk(dict(enumerate(inputs)), batch):
            now = perf_counter()
            times.append((name, now - start))
            start = now
        return times

    def _walk(self, values: dict[int, Floats], batch: int) -> Iterator[str]:
        for step in self._steps:
            values[step.target] = step.run(values, batch)
            for value in step.done:
                del values[value]
            yield step.name

    def _segment(self, model: Model, segment: Segment, make_engine: MakeEngine) -> Compute:
        network = lower(Model(seen_by(segment, model.tensors), segment.graph))
        engine, source, shape = make_engine(network), segment.source, self.shapes[segment.target]
        features = prod(self.shapes[source]) // segment.lead

        def run(values: dict[int, Floats], batch: int) -> Floats:
            x = np.ascontiguousarray(values[source]).reshape(batch * segment.lead, features)
            return engine.run(x).reshape(batch, *shape)

        return run

    def _map(self, model: Model, found: Map, overwritable: frozenset[int]) -> Compute:
        shape, size = self.shapes[found.target], prod(self.shapes[found.target])
        tensors = [
            np.ascontiguousarray(self._tensor(model, source.operand)).reshape(source.size)
            if isinstance(source.operand, str)
            else _NOTHING
            for source in found.sources
        ]
        rest = [_NOTHING] * (map_kernel.SOURCES - len(tensors))
        over = [k for k, source in enumerate(found.sources) if source.like and source.operand in overwritable]

        def run(values: dict[int, Floats], batch: int) -> Floats:
            # The arrays get the sizes for which the program was proved to be in range.
            arrays = [
                np.ascontiguousarray(values[source.operand]).reshape(batch * source.size)
                if isinstance(source.operand, int)
                else tensor
                for source, tensor in zip(found.sources, tensors, strict=True)
            ]
            out = arrays[over[0]] if over else np.empty(batch * size, np.float32)
            code = found.code
            registers = np.empty((code.registers, map_functions.BLOCK), np.float32)
            with np.errstate(all="ignore"):  # infinities and NaN are not errors here
                map_kernel.run_map(out, *arrays, *rest, code.constants, registers, code.loads, code.program)
            return out.reshape(batch, *shape)

        return run

    def _rows(self, node: Node, found: RowPlan, value: int) -> Compute:
        shape, (source,) = self.shapes[value], node.values
        if not self._compiled:
            return lambda values, batch: ordered_elements.rows(found, values[source], shape)

        def run(values: dict[int, Floats], batch: int) -> Floats:
            x = np.ascontiguousarray(values[source]).reshape(batch * found.size)
            out = np.empty(batch * found.made, np.float32)
            sums, extremes = np.empty(row_kernel.LANES), np.empty(row_kernel.LANES, np.float32)
            with np.errstate(all="ignore"):  # infinities and NaN are not errors here
                row_kernel.run_rows(out, x, sums, extremes, found.function, found.length, found.epsilon)
            return out.reshape(batch, *shape)

        return run

    def _node(self, model: Model, node: Node, value: int) -> Compute:
        shape = self.shapes[value]
        tensors = {name: self._tensor(model, name) for name in node.tensors}
        found = rows.plan(node, self.shapes[node.values[0]]) if self._compiled or self._exact else None
        if found is not None:
            return self._rows(node, found, value)

        def run(values: dict[int, Floats], batch: int) -> Floats:
            operands = [_operand(operand, values, tensors) for operand in node.inputs]
            if self._exact and (made := ordered_elements.elements(node, operands, len(shape))) is not None:
                return made
            return evaluate(node, operands, tensors, shape)

        return run

    def _tensor(self, model: Model, name: str) -> Floats:
        if name not in self._dense:
            tensor = model.tensors[name]
            self._dense[name] = to_float32(tensor, tensor.to_dense(), infinite=True)
        return self._dense[name]


def _operand(operand: int | str | float, values: Mapping[int, Floats], tensors: Mapping[str, Floats]) -> NumpyOperand:
    if isinstance(operand, int):
        return NumpyOperand(values[operand], True)
    if isinstance(operand, str):
        return NumpyOperand(tensors[operand], False)
    return NumpyOperand(np.array(operand, np.float32), False)


def _segment_name(segment: Segment) -> str:
    names = [node.tensors[0] for node in segment.graph.nodes if node.tensors]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _node_name(graph: Graph, number: int) -> str:
    return f"{graph.nodes[number].kind}.{number}"


def _map_name(graph: Graph, found: Map) -> str:
    first, last = _node_name(graph, found.start), _node_name(graph, found.stop - 1)
    return first if first == last else f"{first} to {last}"


def _last_uses(graph: Graph, steps: Sequence[Segment | Map | int]) -> dict[int, tuple[int, ...]]:
    """Return, for each last node of a step, the values that nothing reads after it."""
    last: dict[int, int] = {}
    for step in steps:
        if isinstance(step, int):
            read, stop = graph.nodes[step].values, step
        else:
            read, stop = step.values, step.stop - 1
        for value in read:
            last[value] = stop
    kept = {output.value for output in graph.outputs}
    done: dict[int, tuple[int, ...]] = {}
    for value, stop in last.items():
        if value not in kept:
            done[stop] = (*done.get(stop, ()), value)
    return done
