"""Lowerings of operators; importing this package registers all of them."""

from dcformat_interop.tflite_import.operators import (
    activations,
    arithmetic,
    quantizing,
    rearranging,
    recurrent,
    reducing,
    resizing,
    shapes,
    slicing,
    weighted,
    windows,
)

__all__ = [
    "activations",
    "arithmetic",
    "quantizing",
    "rearranging",
    "recurrent",
    "reducing",
    "resizing",
    "shapes",
    "slicing",
    "weighted",
    "windows",
]
