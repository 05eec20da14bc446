"""Imports ONNX models: from a file to a `Model`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.errors import FormatError
from dcformat.graph import Port
from dcformat.graph.graph import PORT_DTYPES
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import Model
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.lowering.comparison import NetworkRun
from dcformat_interop.lowering.completion import ImportedOutput, complete
from dcformat_interop.onnx_import import operators as _operators  # noqa: F401 - registers all lowerings
from dcformat_interop.onnx_import.checking import Comparison, compare
from dcformat_interop.onnx_import.evaluator import Names, OnnxEvaluator, Scope
from dcformat_interop.onnx_import.items import OnnxItem, constant
from dcformat_interop.onnx_import.loading import TensorLoader, load_model, opset_versions
from dcformat_interop.onnx_import.model_inputs import InputPlan, fixed_inputs, plan_inputs
from dcformat_interop.onnx_import.source_model import OnnxOrigin, OnnxSource, onnx_engine
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Budget, read_whole

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class OnnxImport:
    """A network read from an ONNX model.

    Attributes
    ----------
    model : Model
    source : OnnxSource
        The ONNX model, which can be run to check `model`.
    """

    model: Model
    source: OnnxSource

    def check(self, run: NetworkRun) -> Comparison:
        """Compare the network, which `run` runs, with the ONNX model; raise `UnfitError` if they differ.

        `run` takes inputs by name and returns outputs by name, as ``dcformat_runtime.Session.from_model(model)`` does.
        """
        return compare(self.model, self.source, run)


def read_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, npt.ArrayLike] | None = None,
    single: bool = False,
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> Model:
    """Read a network from an ONNX model. The parameters and errors are those of `import_onnx`."""
    return import_onnx(source, dims=dims, values=values, single=single, exact=exact, max_memory=max_memory).model


def import_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, npt.ArrayLike] | None = None,
    single: bool = False,
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> OnnxImport:
    """Read a network from an ONNX model, with the means to check it.

    The batch may have any size if the model leaves it open or has 1: the dimension is taken out of the graph.

    Parameters
    ----------
    source : path or bytes
        The model. External data must be in the folder of the file.
    dims : mapping of str to int, optional
        Sizes of dimensions that the model leaves open, by their names, or as ``INPUT.AXIS``.
    values : mapping of str to array_like, optional
        Inputs that become constant.
    single : bool
        Whether float64 constants that float32 cannot hold are rounded to it; otherwise they are refused.
    exact : bool
        Whether to keep the sign of negative zeros in tensors.
    max_memory : int or None
        Maximum number of bytes of the tensors and folded constants; None for no limit.

    Raises
    ------
    UnsupportedOperatorsError
        Some operators cannot be imported. The message names all of them.
    UnfitError
        The file is damaged, or the model is not valid; dimensions other than the batch are open.
    ImportError
        The onnx package is not installed.
    OSError
        The file cannot be read.
    """
    path = "ONNX model" if isinstance(source, bytes) else str(source)
    file = source if isinstance(source, bytes) else Path(source)
    data = file if isinstance(file, bytes) else read_whole(path, file, max_memory)
    model = load_model(path, data)
    folder = None if isinstance(file, bytes) else file.parent
    origin = OnnxOrigin(path, lambda: onnx_engine(file, model), folder)
    return import_proto(origin, model, dims=dims, values=values, single=single, max_memory=max_memory, exact=exact)


@np.errstate(all="ignore")  # numbers that are not finite are refused by name
def import_proto(
    origin: OnnxOrigin,
    model: Any,
    *,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, npt.ArrayLike] | None = None,
    single: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
    exact: bool = False,
) -> OnnxImport:
    """Read a network from a ModelProto.

    The parameters and errors are those of `import_onnx`.
    """
    path = origin.path
    given = {tensor.name for tensor in model.graph.initializer}
    given |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    open_inputs, fixed = fixed_inputs(path, [v for v in model.graph.input if v.name not in given], values or {})
    plans = plan_inputs(path, open_inputs, dims or {}, max_memory)
    builder, budget = GraphBuilder(origin.names), Budget(path, max_memory)
    names: Names = {name: constant(array) for name, array in fixed.items()}
    for plan in plans:
        value = builder.input(Port(plan.shape, plan.name, plan.dtype, None))
        names[plan.name] = OnnxItem(np.dtype(plan.dtype), value)
    loader = TensorLoader(path, origin.folder, budget)
    evaluator = OnnxEvaluator(origin, model, builder, loader, budget, single)
    evaluator.graph(model.graph, Scope(names, opset_versions(model), {}))
    evaluator.unsupported.check()
    source = OnnxSource(origin, model, plans, fixed)
    source.limits = builder.index_limits()
    outputs = _outputs(source, model, names, builder)
    try:
        return OnnxImport(_model(builder, plans, outputs, source, exact), source)
    except UnfitError:
        raise
    except (FormatError, ValueError) as error:
        raise UnfitError(path, "a network that a .dcf file can hold", str(error)) from error


def _outputs(source: OnnxSource, model: Any, names: Names, builder: GraphBuilder) -> list[tuple[str, str, Value]]:
    """Return the name, dtype and value of each output."""
    path, out = source.path, []
    for name, output in zip(source.outputs, model.graph.output, strict=True):
        item = names.get(output.name)
        what = f"output {name!r}"
        if item is None:
            raise UnfitError(path, "a node that makes it", "none", what)
        if item.dtype.name not in PORT_DTYPES:
            raise UnfitError(path, f"an output of {', '.join(PORT_DTYPES)}", item.dtype.name, what)
        if 0 in item.shape:
            raise UnfitError(path, "an output with elements", f"shape {item.shape}", what)
        out.append((name, item.dtype.name, _as_value(path, what, builder, item)))
    if not out:
        raise UnfitError(path, "an output", "none")
    return out


def _as_value(path: str, what: str, builder: GraphBuilder, item: OnnxItem) -> Value:
    if item.value is not None:
        return item.value
    try:
        return builder.materialize(np.asarray(item.array), what)
    except ValueError as error:
        raise UnfitError(path, "numbers that float32 holds", str(error), what) from error


def _model(
    builder: GraphBuilder,
    plans: Sequence[InputPlan],
    outputs: Sequence[tuple[str, str, Value]],
    source: OnnxSource,
    exact: bool,
) -> Model:
    axes, ends = _batch_axes(plans, outputs, source)
    results = [ImportedOutput(*output, end) for output, end in zip(outputs, ends, strict=True)]
    return complete(builder, axes, results, exact)


def _batch_axes(
    plans: Sequence[InputPlan], outputs: Sequence[tuple[str, str, Value]], source: OnnxSource
) -> tuple[list[int | None], list[int | None]]:
    """Return the dimensions of the inputs and outputs that are the batch."""
    shapes = [value.shape for _, _, value in outputs]
    if any(plan.symbol is not None for plan in plans):
        return [plan.batch_axis for plan in plans], source.batch_axes(shapes)
    none: tuple[list[int | None], list[int | None]] = [None] * len(plans), [None] * len(shapes)
    if plans[0].shape[:1] != (1,):
        return none
    ends = [_one(shape) for shape in shapes]
    return none if None in ends else ([_one(plan.shape) for plan in plans], ends)


def _one(shape: tuple[int, ...]) -> int | None:
    """Return which of the first two dimensions is 1: the batch of a model that leaves no size open."""
    return next((axis for axis, size in enumerate(shape[:2]) if size == 1), None)
