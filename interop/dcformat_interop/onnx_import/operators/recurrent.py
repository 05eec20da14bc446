"""LSTM, GRU, and plain recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import GRU, LSTM
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, lowers

Array = npt.NDArray[Any]

#: Where `dcformat.graph` has the gates that ONNX has in another order.
_ORDERS = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}

#: The sigmoid of this number is 1 in float32, and that of its negative is 0.
_CERTAIN = 1e3


class _Direction(NamedTuple):
    """The weights of one direction, with the gates in the order of `dcformat.graph`."""

    weight: Array
    recurrent_weight: Array
    bias: Array | None
    recurrent_bias: Array | None
    reverse: bool


@lowers("LSTM", "GRU", "RNN")
def _recurrent(call: OnnxCall) -> list[Value | None]:
    _refuse_variants(call)
    b, layout = call.builder, call.attr("layout", 0)
    x = b.transpose(call.value(), (1, 0, 2)) if layout else call.value()
    steps, samples, features = x.shape
    directions = _directions(call)
    units = directions[0].recurrent_weight.shape[1]
    if call.attr("hidden_size", units) != units:
        raise ValueError(f"hidden_size: expected {units}, found {call.attr('hidden_size')}")
    sequences, lasts, cells = [], [], []
    for sample in range(samples):
        sequence = b.reshape(b.slice(x, 1, sample, 1), (steps, features))
        results = [
            _emitted(call, direction, sequence, _first_states(call, number, sample))
            for number, direction in enumerate(directions)
        ]
        # Dimensions: steps, directions, samples, units.
        joined = b.concat([b.slice(result, 1, 0, units) for result in results], 1)
        sequences.append(b.reshape(joined, (steps, len(results), 1, units)))
        ends = [
            b.slice(result, 0, 0 if direction.reverse else steps - 1, 1)
            for result, direction in zip(results, directions, strict=True)
        ]
        ended = b.concat(ends, 0)
        lasts.append(b.reshape(b.slice(ended, 1, 0, units), (len(results), 1, units)))
        if call.op_type == "LSTM":
            cells.append(b.reshape(b.slice(ended, 1, units, units), (len(results), 1, units)))
    return _outputs(b, sequences, [lasts, cells] if cells else [lasts], layout)


def _outputs(
    b: GraphBuilder, sequences: Sequence[Value], ends: Sequence[Sequence[Value]], layout: int
) -> list[Value | None]:
    whole, *states = b.concat(sequences, 2), *(b.concat(parts, 1) for parts in ends)
    if layout:
        return [b.transpose(whole, (2, 0, 1, 3)), *(b.transpose(state, (1, 0, 2)) for state in states)]
    return [whole, *states]


def _refuse_variants(call: OnnxCall) -> None:
    names = [str(name).lower() for name in _names(call.attr("activations", []))]
    wanted = _ACTIVATIONS[call.op_type]
    if names and names != wanted * (len(names) // len(wanted)):
        raise Unsupported(f"with the activations {', '.join(names)}")
    if call.attr("clip") is not None:
        raise Unsupported("with a clip")
    if call.attr("input_forget", 0):
        raise Unsupported("with coupled input and forget gates")
    if call.has(7) and call.const(7, "peepholes").any():
        raise Unsupported("with peepholes")
    steps = call.shape()[1 if call.attr("layout", 0) else 0]
    if call.has(4) and (call.const(4, "lengths of sequences") != steps).any():
        raise Unsupported("with sequences of different lengths")


def _names(names: Sequence[Any]) -> list[str]:
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names]


def _directions(call: OnnxCall) -> list[_Direction]:
    weights, recurrent = call.const(1, "weights"), call.const(2, "weights")
    biases = call.const(3, "a bias") if call.has(3) else None
    direction = call.attr("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"direction: expected forward, reverse or bidirectional, found {direction!r}")
    count = 2 if direction == "bidirectional" else 1
    if weights.ndim != 3 or recurrent.ndim != 3 or not len(weights) == len(recurrent) == count:
        raise ValueError(f"weights: expected {count} directions, found shapes {weights.shape} and {recurrent.shape}")
    out = []
    for number in range(count):
        reverse = direction == "reverse" or number == 1
        both = None if biases is None else biases[number]
        out.append(_direction(call, weights[number], recurrent[number], both, reverse))
    return out


def _direction(call: OnnxCall, weight: Array, recurrent: Array, biases: Array | None, reverse: bool) -> _Direction:
    order = _ORDERS[call.op_type]

    def ordered(array: Array) -> Array:
        gates: Array = np.reshape(array, (len(order), -1, *array.shape[1:]))[list(order)].reshape(array.shape)
        return gates

    first = second = None
    if biases is not None and biases.any():
        first, second = ordered(biases[: len(biases) // 2]), ordered(biases[len(biases) // 2 :])
        if not (call.op_type == "GRU" and call.attr("linear_before_reset", 0)):
            first, second = first + second, None
    made = _Direction(ordered(weight), ordered(recurrent), first, second, reverse)
    return _as_gru(made) if call.op_type == "RNN" else made


def _as_gru(plain: _Direction) -> _Direction:
    """Return a plain layer as a GRU whose gates are constant: the reset gate 1, and the update gate 0."""
    units = len(plain.recurrent_weight)
    bias = np.zeros(units, np.float32) if plain.bias is None else plain.bias
    gates = np.full(units, _CERTAIN, np.float32), np.full(units, -_CERTAIN, np.float32)
    return _Direction(
        np.concatenate([np.zeros((2 * units, plain.weight.shape[1]), np.float32), plain.weight]),
        np.concatenate([np.zeros((2 * units, units), np.float32), plain.recurrent_weight]),
        np.concatenate([*gates, bias]),
        None,
        plain.reverse,
    )


def _first_states(call: OnnxCall, direction: int, sample: int) -> list[Value]:
    """Return the first states of a direction; none if they are all 0."""
    b, out = call.builder, []
    numbers = (5, 6) if call.op_type == "LSTM" else (5,)
    given = [number for number in numbers if call.has(number)]
    arrays = [call.item(number).array for number in given]
    if all(array is not None and not array.any() for array in arrays):
        return []
    units = call.shape(2)[2]
    for number in numbers:
        if number not in given:
            out.append(b.materialize(np.zeros(units)))
            continue
        state = call.value(number)
        if call.attr("layout", 0):
            state = b.transpose(state, (1, 0, 2))
        part = b.slice(b.slice(state, 0, direction, 1), 1, sample, 1)
        out.append(b.reshape(part, (units,)))
    return out


def _emitted(call: OnnxCall, direction: _Direction, sequence: Value, states: Sequence[Value]) -> Value:
    def stored(array: Array | None, name: str) -> str | None:
        return None if array is None else call.tensor(array, name)

    attributes: dict[str, Any] = {
        "weight": stored(direction.weight, call.tensor_name(1)),
        "recurrent_weight": stored(direction.recurrent_weight, call.tensor_name(2, "recurrent_weight")),
        "bias": stored(direction.bias, f"{call.name}.bias"),
        "recurrent_bias": stored(direction.recurrent_bias, f"{call.name}.recurrent_bias"),
        "reverse": direction.reverse,
    }
    if call.op_type == "LSTM":
        return call.emit(LSTM, sequence, *states, **attributes)
    after = call.op_type == "RNN" or bool(call.attr("linear_before_reset", 0))
    return call.emit(GRU, sequence, *states, **attributes, reset_after=after)
