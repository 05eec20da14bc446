"""Loads files and models: predicts what they take, refuses what exceeds the limits, decodes, and makes sessions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import dcformat
from dcformat.errors import naming_file
from dcformat.limits import memory_counts, require_memory, require_work
from dcformat.model import Model, require_no_delta
from dcformat.source import is_url
from dcformat_runtime.backends import LoadOptions, choose_backend, make_engine
from dcformat_runtime.compile import memory_prediction, work_prediction
from dcformat_runtime.compile.memory_prediction import MemoryRow, Prediction
from dcformat_runtime.compile.program import check_words
from dcformat_runtime.network import Network, check_graph, lower, matrices, outline, takes_rows
from dcformat_runtime.session import NetworkInterface, Session

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.graph import Graph
    from dcformat_runtime.compile.graph_prediction import GraphPrediction
    from dcformat_runtime.session import ModelSource
    from dcformat_runtime.weight_matrices import Matrix

    Plan: TypeAlias = Prediction | GraphPrediction


def load_source(source: ModelSource | Model, options: LoadOptions) -> Session:
    """Make the session of a file, or of a model in memory; see `session.load`."""
    if isinstance(source, Model):
        return make_in_memory(source, options)
    opened = dcformat.open(source, max_memory=options.max_memory, max_work=options.max_work)
    with opened as file, within_memory(options.max_memory, file.path):
        require_no_delta(file.delta)
        plan = make_plan(file.graph, *memory_prediction.matrices_of(file), options)
        return _make(file.model(), options, plan, _lasting(source))


def _lasting(source: ModelSource) -> str | bytes:
    """Return what a session pickles by: the absolute path of a file, or bytes that cannot change."""
    if isinstance(source, (str, os.PathLike)):
        # abspath takes a tenth of the time of Path.resolve.
        return os.fspath(source) if is_url(source) else os.path.abspath(source)  # noqa: PTH100
    return bytes(source)


def make_in_memory(model: Model, options: LoadOptions) -> Session:
    """Make the session of a model whose arrays are in memory and count against the limit."""
    require_no_delta(model.delta)
    held = sum(
        array.nbytes
        for tensor in model.tensors.values()
        for array in (tensor.data, tensor.codebook, tensor.indptr, tensor.indices)
        if array is not None
    )
    plan = make_plan(model.graph, matrices(model.tensors), held, options)
    with within_memory(options.max_memory):
        return _make(model, options, plan, model)


def predicted_rows(file: DcfFile, options: LoadOptions) -> list[MemoryRow]:
    """Return the maximum memory for running an open file, use by use; see `session.predict_memory`."""
    with within_memory(None, file.path):
        require_no_delta(file.delta)
        return list(memory_of(predict(file.graph, *memory_prediction.matrices_of(file), options)).rows)


def _make(model: Model, options: LoadOptions, plan: Plan, source: str | bytes | Model) -> Session:
    """Make the session that a network needs."""
    if not isinstance(plan, Prediction):
        from dcformat_runtime.graph_session import GraphSession

        return GraphSession(model, options, plan, source, _later(model, options))
    network = lower(model)
    engine = make_engine(network, options, plan.threads)
    later = _later(model, options) if engine.name == "numpy" else None
    return Session(interface(model, network, plan, engine.name, options.deterministic), engine, options, source, later)


def interface(model: Model, network: Network, plan: Prediction, backend: str, exact: bool) -> NetworkInterface:
    """Return what a caller sees of a network."""
    assert model.graph is not None  # `lower` refuses a model without one
    names = model.graph.inputs[0].name, model.graph.outputs[0].name
    steps = work_prediction.steps(network, backend, exact)
    return NetworkInterface(
        model.labels, names, network.input_shape, network.output_shape, network.pixels, plan.total, plan.call, steps
    )


def _later(model: Model, options: LoadOptions) -> Callable[[], Session] | None:
    """Return what makes the session with kernels, if they can be compiled and the choice is left to us."""
    from dcformat_runtime import switching

    if options.backend != "auto" or not switching.possible():
        return None
    return lambda: make_in_memory(model, options._replace(backend="numba"))


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
