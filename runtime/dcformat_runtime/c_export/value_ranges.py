"""Runs a network on calibration inputs, to find the range of every value."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from dcformat.graph import Graph, Shape
from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand, evaluate
from dcformat_runtime.weight_matrices import Floats

#: Maximum number of floats of the largest value that are computed at a time.
_PIECE = 1 << 22


class Calibration(NamedTuple):
    """The least and the greatest element of every value, and the outputs ``(inputs, *shape)``."""

    ranges: list[tuple[float, float]]
    outputs: Floats


def calibrate(graph: Graph, shapes: list[Shape], tensors: Mapping[str, Floats], inputs: Floats) -> Calibration:
    """Run all nodes on `inputs`, float32 ``(inputs, *shape)``; `tensors` are dense float32."""
    step = max(1, _PIECE // max(map(prod, shapes)))
    low, high = [0.0] * len(shapes), [0.0] * len(shapes)
    outputs = []
    for start in range(0, len(inputs), step):
        values = [inputs[start : start + step]]
        for number, node in enumerate(graph.nodes):
            operands = [_operand(x, values, tensors) for x in node.inputs]
            values.append(evaluate(node, operands, tensors, shapes[number + 1]))
        for number, value in enumerate(values):
            low[number] = min(low[number], float(value.min()))
            high[number] = max(high[number], float(value.max()))
        outputs.append(values[graph.outputs[0].value])
    return Calibration(list(zip(low, high, strict=True)), np.concatenate(outputs))


def _operand(operand: int | str | float, values: list[Floats], tensors: Mapping[str, Floats]) -> NumpyOperand:
    if isinstance(operand, int):
        return NumpyOperand(values[operand], True)
    if isinstance(operand, str):
        return NumpyOperand(tensors[operand], False)
    return NumpyOperand(np.array(operand, np.float32), False)
