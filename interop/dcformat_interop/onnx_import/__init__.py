"""Import of networks from ONNX models."""

from dcformat_interop.onnx_import.checking import Comparison
from dcformat_interop.onnx_import.reading import OnnxImport, import_onnx, read_onnx
from dcformat_interop.onnx_import.unsupported import UnsupportedOperatorsError

__all__ = ["Comparison", "OnnxImport", "UnsupportedOperatorsError", "import_onnx", "read_onnx"]
