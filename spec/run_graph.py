"""Section 5.4 of `dcformat.md`, "Meaning": runs a graph on one sample, in plain Python.

It is not part of the decoder, whose result it takes. `run_layers.py` and `run_elements.py` have the operators.
"""

from __future__ import annotations

from collections.abc import Callable
from math import fsum
from typing import Any

import run_elements as e
import run_layers as n
from run_arrays import Array, Call, real

OPERATORS: dict[str, Callable[..., Array]] = {
    "Linear": n.linear, "Conv": n.conv, "ConvTranspose": n.conv_transpose, "MatMul": n.matmul, "LSTM": n.lstm,
    "GRU": n.gru, "MaxPool": n.pool, "AvgPool": n.pool, "Reduce": n.reduce, "Softmax": n.softmax,
    "Normalize": n.normalize,
    "ReLU": lambda call, x: e.elementwise(call, lambda v: max(v, 0.0), x),
    "Unary": lambda call, x: e.elementwise(call, e.UNARY[call.a["function"]], x),
    "Binary": lambda call, x, y: e.elementwise(call, e.BINARY[call.a["function"]], x, y),
    "Add": lambda call, *x: e.elementwise(call, lambda *v: fsum(v), *x),
    "Where": lambda call, c, x, y: e.elementwise(call, lambda k, v, w: v if k != 0 else w, c, x, y),
    "Quantize": e.quantize, "Requantize": e.requantize, "Pad": e.pad, "Concat": e.concat, "Gather": e.gather,
    "Transpose": e.transpose,
    "Slice": e.slice_of, "Tile": e.tile, "Resize": e.resize,
    "Flatten": lambda call, x: Array(call.shape, x.values), "Reshape": lambda call, x: Array(call.shape, x.values),
}  # fmt: skip


def run(graph: dict[str, Any], tensors: dict[str, Array], inputs: list[Array]) -> list[Array]:
    """Return the outputs for one sample; `graph` is the reference decoder's, and floating-point inputs are given."""
    values = list(inputs)
    for number, operator in enumerate(graph["operators"]):
        operands = [read(operand, values, tensors) for operand in operator["operands"]]
        shape = graph["shapes"][len(inputs) + number]
        values.append(OPERATORS[operator["operator"]](Call(operator, tensors, shape), *operands))
        assert values[-1].shape == shape, operator
    return [values[output["value"]] for output in graph["outputs"]]


def read(operand: Any, values: list[Array], tensors: dict[str, Array]) -> Array:
    """Section 5.2: an operand."""
    if isinstance(operand, int):
        return values[operand]
    return tensors[operand["tensor"]] if "tensor" in operand else Array([], [real(operand["constant"])])
