"""Runs the network of a ``.dcf`` file on the CPU: NumPy arrays in, NumPy arrays out, no training framework."""

from dcformat_runtime.input_rows import InputError
from dcformat_runtime.plans import predict_memory
from dcformat_runtime.session import LayerTime, Session, load

__all__ = ["InputError", "LayerTime", "Session", "load", "predict_memory"]
