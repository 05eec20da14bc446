"""LSTM and GRU. ONNX returns the hidden state of every step, but the cell state of the last one only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import GRU, LSTM, Shape
from dcformat_interop.onnx_export.graph_writer import GraphWriter, OnnxValue, has_batch

#: Where ONNX has the gates of `dcformat.graph`.
_ORDERS: dict[type[LSTM | GRU], tuple[int, ...]] = {LSTM: (0, 3, 1, 2), GRU: (1, 0, 2)}


def lstm(writer: GraphWriter, node: LSTM, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write an LSTM of which only the last cell state is read; the others are those of the last step too."""
    layer = _Layer(writer, node, operands, out[1] // 2)
    hidden, _, cell = layer.run(layer.sequence, layer.states)
    cells = writer.emit("Tile", cell, writer.integers([out[0], 1, 1]))
    return layer.result(writer.emit("Concat", hidden, cells, axis=2), out)


def stepwise_lstm(writer: GraphWriter, node: LSTM, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write an LSTM as one for each step, which gives all cell states."""
    layer = _Layer(writer, node, operands, out[1] // 2)
    states, steps = layer.states, dict[int, str]()
    for step in reversed(range(out[0])) if node.reverse else range(out[0]):
        bounds = (writer.integers([number]) for number in (step, step + 1, 0))
        _, *states = layer.run(writer.emit("Slice", layer.sequence, *bounds), states)
        steps[step] = writer.emit("Concat", *states, axis=2)
    return layer.result(writer.emit("Concat", *(steps[step] for step in range(out[0])), axis=0), out)


def gru(writer: GraphWriter, node: GRU, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write a GRU."""
    layer = _Layer(writer, node, operands, out[1])
    return layer.result(layer.run(layer.sequence, layer.states)[0], out)


class _Layer:
    """The operands and weights of a recurrent layer as ONNX takes them, with the steps before the batch."""

    def __init__(self, writer: GraphWriter, node: LSTM | GRU, operands: Sequence[OnnxValue], units: int) -> None:
        self._writer, self._node, self._units = writer, node, units
        self._batched = has_batch(operands)
        if self._batched:
            operands = [writer.expanded(operand) for operand in operands]
        sequence, *states = operands
        steps, features = sequence.shape
        if self._batched:
            self.sequence = writer.emit("Transpose", sequence.name, perm=[1, 0, 2])
        else:
            self.sequence = writer.reshaped(sequence.name, (steps, 1, features), False)
        self.states = [writer.emit("Unsqueeze", self._with_batch(s.name), writer.integers([0])) for s in states]
        self._weights = self._stored()

    def run(self, sequence: str, states: Sequence[str]) -> list[str]:
        """Write the layer for a sequence.

        Return the hidden states ``(steps, batch, units)``, and the last hidden state and cell state
        ``(1, batch, units)``; a GRU has no cell state.
        """
        node, more = self._node, {}
        if isinstance(node, GRU):
            more["linear_before_reset"] = int(node.reset_after)
        inputs = [sequence, *self._weights, *(["", *states] if states else [])]
        whole, *last = self._writer.emit(
            type(node).__name__, *inputs, outputs=1 + node.states, hidden_size=self._units,
            direction="reverse" if node.reverse else "forward", **more,
        )  # fmt: skip
        return [self._writer.emit("Squeeze", whole, self._writer.integers([1])), *last]

    def result(self, name: str, out: Shape) -> str:
        """Return ``(steps, batch, ...)`` as ``(batch, steps, ...)``, or without the batch."""
        if not self._batched:
            return self._writer.reshaped(name, out, False)
        return str(self._writer.emit("Transpose", name, perm=[1, 0, 2]))

    def _with_batch(self, name: str) -> str:
        return name if self._batched else self._writer.reshaped(name, (1, self._units), False)

    def _stored(self) -> list[str]:
        """Return the names of the weights with their gates in the order of ONNX, and of the biases."""
        node = self._node
        names = [
            self._writer.store(self._ordered(self._writer.array(name))[None], name)
            for name in (node.weight, node.recurrent_weight)
        ]
        if node.bias is None and node.recurrent_bias is None:
            return [*names, ""]
        none = np.zeros(node.gates * self._units, np.float32)
        biases = [
            none if name is None else self._ordered(self._writer.array(name))
            for name in (node.bias, node.recurrent_bias)
        ]
        name = node.bias or node.recurrent_bias or ""
        return [*names, self._writer.store(np.concatenate(biases)[None], name)]

    def _ordered(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        order = _ORDERS[type(self._node)]
        gates: Any = array.reshape(len(order), -1, *array.shape[1:])[list(order)]
        return np.ascontiguousarray(gates.reshape(array.shape))
