"""The check of an exported model: onnx's checker, and the results of onnxruntime beside those of a session."""

from __future__ import annotations

from dcformat.model import Model
from dcformat_interop.graph_builder import index_limits
from dcformat_interop.lowering.comparison import NetworkRun
from dcformat_interop.onnx_export.model_writer import BATCH
from dcformat_interop.onnx_import.checking import Comparison, compare
from dcformat_interop.onnx_import.model_inputs import InputPlan
from dcformat_interop.onnx_import.source_model import OnnxOrigin, OnnxSource, onnx_engine


def check_export(path: str, model: Model, made: bytes, run: NetworkRun) -> Comparison:
    """Compare an exported ONNX model with the network that `run` runs.

    Parameters
    ----------
    path : str
        The name of the ONNX model, for errors.
    model : Model
        The network.
    made : bytes
        The bytes that `to_onnx` made from it.
    run : callable
        Takes inputs by name and returns outputs by name, as a session does.

    Raises
    ------
    UnfitError
        The results differ, or the model cannot be run.
    """
    import onnx

    assert model.graph is not None
    proto = onnx.load_from_string(made)
    # The full check infers shapes, and that does not know sparse initializers.
    onnx.checker.check_model(proto, full_check=not proto.graph.sparse_initializer)
    plans = [
        InputPlan(
            value.name, port.dtype, tuple(1 if size is None else size for size in port.full_shape), port.batch_axis,
            None if port.batch_axis is None else BATCH,
        )
        for value, port in zip(proto.graph.input, model.graph.inputs, strict=True)
    ]  # fmt: skip
    source = OnnxSource(OnnxOrigin(path, lambda: onnx_engine(made, proto)), proto, plans, {})
    shapes = {name: tensor.shape for name, tensor in model.tensors.items()}
    source.limits = index_limits(model.graph.inputs, model.graph.nodes, model.graph.shapes(shapes), shapes)
    return compare(model, source, run)
