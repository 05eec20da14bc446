"""Predicts the memory and work of a network before its weights are decoded, and refuses one that exceeds the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from dcformat.errors import naming_file
from dcformat.graph import Graph
from dcformat.limits import memory_counts, require_memory, require_work
from dcformat.model import require_no_delta
from dcformat_runtime.backends import Backend, LoadOptions, checked_options, choose_backend
from dcformat_runtime.compile import memory_prediction, work_prediction
from dcformat_runtime.compile.memory_prediction import Prediction
from dcformat_runtime.compile.program import check_words
from dcformat_runtime.network import check_graph, outline, takes_rows
from dcformat_runtime.weight_matrices import Matrix

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat_runtime.compile.graph_prediction import GraphPrediction
    from dcformat_runtime.compile.memory_prediction import MemoryRow

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


def predict_memory(file: DcfFile, *, threads: int | None = None, backend: Backend = "auto") -> list[MemoryRow]:
    """Return the maximum memory for running an open file, use by use.

    This decodes nothing. `load` refuses a file whose rows add up to more than its `max_memory`. To stay below that, it
    may use fewer threads than there are cores, unless `threads` gives a number.

    Raises
    ------
    GraphError
        The file holds no network.
    """
    options = checked_options(threads, False, backend, None, None)
    with within_memory(None, file.path):
        require_no_delta(file.delta)
        return list(memory_of(predict(file.graph, *memory_prediction.matrices_of(file), options)).rows)


def memory_of(plan: Plan) -> Prediction:
    """Return the memory that a plan predicts."""
    return plan if isinstance(plan, Prediction) else plan.memory


@contextmanager
def within_memory(limit: int | None, path: str | None = None) -> Iterator[None]:
    """Turn a lack of memory into a `MemoryLimitError`, and let errors name the file."""
    with naming_file(path), memory_counts("running the network", limit):
        yield
