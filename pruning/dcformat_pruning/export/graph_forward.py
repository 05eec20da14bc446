"""Evaluating a graph with PyTorch, operator by operator, to compare an export with its module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dcformat.graph import Graph


def graph_values(graph: Graph, tensors: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Return every value of a graph, the input first and the output last.

    Parameters
    ----------
    graph : Graph
    tensors : mapping of str to Tensor
        The weights of the graph, in the dtype of the input.
    x : Tensor
        Preprocessed input of any floating-point dtype, ``(batch, *graph.input_shape)``.

    Returns
    -------
    list of Tensor
        ``(batch, *shape)`` each, in the dtype of the input.
    """
    values = [x]
    for node in graph.nodes:
        weights = [tensors[name] for name in node.tensors]
        values.append(_OPERATORS[node.kind](node, [values[i] for i in node.values], weights))
    return values


def _linear(node: Any, v: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return functional.linear(v[0], *weights)


def _conv2d(node: Any, v: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    bias = weights[1] if len(weights) > 1 else None
    return functional.conv2d(v[0], weights[0], bias, node.stride, node.padding, node.dilation, node.groups)


def _max_pool(node: Any, v: Sequence[Tensor], _: Sequence[Tensor]) -> Tensor:
    return functional.max_pool2d(v[0], node.kernel, node.stride, node.padding, ceil_mode=node.ceil_mode)


def _avg_pool(node: Any, v: Sequence[Tensor], _: Sequence[Tensor]) -> Tensor:
    return functional.avg_pool2d(v[0], node.kernel, node.stride, node.padding, node.ceil_mode, node.count_include_pad)


def _reduce(node: Any, v: Sequence[Tensor], _: Sequence[Tensor]) -> Tensor:
    reduce = torch.mean if node.function == "mean" else torch.amax
    return reduce(v[0], [axis + 1 for axis in node.axes])


_OPERATORS: Mapping[str, Callable[[Any, Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "linear": _linear,
    "conv": _conv2d,
    "relu": lambda node, v, _: torch.relu(v[0]),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "reduce": _reduce,
    "flatten": lambda node, v, _: v[0].flatten(1),
    "add": lambda node, v, _: sum(v[1:], v[0]),
    "concat": lambda node, v, _: torch.cat(tuple(v), node.axis + 1),
    "softmax": lambda node, v, _: torch.softmax(v[0], -1 if node.axis is None else node.axis + 1),
}
