"""Runs networks as sessions and as the ONNX models that the writer makes from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from dcformat_interop.onnx_export import to_onnx
from dcformat_runtime import Session

import dcformat
from dcformat import Model
from dcformat.graph import Graph

Array = npt.NDArray[Any]

#: The part of the largest output that results may differ by.
TOLERANCE = 1e-4


def with_tensors(graph: Graph, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Model:
    """Return a graph with random tensors, half of whose elements are zero."""
    random = np.random.default_rng(seed)
    arrays = {
        name: np.where(random.random(shape) < 0.5, random.standard_normal(shape), 0).astype(np.float32)
        for name, shape in shapes.items()
    }
    return Model({name: dcformat.from_dense(name, array) for name, array in arrays.items()}, graph)


def inputs_for(model: Model, batch: int, seed: int) -> dict[str, Array]:
    """Return random inputs by name: normal numbers, or small whole ones."""
    assert model.graph is not None
    random, out = np.random.default_rng(seed), {}
    for port in model.graph.inputs:
        shape = [batch if size is None else size for size in port.full_shape]
        numbers = np.asarray(random.standard_normal(shape))
        whole = np.dtype(port.dtype).kind in "iub"
        out[port.name] = np.asarray(np.abs(numbers * 2) if whole else numbers).astype(port.dtype)
    return out


def exported(model: Model, **options: Any) -> Any:
    """Return an onnxruntime session of a model's ONNX form, after onnx's checker has passed it."""
    import onnx
    import onnxruntime

    made = to_onnx(model, **options)
    onnx.checker.check_model(made, full_check=not options.get("sparse"))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(made, settings, providers=["CPUExecutionProvider"])


def run_exported(session: Any, inputs: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of an onnxruntime session, whose inputs are given in their order."""
    named = {port.name: array for port, array in zip(session.get_inputs(), inputs.values(), strict=True)}
    return [np.asarray(result) for result in session.run(None, named)]


def run_session(model: Model, inputs: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of a session without compiled kernels."""
    return list(Session.from_model(model, backend="numpy")(dict(inputs)).values())


def assert_same(found: Array, wanted: Array, unsure: Array | float = 0.0) -> None:
    """Compare results; `unsure` is how much a tiny change of the inputs changes `wanted`."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    a, b = (np.asarray(array, np.float64) for array in (found, wanted))
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
        scale = np.abs(b[np.isfinite(b)]).max(initial=0)
        beyond = apart > TOLERANCE * scale + 1e-6 + 100 * np.asarray(unsure)
    assert not beyond.any(), (found[beyond][:3], wanted[beyond][:3])
