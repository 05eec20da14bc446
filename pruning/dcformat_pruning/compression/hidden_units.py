"""Hidden units and channels of any network: the layers that make and read them, the best ones, and the dead ones.

They are found in the exported graph, where activations and the attention of PyTorch's layers are plain operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcformat import graph as ops
from dcformat.graph import Graph, Node, Shape
from dcformat.graph.unit_axes import unit_axis
from dcformat.model import Model
from dcformat_pruning.masks import all_weights, largest


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """The units of a layer that only other layers read.

    Attributes
    ----------
    weight : str
        Name of the parameter ``(units, ...)`` that makes them.
    bias : str or None
        Name of their biases, if the exported layer has any.
    readers : tuple of str
        Names of the parameters ``(rows, units or several for each unit, ...)`` that read them.
    """

    weight: str
    bias: str | None
    readers: tuple[str, ...]


def unit_groups(model: Model, module: nn.Module) -> list[UnitGroup]:
    """Return the layers of an exported module whose units can be removed one by one.

    These are linear layers and convolutions (of one group) whose weights are used once. Operators on the way to the
    layers that read them may treat each element or channel by itself, and move or reduce other dimensions.
    """
    graph = model.graph
    assert graph is not None
    shapes = graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    uses = Counter(name for node in graph.nodes for name in node.tensors)
    own = {name for name, p in module.named_parameters() if name in model.tensors and p.ndim > 1}
    own = {n for n in own if uses[n] == 1 and tuple(module.get_parameter(n).shape) == model.tensors[n].shape}
    groups = []
    for value, node in enumerate(graph.nodes, len(graph.inputs)):
        if isinstance(node, ops.Linear | ops.Conv) and node.weight in own:
            axis = _channel_axis(node, shapes[value])
            readers = None if axis is None else _readers(graph, shapes, value, axis)
            if readers and set(readers) <= own:
                bias = node.bias if node.bias is not None and uses[node.bias] == 1 else None
                groups.append(UnitGroup(node.weight, bias, tuple(readers)))
    return groups


def best_units(module: nn.Module, groups: Sequence[UnitGroup], share: float) -> dict[str, Tensor]:
    """Return masks of all trainable weights that keep the best `share` of the units of each group, and at least one.

    The score of a unit is the norm of its incoming weights times the norm of its outgoing weights. The product stays
    the same when a ReLU network moves scale from one to the other.
    """
    masks = all_weights(module).masks
    for group in groups:
        weight = module.get_parameter(group.weight).detach()
        outgoing = torch.cat([_by_unit(module, name, len(weight)) for name in group.readers], 1)
        score = weight.flatten(1).norm(dim=1) * outgoing.norm(dim=1)
        dead = ~largest(score, max(1, round(share * len(weight))))
        if group.weight in masks:
            masks[group.weight][dead] = False
        for name in group.readers:
            if name in masks:
                masks[name].view(masks[name].shape[0], len(weight), -1)[:, dead] = False
    return masks


@torch.no_grad()
def zero_unread(module: nn.Module, groups: Sequence[UnitGroup]) -> None:
    """Zero the weights and biases of units that nothing reads, in place; the outputs stay the same."""
    parameters = dict(module.named_parameters())
    for group in reversed(groups):
        weight = parameters[group.weight]
        read = torch.stack([(_by_unit(module, name, len(weight)) != 0).any(1) for name in group.readers]).any(0)
        for name in (group.weight, group.bias):
            if name in parameters and parameters[name].requires_grad:
                parameters[name][~read] = 0


def _by_unit(module: nn.Module, name: str, units: int) -> Tensor:
    """Return a reader's weights as ``(units, rest)``."""
    weight = module.get_parameter(name).detach()
    return weight.view(weight.shape[0], units, -1).transpose(0, 1).flatten(1)


def _channel_axis(node: Node, shape: Shape) -> int | None:
    """Return the dimension of the units in a value that a layer reads or makes; None if it has no such units."""
    if isinstance(node, ops.Linear):
        return len(shape) - 1
    if isinstance(node, ops.Conv) and node.groups == 1:
        return len(shape) - len(node.stride) - 1
    return None


def _readers(graph: Graph, shapes: Sequence[Shape], made: int, axis: int) -> list[str] | None:
    """Return the weights that read the units of a value, or None if anything else does."""
    axes, readers = {made: axis}, list[str]()
    outputs = {output.value for output in graph.outputs}
    for value, node in enumerate(graph.nodes, len(graph.inputs)):
        if value <= made or not axes.keys() & set(node.values):
            continue
        source = node.values[0]
        if isinstance(node, ops.Linear | ops.Conv):
            if _channel_axis(node, shapes[source]) != axes[source]:
                return None
            readers.append(node.weight)
            continue
        moved = unit_axis(node, value, shapes, axes)
        if moved is None:
            return None
        axes[value] = moved
    return None if outputs & axes.keys() else readers
