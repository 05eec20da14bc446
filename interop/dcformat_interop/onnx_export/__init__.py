"""The writer of ONNX models, which other runtimes can run. It needs the onnx package."""

from dcformat_interop.onnx_export.graph_writer import dense
from dcformat_interop.onnx_export.model_writer import to_onnx

__all__ = ["dense", "to_onnx"]
