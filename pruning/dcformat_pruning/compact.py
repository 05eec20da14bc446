"""Dead units, pixels and channels: removing what a pruned network no longer uses.

`tidy` folds what is constant and zeroes what nothing reads, which never changes the output. `Compact` is the same
network without its dead parts, for training at the speed of the small network; `expand` writes its weights back.
Both work on a chain: an `nn.Sequential` of Linear, Conv2d (no padding, one group), ReLU, MaxPool2d and Flatten.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d


class Pick(nn.Module):
    """Flatten and keep some of the features: the input pixels that are alive."""

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 ``(n, len(index))``."""
        return x.flatten(1)[:, self.index]


@torch.no_grad()
def tidy(module: nn.Sequential) -> None:
    """Fold constant units into the next bias and zero what is never read, in place; outputs stay the same.

    A unit without incoming weights puts out a constant; a unit without outgoing weights is not read at all.
    """
    layers = chain(module)
    for (_, layer), (_, following) in zip(layers[:-1], layers[1:], strict=True):
        silent = ~_rows(layer.weight).any(1)
        constant = torch.where(silent, layer.bias, torch.zeros_like(layer.bias))
        if _relu_after(module, layer):
            constant = constant.relu()
        view = _by_unit(following.weight, layer.weight.shape[0])
        following.bias += view.sum(3).sum(2) @ constant
        view[:, silent] = 0
        layer.bias[silent] = 0
    for (_, layer), (_, following) in reversed(list(zip(layers[:-1], layers[1:], strict=True))):
        unread = ~(_by_unit(following.weight, layer.weight.shape[0]) != 0).any(3).any(2).any(0)
        layer.weight[unread] = 0
        layer.bias[unread] = 0


def chain(module: nn.Sequential) -> list[tuple[str, Layer]]:
    """Return the layers with weights, in order.

    Raises
    ------
    TypeError
        Naming the first child that is not supported, or a layer without bias.
    """
    layers: list[tuple[str, Layer]] = []
    for name, child in module.named_children():
        if isinstance(child, nn.Linear | nn.Conv2d):
            if child.bias is None:
                raise TypeError(f"{name}: expected a layer with a bias")
            if isinstance(child, nn.Conv2d) and (child.groups != 1 or child.padding != (0, 0)):
                raise TypeError(f"{name}: expected a convolution with one group and no padding")
            layers.append((name, child))
        elif not isinstance(child, nn.ReLU | nn.MaxPool2d | nn.Flatten | Pick):
            raise TypeError(f"{name}: expected Linear, Conv2d, ReLU, MaxPool2d or Flatten, found {type(child).__name__}")
    return layers


@dataclass(frozen=True, slots=True, eq=False)
class Compact:
    """A network without the dead parts of another, and where its parts are in that one.

    Attributes
    ----------
    module : nn.Sequential
        The small network, with the names of the full one; computes the same function.
    outputs, inputs : dict of str to Tensor
        For each layer int64 indices of its alive rows and columns (for the weight as a matrix of rows x units x kernel).
    """

    module: nn.Sequential
    outputs: dict[str, Tensor]
    inputs: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, full: nn.Sequential) -> Compact:
        """Make the small network from a tidied copy of `full`; `full` itself stays as it is."""
        source = copy.deepcopy(full)
        tidy(source)
        layers = chain(source)
        outputs, inputs = {}, {}
        columns = _alive_inputs(layers[0][1])
        for number, (name, layer) in enumerate(layers):
            inputs[name] = columns
            last = number == len(layers) - 1
            alive = torch.ones_like(layer.bias, dtype=torch.bool) if last else _rows(layer.weight).any(1)
            if not bool(alive.any()):
                alive[0] = True
            outputs[name] = torch.nonzero(alive).flatten()
            if not last:
                columns = _columns_of(layers[number + 1][1], layer, outputs[name])
        children = {name: _slice(child, name, outputs, inputs) for name, child in source.named_children()}
        name, first = layers[0]
        if isinstance(first, nn.Linear):
            flatten, before = next(source.named_children())
            index = inputs[name]
            children[flatten] = Pick(before.index[index] if isinstance(before, Pick) else index)
        return cls(nn.Sequential(OrderedDict(children)), outputs, inputs)

    @torch.no_grad()
    def expand(self, full: nn.Sequential) -> None:
        """Write the small network's weights into `full`, zero elsewhere."""
        for name, layer in chain(full):
            small = self.module.get_submodule(name)
            rows, columns = self.outputs[name], self.inputs[name]
            matrix = torch.zeros_like(layer.weight).flatten(2) if layer.weight.ndim > 2 else torch.zeros_like(layer.weight)
            values = small.weight.flatten(2) if layer.weight.ndim > 2 else small.weight
            matrix[rows[:, None], columns[None, :]] = values
            layer.weight.copy_(matrix.view_as(layer.weight))
            layer.bias.zero_()
            layer.bias[rows] = small.bias


def _rows(weight: Tensor) -> Tensor:
    return weight.flatten(1) != 0


def _by_unit(weight: Tensor, units: int) -> Tensor:
    """View a weight as (rows, units of the layer before, positions, kernel)."""
    if weight.ndim == 4:
        return weight.view(weight.shape[0], units, 1, -1)
    return weight.view(weight.shape[0], units, -1, 1)


def _alive_inputs(layer: Layer) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return torch.arange(layer.in_channels, device=layer.weight.device)
    alive = (layer.weight != 0).any(0)
    if not bool(alive.any()):
        alive[0] = True
    return torch.nonzero(alive).flatten()


def _columns_of(following: Layer, layer: Layer, alive: Tensor) -> Tensor:
    """Columns of `following` that read the alive units of `layer` (several each after a Flatten)."""
    if isinstance(following, nn.Conv2d):
        return alive
    each = following.in_features // layer.weight.shape[0]
    return (alive[:, None] * each + torch.arange(each, device=alive.device)).flatten()


def _relu_after(module: nn.Sequential, layer: Layer) -> bool:
    children = list(module.children())
    for child in children[children.index(layer) + 1 :]:
        if isinstance(child, nn.ReLU):
            return True
        if isinstance(child, nn.Linear | nn.Conv2d):
            return False
    return False


def _slice(child: nn.Module, name: str, outputs: dict[str, Tensor], inputs: dict[str, Tensor]) -> nn.Module:
    if not isinstance(child, nn.Linear | nn.Conv2d):
        return child
    rows, columns = outputs[name], inputs[name]
    small: Layer
    if isinstance(child, nn.Conv2d):
        size = (int(child.kernel_size[0]), int(child.kernel_size[1]))
        small = nn.Conv2d(len(columns), len(rows), size, child.stride, dilation=child.dilation)
    else:
        small = nn.Linear(len(columns), len(rows))
    small = small.to(child.weight.device)
    small.weight.copy_(child.weight[rows][:, columns])
    small.bias.copy_(child.bias[rows])
    return small
