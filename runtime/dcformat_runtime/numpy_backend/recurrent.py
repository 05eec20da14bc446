"""Recurrent layers, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dcformat.graph import GRU, LSTM, Shape
from dcformat_runtime.numpy_backend.elementwise import sigmoid
from dcformat_runtime.weight_matrices import Floats

if TYPE_CHECKING:
    from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand


def lstm(node: LSTM, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return h and c of each step, ``(batch, steps, 2 * units)``."""
    sequence, units = operands[0].array, out_shape[1] // 2
    gates = _inputs(node, sequence, tensors)
    if node.recurrent_bias is not None:
        gates = gates + tensors[node.recurrent_bias]
    recurrent = tensors[node.recurrent_weight].T
    h, c = (_first(operands, i, len(sequence), units) for i in (1, 2))
    out = np.empty((len(sequence), *out_shape), np.float32)
    for step in _steps(node, out_shape[0]):
        i, f, g, o = np.split(gates[:, step] + h @ recurrent, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out[:, step, :units], out[:, step, units:] = h, c
    return out


def gru(node: GRU, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return h of each step, ``(batch, steps, units)``."""
    sequence, units = operands[0].array, out_shape[1]
    gates = _inputs(node, sequence, tensors)
    weight = tensors[node.recurrent_weight]
    bias = np.zeros(3 * units, np.float32) if node.recurrent_bias is None else tensors[node.recurrent_bias]
    h = _first(operands, 1, len(sequence), units)
    out = np.empty((len(sequence), *out_shape), np.float32)
    for step in _steps(node, out_shape[0]):
        x_r, x_z, x_n = np.split(gates[:, step], 3, axis=1)
        r, z = np.split(h @ weight[: 2 * units].T + bias[: 2 * units], 2, axis=1)
        r, z = sigmoid(x_r + r), sigmoid(x_z + z)
        if node.reset_after:
            n = np.tanh(x_n + r * (h @ weight[2 * units :].T + bias[2 * units :]))
        else:
            n = np.tanh(x_n + (r * h) @ weight[2 * units :].T + bias[2 * units :])
        h = (1 - z) * n + z * h
        out[:, step] = h
    return out


def _inputs(node: LSTM | GRU, sequence: Floats, tensors: Mapping[str, Floats]) -> Floats:
    """Return the contribution of the inputs of all steps to the gates."""
    gates: Floats = sequence @ tensors[node.weight].T
    return gates if node.bias is None else gates + tensors[node.bias]


def _first(operands: Sequence[NumpyOperand], i: int, batch: int, units: int) -> Floats:
    """Return a first state, zeros by default."""
    return operands[i].array if len(operands) > i else np.zeros((batch, units), np.float32)


def _steps(node: LSTM | GRU, count: int) -> range:
    return range(count - 1, -1, -1) if node.reverse else range(count)
