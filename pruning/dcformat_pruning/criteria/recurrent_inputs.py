"""The operands of recurrent layers' weights: inputs, and the states before each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

HiddenState = Tensor | tuple[Tensor, Tensor] | None


def recurrent_inputs(
    part: nn.LSTM | nn.GRU | nn.RNN, x: Tensor | PackedSequence, state: HiddenState = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the names of all weights with their inputs, ``(rows, columns)``; `x` and `state` are those of a call.

    The layers run one after another, because a call returns only the states of the last one.
    """
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x)
    else:
        if x.ndim == 2:
            x = x[:, None]
            state = _each(state, lambda tensor: tensor[:, None])
        elif part.batch_first:
            x = x.transpose(0, 1)
        lengths = torch.full((x.shape[1],), len(x))
    ways = 2 if part.bidirectional else 1
    if state is None:
        zeros = x.new_zeros(ways * part.num_layers, x.shape[1], part.hidden_size)
        state = (zeros, zeros) if isinstance(part, nn.LSTM) else zeros
    valid = (torch.arange(len(x))[:, None] < lengths).to(x.device)
    for number in range(part.num_layers):
        own = _each(state, lambda tensor: tensor[ways * number : ways * (number + 1)].contiguous())  # noqa: B023
        layer = _single(part, number)
        y, _ = pad_packed_sequence(layer(pack_padded_sequence(x, lengths, enforce_sorted=False), own)[0])
        first = own[0] if isinstance(own, tuple) else own
        for way, suffix in enumerate(("", "_reverse")[:ways]):
            states = y[..., way * part.hidden_size : (way + 1) * part.hidden_size]
            before = states.roll(-1 if way else 1, 0)
            before[lengths.to(x.device) - 1 if way else 0, torch.arange(x.shape[1], device=x.device)] = first[way]
            yield f"weight_ih_l{number}{suffix}", x[valid]
            yield f"weight_hh_l{number}{suffix}", before[valid]
        x = y


def _each(state: Any, change: Any) -> Any:
    """Change a state, or both states of an LSTM."""
    if isinstance(state, tuple):
        return tuple(change(tensor) for tensor in state)
    return None if state is None else change(state)


def _single(part: nn.LSTM | nn.GRU | nn.RNN, number: int) -> nn.Module:
    """Return one layer of a recurrent network, with its weights."""
    width = getattr(part, f"weight_ih_l{number}").shape[1]
    options = {"bias": part.bias, "bidirectional": part.bidirectional, "device": "meta"}
    if isinstance(part, nn.LSTM):
        single: nn.Module = nn.LSTM(width, part.hidden_size, **options)
    elif isinstance(part, nn.GRU):
        single = nn.GRU(width, part.hidden_size, **options)
    else:
        single = nn.RNN(width, part.hidden_size, nonlinearity=part.nonlinearity, **options)
    for name in list(single._parameters):
        setattr(single, name, getattr(part, name.replace("_l0", f"_l{number}")))
    return single.eval()


def cell_inputs(part: nn.RNNCellBase, x: Tensor, state: HiddenState = None) -> Iterator[tuple[str, Tensor]]:
    """Yield the names of both weights of a cell with their inputs; `x` and `state` are those of a call."""
    before = state[0] if isinstance(state, tuple) else state
    yield "weight_ih", x
    yield "weight_hh", x.new_zeros(*x.shape[:-1], part.hidden_size) if before is None else before
