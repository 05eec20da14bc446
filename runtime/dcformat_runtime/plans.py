"""Predicts the memory and work of a network before its weights are decoded, and refuses one that exceeds the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from dcformat.errors import naming_file
from dcformat.graph import Graph
from dcformat.limits import memory_counts, require_memory, require_work
from dcformat_runtime.backends import LoadOptions, choose_backend
from dcformat_runtime.compile import memory_prediction, work_prediction
from dcformat_runtime.compile.memory_prediction import Prediction
from dcformat_runtime.compile.program import check_words
from dcformat_runtime.network import check_graph, outline, takes_rows
from dcformat_runtime.weight_matrices import Matrix

if TYPE_CHECKING:
    from dcformat_runtime.compile.graph_prediction import GraphPrediction

    Plan: TypeAlias = Prediction | GraphPrediction


def make_plan(graph: Graph | None, tensors: Mapping[str, Matrix], held: int, options: LoadOptions) -> Plan:
    """Predict the memory of a network whose weights are not decoded, and refuse one that exceeds the limits."""
    plan = predict(graph, tensors, held, options)
    memory = memory_of(plan)
    require_memory("running the network", memory.total, options.max_memory)
    check_words(memory.words)
    return plan


def predict(graph: Graph | None, tensors: Mapping[str, Matrix], held: int, options: LoadOptions) -> Plan:
    """Predict the memory, and refuse more work than `options` allow."""
    backend, exact = choose_backend(options.backend)[0], options.deterministic
    shapes = check_graph(graph, tensors)
    if graph is not None and not takes_rows(graph, shapes):
        from dcformat_runtime.compile import graph_prediction

        plan = graph_prediction.predict(graph, shapes, tensors, held, options.threads, backend, exact)
        require_work("running one input", plan.running, options.max_work)
        require_work("making the network ready", plan.making, options.max_work)
        return plan
    network = outline(graph, tensors, shapes)
    require_work("running one input", work_prediction.steps(network, backend, exact), options.max_work)
    require_work("making the network ready", work_prediction.making_steps(network), options.max_work)
    return memory_prediction.predict(network, held, options.threads, backend, exact, options.max_memory)


def memory_of(plan: Plan) -> Prediction:
    """Return the memory that a plan predicts."""
    return plan if isinstance(plan, Prediction) else plan.memory


@contextmanager
def within_memory(limit: int | None, path: str | None = None) -> Iterator[None]:
    """Turn a lack of memory into a `MemoryLimitError`, and let errors name the file."""
    with naming_file(path), memory_counts("running the network", limit):
        yield
