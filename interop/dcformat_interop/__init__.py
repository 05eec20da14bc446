"""Files of other formats: reads checkpoints and networks that `dcformat` can pack, and writes tensors and networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcformat_interop.archives import write_npz, write_safetensors
    from dcformat_interop.checkpoint_reader import Checkpoint, Note, read_checkpoint
    from dcformat_interop.deep_compression_net import read_deep_compression_net
    from dcformat_interop.hub import find_model
    from dcformat_interop.lowering.unsupported import UnsupportedOperatorsError
    from dcformat_interop.matching import match
    from dcformat_interop.onnx_import import OnnxImport, import_onnx, read_onnx
    from dcformat_interop.refusals import MissingTorchError, UnfitError
    from dcformat_interop.state_dict_export import load_state_dict
    from dcformat_interop.tensors import Dense
    from dcformat_interop.tflite_import import TfliteImport, import_tflite, read_tflite
    from dcformat_interop.torch_import import import_pt2, read_pt2

__all__ = [
    "Checkpoint",
    "Dense",
    "MissingTorchError",
    "Note",
    "OnnxImport",
    "TfliteImport",
    "UnfitError",
    "UnsupportedOperatorsError",
    "find_model",
    "import_onnx",
    "import_pt2",
    "import_tflite",
    "load_state_dict",
    "match",
    "read_checkpoint",
    "read_deep_compression_net",
    "read_onnx",
    "read_pt2",
    "read_tflite",
    "write_npz",
    "write_safetensors",
]

_HOMES = {
    "archives": ("write_npz", "write_safetensors"),
    "checkpoint_reader": ("Checkpoint", "Note", "read_checkpoint"),
    "refusals": ("UnfitError", "MissingTorchError"),
    "deep_compression_net": ("read_deep_compression_net",),
    "hub": ("find_model",),
    "matching": ("match",),
    "state_dict_export": ("load_state_dict",),
    "lowering.unsupported": ("UnsupportedOperatorsError",),
    "onnx_import": ("OnnxImport", "import_onnx", "read_onnx"),
    "tensors": ("Dense",),
    "tflite_import": ("TfliteImport", "import_tflite", "read_tflite"),
    "torch_import": ("import_pt2", "read_pt2"),
}


def __getattr__(name: str) -> Any:
    """Import a name on first use: the command line needs only the errors to start."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"dcformat_interop.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all public names, even before they are imported, but not those that only this module needs."""
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations", "import_module"})
