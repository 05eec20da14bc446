"""Import of networks from ONNX models."""

from dcformat_interop.onnx_import.checking import Comparison
from dcformat_interop.onnx_import.reading import OnnxImport, import_onnx, read_onnx

__all__ = ["Comparison", "OnnxImport", "import_onnx", "read_onnx"]
