"""Makes the sessions of files and of models in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import dcformat
from dcformat.jit.machine_code import store
from dcformat.model import Model, require_no_delta
from dcformat.source import is_url
from dcformat_runtime.backends import LoadOptions, make_engine
from dcformat_runtime.compile import memory_prediction, work_prediction
from dcformat_runtime.compile.memory_prediction import Prediction
from dcformat_runtime.engine import ProgramEngine
from dcformat_runtime.network import Network, lower, matrices
from dcformat_runtime.plans import make_plan, within_memory
from dcformat_runtime.session import NetworkInterface, Session

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat_runtime.plans import Plan
    from dcformat_runtime.session import ModelSource


def load_source(source: ModelSource | Model, options: LoadOptions) -> Session:
    """Make the session of a file, or of a model in memory; see `session.load`."""
    if isinstance(source, Model):
        return make_in_memory(source, options)
    opened = dcformat.open(source, max_memory=options.max_memory, max_work=options.max_work)
    with opened as file, within_memory(options.max_memory, file.path):
        return _load(file, options, _lasting(source))


def load_and_save(path: str, data: bytes, options: LoadOptions) -> Session:
    """Make the session of a file whose bytes are `data`, and save its network for later processes."""
    limit = options.max_memory
    with within_memory(limit, path), dcformat.open(data, max_memory=limit, max_work=options.max_work) as file:
        return _load(file, options, _lasting(path), data)


def _load(file: DcfFile, options: LoadOptions, source: str | bytes, data: bytes | None = None) -> Session:
    require_no_delta(file.delta)
    plan = make_plan(file.graph, *memory_prediction.matrices_of(file), options)
    return _make(file.model(), options, plan, source, data)


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


def _make(
    model: Model, options: LoadOptions, plan: Plan, source: str | bytes | Model, data: bytes | None = None
) -> Session:
    """Make the session that a network needs; save the network if `data` has the bytes of its file."""
    if not isinstance(plan, Prediction):
        from dcformat_runtime.graph_session import GraphSession

        return GraphSession(model, options, plan, source, _later(model, options))
    network = lower(model)
    engine = make_engine(network, options, plan.threads)
    later = _later(model, options) if engine.name == "numpy" else None
    seen = interface(model, network, plan, engine.name, options.deterministic)
    if data is not None and isinstance(engine, ProgramEngine) and _can_be_saved(plan, options.max_memory):
        from dcformat_runtime import preparing

        preparing.save(data, str(source), seen, engine, options.deterministic)
    return Session(seen, engine, options, source, later)


def _can_be_saved(plan: Prediction, limit: int | None) -> bool:
    """Return whether two programs and the copies that saving makes of them stay within their limits."""
    within = limit is None or plan.total + 4 * store.MAX_BYTES <= limit
    return within and 2 * 4 * plan.words <= store.MAX_BYTES


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
