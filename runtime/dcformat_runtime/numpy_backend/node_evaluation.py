"""Computes one node of a graph for a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcformat import graph as ops
from dcformat.graph import Node, Shape
from dcformat.records import record
from dcformat_runtime.numpy_backend import elementwise, rearranging, recurrent, reducing, weighted, windows
from dcformat_runtime.weight_matrices import Floats


@record(eq=False)
class NumpyOperand:
    """An operand: an array, and whether its first dimension is the batch; tensors and constants have none."""

    array: Floats
    batched: bool

    @property
    def rank(self) -> int:
        """The number of dimensions without the batch."""
        return self.array.ndim - self.batched


def evaluate(node: Node, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return a node's result ``(batch, *out_shape)``; operands are not changed.

    Parameters
    ----------
    node : Node
        A node whose operands and attributes `Graph.shapes` has validated.
    operands : sequence of NumpyOperand
        At least one has a batch.
    tensors : mapping of str to ndarray
        The node's weights and biases, dense float32.
    out_shape : tuple of int
        The shape of the result without the batch.

    Raises
    ------
    InputError
        An index of `Gather` is not whole or out of range.
    """
    with np.errstate(all="ignore"):  # infinities and NaN are not errors here
        result = _OPERATORS[type(node)](node, operands, tensors, out_shape)
    return np.asarray(result, np.float32)


def _elementwise(
    compute: Callable[..., Any],
) -> Callable[[Any, Sequence[NumpyOperand], Mapping[str, Floats], Shape], Any]:
    """Give an operator operands that broadcast: dimensions of 1 between the batch and a value's own."""

    def run(node: Node, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Any:
        return compute(node, [aligned(operand, len(out_shape)) for operand in operands])

    return run


def aligned(operand: NumpyOperand, rank: int) -> Floats:
    """Return an operand with `rank` dimensions behind the batch, if it has a batch."""
    array = operand.array
    if not operand.batched or operand.rank == rank:
        return array
    return array.reshape(len(array), *(1,) * (rank - operand.rank), *array.shape[1:])


def _one(compute: Callable[..., Any]) -> Callable[[Any, Sequence[NumpyOperand], Mapping[str, Floats], Shape], Any]:
    """Give an operator its only operand, whose first dimension is the batch."""
    return lambda node, operands, tensors, out_shape: compute(node, operands[0].array)


_OPERATORS: dict[type[Node], Callable[[Any, Sequence[NumpyOperand], Mapping[str, Floats], Shape], Any]] = {
    ops.Linear: weighted.linear, ops.Conv: weighted.conv, ops.ConvTranspose: weighted.conv_transpose,
    ops.MatMul: weighted.matmul, ops.LSTM: recurrent.lstm, ops.GRU: recurrent.gru,
    ops.ReLU: _one(elementwise.relu), ops.Unary: _one(elementwise.unary), ops.Quantize: _one(elementwise.quantize),
    ops.Add: _elementwise(elementwise.add), ops.Binary: _elementwise(elementwise.binary),
    ops.Where: _elementwise(elementwise.where), ops.Requantize: _elementwise(elementwise.requantize),
    ops.Reduce: _one(reducing.reduce), ops.Softmax: _one(reducing.softmax), ops.Normalize: _one(reducing.normalize),
    ops.MaxPool: _one(windows.max_pool), ops.AvgPool: _one(windows.avg_pool),
    ops.Flatten: lambda node, operands, tensors, out_shape: operands[0].array.reshape(-1, *out_shape),
    ops.Reshape: lambda node, operands, tensors, out_shape: operands[0].array.reshape(-1, *out_shape),
    ops.Transpose: _one(rearranging.transpose), ops.Slice: _one(rearranging.slice_), ops.Pad: _one(rearranging.pad),
    ops.Tile: _one(rearranging.tile), ops.Resize: _one(rearranging.resize),
    ops.Concat: rearranging.concat, ops.Gather: rearranging.gather,
}  # fmt: skip
