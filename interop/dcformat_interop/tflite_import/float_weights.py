"""Makes copies of files with integer weights whose layers LiteRT computes as the file says: in float32.

Where a layer has weights of int8 and an input of float32, LiteRT rounds the input to int8 too, by a scale of its own
for each call. An import does not do that, and is compared with a copy that has the same weights as float32.
"""

from __future__ import annotations

import struct

import numpy as np

from dcformat_interop.tensors import Budget
from dcformat_interop.tflite_import.constant_tensors import constant
from dcformat_interop.tflite_import.loading import TfliteFile, TfliteTensor

#: The inputs that are weights, for each operator that rounds its other input.
_WEIGHTS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"), (1,)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": tuple(range(1, 9)),
}

_ALIGNMENT = 16


def with_float_weights(file: TfliteFile, data: bytes, budget: Budget) -> bytes:
    """Return the bytes of a file in which no layer mixes integer weights with other numbers."""
    out = bytearray(data)
    for info in _mixed_weights(file):
        values = constant(file.path, info, budget)
        assert values is not None
        content = np.ascontiguousarray(values, "<f4").tobytes()
        out += bytes(-(len(out) + 4) % _ALIGNMENT)
        place = len(out)
        out += struct.pack("<I", len(content)) + content
        if info.data_field is not None and info.dtype_field is not None:
            struct.pack_into("<I", out, info.data_field, place - info.data_field)
            struct.pack_into("<b", out, info.dtype_field, 0)
    return bytes(out)


def _mixed_weights(file: TfliteFile) -> list[TfliteTensor]:
    """Return the integer weights of layers with results of float32."""
    found: dict[int, TfliteTensor] = {}
    for operator in file.operators:
        if not operator.outputs or file.tensors[operator.outputs[0]].dtype != "float32":
            continue
        for place in _WEIGHTS.get(operator.op_type, ()):
            number = operator.inputs[place] if place < len(operator.inputs) else -1
            info = file.tensors[number]
            if number >= 0 and info.quantization is not None:
                found[number] = info
    return list(found.values())
