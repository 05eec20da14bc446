"""Recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import LSTM
from dcformat_interop.graph_builder import Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tflite_import.calls import TfliteCall, lowers
from dcformat_interop.tflite_import.schema import ACTIVATIONS

Array = npt.NDArray[Any]

#: The numbers of an LSTM's inputs; gates are in the order input, forget, cell, output.
_WEIGHTS, _RECURRENT, _BIASES = range(1, 5), range(5, 9), range(12, 16)
_PEEPHOLES, _PROJECTION, _NORMS = range(9, 12), range(16, 18), range(20, 24)
_STATES = range(18, 20)


@lowers("UNIDIRECTIONAL_SEQUENCE_LSTM")
def _lstm(call: TfliteCall) -> Value:
    options = call.options
    for numbers, what in ((_PEEPHOLES, "peepholes"), (_PROJECTION, "a projection"), (_NORMS, "layer norms")):
        if any(call.has(number) for number in numbers):
            raise Unsupported(f"with {what}")
    if options["cell_clip"] or options["proj_clip"] or options["diagonal_recurrent_tensors"]:
        raise Unsupported("with clipped cells or diagonal weights")
    if options["cell_activation"] != ACTIVATIONS.index("TANH"):
        raise Unsupported("with another activation than TANH")
    if call.results[0].quantization is not None:
        raise Unsupported("of integers")
    if any(call.has(number) and call.const(number, "first states").any() for number in _STATES):
        raise Unsupported("with first states")
    if call.rank != 3:
        raise ValueError(f"input: expected 3 dimensions, found {call.shape()}")
    b, batch = call.builder, call.shape()[1 if options["time_major"] else 0]
    if batch != 1:
        raise Unsupported(f"for a batch of {batch}")
    steps, features = call.shape()[0 if options["time_major"] else 1], call.shape()[2]
    weight, recurrent = (np.concatenate([call.weight(n, 2) for n in numbers]) for numbers in (_WEIGHTS, _RECURRENT))
    biases = [call.const(number, "a bias").reshape(-1) for number in _BIASES]
    name, units = call.name(_WEIGHTS[0]), len(recurrent) // 4
    made = call.emit(
        LSTM, b.reshape(call.value(), (steps, features)), weight=b.tensor(weight, f"{name}.weight"),
        recurrent_weight=b.tensor(recurrent, f"{name}.recurrent_weight"),
        bias=b.tensor(np.concatenate(biases), f"{name}.bias"),
    )  # fmt: skip
    hidden = b.slice(made, 1, 0, units)
    return b.reshape(hidden, (steps, 1, units) if options["time_major"] else (1, steps, units))
