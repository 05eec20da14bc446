"""Import of networks from TensorFlow Lite models."""

from dcformat_interop.tflite_import.checking import LiteRTComparison
from dcformat_interop.tflite_import.reading import TfliteImport, import_tflite, read_tflite

__all__ = ["LiteRTComparison", "TfliteImport", "import_tflite", "read_tflite"]
