"""The backend of networks that `engine` and the NumPy backend do not take whole: several inputs, any rank or operator.

Segments of the graph run on a backend of their own, and the nodes between them in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np

from dcformat.graph import Graph, Node
from dcformat.model import Model
from dcformat.records import replace
from dcformat_runtime.network import Floats, Network, lower, to_float32
from dcformat_runtime.numpy_backend.evaluation import Value, evaluate
from dcformat_runtime.segments import Segment, divide, evenly_padded

#: Makes the backend of a segment's network; its `run` takes and returns rows.
MakeEngine = Callable[[Network], "SegmentEngine"]
Compute = Callable[[dict[int, Floats], int], Floats]


#: Operators and functions that NumPy computes with sums or steps whose last bit depends on the machine.
_UNORDERED = frozenset({
    "linear", "conv", "conv_transpose", "matmul", "lstm", "gru", "softmax", "normalize", "avg_pool", "resize", "mean",
    "sum", "prod", "exp", "log", "erf", "sigmoid", "tanh", "sin", "cos", "pow",
})  # fmt: skip


class _Step(NamedTuple):
    """A segment or a node: its name, the value that it makes, and the values that nothing reads after it.

    `node` is None for a segment.
    """

    name: str
    target: int
    run: Compute
    done: tuple[int, ...]
    node: Node | None


class SegmentEngine(Protocol):
    """What runs a segment."""

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
    """

    def __init__(self, model: Model, make_engine: MakeEngine) -> None:
        assert model.graph is not None
        shapes = {name: tensor.shape for name, tensor in model.tensors.items()}
        self.graph = evenly_padded(model.graph, model.graph.shapes(shapes))
        self.shapes = self.graph.shapes(shapes)
        self._dense: dict[str, Floats] = {}
        self._steps: list[_Step] = []
        steps = divide(self.graph, self.shapes)
        done = _last_uses(self.graph, steps)
        for step in steps:
            if isinstance(step, Segment):
                name, run = _segment_name(step), self._segment(model, step, make_engine)
                self._steps.append(_Step(name, step.target, run, done.get(step.stop - 1, ()), None))
            else:
                node = self.graph.nodes[step]
                value = len(self.graph.inputs) + step
                run = self._node(model, node, value)
                self._steps.append(_Step(f"{node.kind}.{step}", value, run, done.get(step, ()), node))

    def run(self, inputs: list[Floats], batch: int) -> list[Floats]:
        """Return the outputs, each ``(batch, *shape)``, of the inputs, each float32 ``(batch, *shape)``."""
        values = dict(enumerate(inputs))
        for _ in self._walk(values, batch):
            pass
        return [values[output.value] for output in self.graph.outputs]

    def unordered(self) -> str | None:
        """Return the name of a step whose rounding depends on the machine or the batch, None if there is none."""
        for step in self._steps:
            if step.node is not None and {step.node.kind, getattr(step.node, "function", "")} & _UNORDERED:
                return step.name
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
        tensors = {name: model.tensors[name] for node in segment.graph.nodes for name in node.tensors}
        for name in segment.lines:
            out, channels, width = tensors[name].shape
            tensors[name] = replace(tensors[name], shape=(out, channels, 1, width))
        network = lower(Model(tensors, segment.graph))
        engine, source, shape = make_engine(network), segment.source, self.shapes[segment.target]

        def run(values: dict[int, Floats], batch: int) -> Floats:
            x = np.ascontiguousarray(values[source]).reshape(batch * segment.lead, -1)
            return engine.run(x).reshape(batch, *shape)

        return run

    def _node(self, model: Model, node: Node, value: int) -> Compute:
        shape = self.shapes[value]
        tensors = {name: self._tensor(model, name) for name in node.tensors}

        def run(values: dict[int, Floats], batch: int) -> Floats:
            operands = [_operand(operand, values, tensors) for operand in node.inputs]
            return evaluate(node, operands, tensors, shape)

        return run

    def _tensor(self, model: Model, name: str) -> Floats:
        if name not in self._dense:
            tensor = model.tensors[name]
            self._dense[name] = to_float32(tensor, tensor.to_dense(), infinite=True)
        return self._dense[name]


def _operand(operand: int | str | float, values: Mapping[int, Floats], tensors: Mapping[str, Floats]) -> Value:
    if isinstance(operand, int):
        return Value(values[operand], True)
    if isinstance(operand, str):
        return Value(tensors[operand], False)
    return Value(np.array(operand, np.float32), False)


def _segment_name(segment: Segment) -> str:
    names = [node.tensors[0] for node in segment.graph.nodes if node.tensors]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _last_uses(graph: Graph, steps: list[Segment | int]) -> dict[int, tuple[int, ...]]:
    """Return, for each last node of a step, the values that nothing reads after it."""
    last: dict[int, int] = {}
    for step in steps:
        stop = step.stop - 1 if isinstance(step, Segment) else step
        read = (step.source,) if isinstance(step, Segment) else graph.nodes[step].values
        for value in read:
            last[value] = stop
    kept = {output.value for output in graph.outputs}
    done: dict[int, tuple[int, ...]] = {}
    for value, stop in last.items():
        if value not in kept:
            done[stop] = (*done.get(stop, ()), value)
    return done
