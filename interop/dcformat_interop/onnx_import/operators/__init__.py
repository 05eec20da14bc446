"""The lowering of each ONNX operator to operators of `dcformat.graph`; importing this package registers all of them."""

from dcformat_interop.onnx_import.operators import (
    activations,
    arithmetic,
    elementary,
    gathering,
    logic,
    matrices,
    normalizing,
    quantized,
    rearranging,
    recurrent,
    reducing,
    resizing,
    spectral,
    trigonometry,
    weighted,
    windows,
)

__all__ = [
    "activations", "arithmetic", "elementary", "gathering", "logic", "matrices", "normalizing", "quantized",
    "rearranging", "recurrent", "reducing", "resizing", "spectral", "trigonometry", "weighted", "windows",
]  # fmt: skip
