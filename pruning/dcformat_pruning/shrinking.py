"""Removes units, pixels and channels that a pruned network no longer uses.

`remove_dead_units` folds constant units into the next layer and zeroes units that nothing reads; the output never
changes. `keep_best_units` zeroes all but the best units of a layer. `shrink` makes a small network without the dead
parts of a large one, which trains as fast as its size suggests; `Shrunk.expand` writes its weights back.

All of them work on a chain: an `nn.Sequential` of Linear, Conv2d (no padding, one group), ReLU, MaxPool2d and Flatten,
each of them used once, that begins with a convolution, or with a Flatten and a Linear. `working_copy` returns any other
module unchanged.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from dcformat_pruning.masks import PruningError, largest
from dcformat_pruning.tracing import TracedLayer


@dataclass(frozen=True, slots=True, eq=False)
class ChainLayer:
    """A layer with weights in a chain.

    Attributes
    ----------
    name : str
        The layer's name in the module.
    layer : nn.Linear or nn.Conv2d
    weight : Tensor
        ``(units, ...)``, the parameter without gradient tracking.
    bias : Tensor
        ``(units,)``, the parameter without gradient tracking.
    relu : bool
        Whether a ReLU follows before the next layer with weights.
    """

    name: str
    layer: TracedLayer
    weight: Tensor
    bias: Tensor
    relu: bool

    @property
    def units(self) -> int:
        """Number of output features or channels."""
        return self.weight.shape[0]

    def by_unit(self, units: int) -> Tensor:
        """View the weight as ``(rows, units of the layer before, rest)``.

        The rest is the positions after a Flatten, or the kernel of a convolution.
        """
        return self.weight.view(self.units, units, -1)


class Pick(nn.Module):
    """Flatten the input and keep some of its features: the pixels that the network still reads.

    Parameters
    ----------
    index : Tensor
        int64, the features that are kept.
    """

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 ``(n, len(index))``."""
        return x.flatten(1)[:, self.index]


def chain_layers(module: nn.Sequential) -> list[ChainLayer]:
    """Return the layers of a chain that have weights, in order.

    Raises
    ------
    TypeError
        The module does not just compute its children one after the other, a child is not supported or not in its place,
        or a layer has no bias; the message names it.
    """
    if type(module).forward is not nn.Sequential.forward:
        raise TypeError(f"{type(module).__name__}: expected the forward of nn.Sequential, found another one")
    layers: list[ChainLayer] = []
    children = list(module._modules.items())  # `named_children` gives a child that is used twice only once.
    if len({id(child) for _, child in children}) < len(children):
        raise TypeError("expected each child once, found one that is used again")
    for number, (name, child) in enumerate(children):
        if isinstance(child, nn.Flatten) and (child.start_dim, child.end_dim) != (1, -1):
            raise TypeError(f"{name}: expected a Flatten of all dimensions but the batch")
        if isinstance(child, TracedLayer):
            if type(child) not in (nn.Linear, nn.Conv2d):
                raise TypeError(f"{name}: expected Linear or Conv2d, found {type(child).__name__}, a kind of it")
            if child.bias is None:
                raise TypeError(f"{name}: expected a layer with a bias")
            if isinstance(child, nn.Conv2d) and (child.groups != 1 or child.padding != (0, 0)):
                raise TypeError(f"{name}: expected a convolution with one group and no padding")
            if isinstance(child, nn.Linear):
                _check_flat(name, [c for _, c in children[:number]])
            relu = _relu_comes_first([c for _, c in children[number + 1 :]])
            layers.append(ChainLayer(name, child, child.weight.detach(), child.bias.detach(), relu))
        elif not isinstance(child, nn.ReLU | nn.MaxPool2d | nn.Flatten | Pick):
            found = type(child).__name__
            raise TypeError(f"{name}: expected Linear, Conv2d, ReLU, MaxPool2d or Flatten, found {found}")
    return layers


def _check_flat(name: str, before: list[nn.Module | None]) -> None:
    """Raise `TypeError` unless the features of a Linear are the units, or the flat channels, of the layer before it.

    Only a Flatten or a Pick may come before the first layer; `shrink` replaces it by a Pick.
    """
    number = max((place for place, child in enumerate(before) if isinstance(child, TracedLayer)), default=-1)
    between = before[number + 1 :]
    if number < 0 and not (len(between) == 1 and isinstance(between[0], nn.Flatten | Pick)):
        raise TypeError(f"{name}: expected one Flatten before the first Linear, and nothing else")
    flat = number >= 0 and isinstance(before[number], nn.Linear)
    if not flat and not any(isinstance(child, nn.Flatten | Pick) for child in between):
        raise TypeError(f"{name}: expected a Flatten between a convolution and a Linear")


def is_chain(module: nn.Module) -> bool:
    """Return whether a module is a chain, from which dead units can be removed."""
    try:
        return isinstance(module, nn.Sequential) and bool(chain_layers(module))
    except TypeError:
        return False


def _relu_comes_first(following: list[nn.Module]) -> bool:
    """Whether a ReLU comes before the next layer with weights."""
    for child in following:
        if isinstance(child, nn.ReLU | TracedLayer):
            return isinstance(child, nn.ReLU)
    return False


def remove_dead_units(module: nn.Sequential) -> None:
    """Zero all units without a separate effect, in place; the outputs stay the same.

    A unit without incoming weights has a constant output, which is folded into the biases of the next layer. Nothing
    reads a unit without outgoing weights.
    """
    pairs = _pairs(module)
    for layer, following in pairs:
        silent = ~(layer.weight != 0).flatten(1).any(1)
        constant = torch.where(silent, layer.bias, 0.0)
        view = following.by_unit(layer.units)
        following.bias.add_(view.sum(2) @ (constant.relu() if layer.relu else constant))
        view[:, silent] = 0
        layer.bias[silent] = 0
    for layer, following in reversed(pairs):
        unread = ~(following.by_unit(layer.units) != 0).any(2).any(0)
        layer.weight[unread] = 0
        layer.bias[unread] = 0


def keep_best_units(module: nn.Sequential, units: Mapping[str, int]) -> None:
    """Zero all but the best units (or channels) of the named layers, in place.

    The score of a unit is the norm of its incoming weights times the norm of its outgoing weights. The product stays
    the same when a ReLU network moves scale from one to the other.

    Parameters
    ----------
    units : mapping of str to int
        Layer name to the number of units to keep. The last layer cannot be named: its units are the classes.

    Raises
    ------
    PruningError
        A layer is unknown, is the last one, or has fewer units than are to be kept; the message names it.
    """
    inner = {layer.name: (layer, following) for layer, following in _pairs(module)}
    for name, keep in units.items():
        if name not in inner:
            raise PruningError(f"{name}: expected one of {', '.join(inner)}, a layer that another one reads")
        layer, following = inner[name]
        if not 1 <= keep <= layer.units:
            raise PruningError(f"{name}: expected to keep 1 to {layer.units} units, found {keep}")
        view = following.by_unit(layer.units)
        score = layer.weight.flatten(1).norm(dim=1) * view.transpose(0, 1).flatten(1).norm(dim=1)
        dead = ~largest(score, keep)
        layer.weight[dead] = 0
        layer.bias[dead] = 0
        view[:, dead] = 0


def _pairs(module: nn.Sequential) -> list[tuple[ChainLayer, ChainLayer]]:
    """Return each layer with the layer that reads it."""
    return list(pairwise(chain_layers(module)))


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """A small network, and the places of its rows and columns in the network that it was made from.

    Attributes
    ----------
    module : nn.Sequential
        The small network. Its layers have the names of the full network's, and it computes the same function.
    outputs, inputs : dict of str to Tensor
        Layer name to int64 indices: the rows and columns (input features or channels) that were kept.
    """

    module: nn.Sequential
    outputs: dict[str, Tensor]
    inputs: dict[str, Tensor]

    def expand(self, full: nn.Module) -> None:
        """Write the weights of the small network into `full`, and zeros everywhere else."""
        assert isinstance(full, nn.Sequential)
        small = {layer.name: layer for layer in chain_layers(self.module)}
        for layer in chain_layers(full):
            rows, columns = self.outputs[layer.name], self.inputs[layer.name]
            layer.weight.zero_()
            layer.weight[rows[:, None], columns[None, :]] = small[layer.name].weight
            layer.bias.zero_()
            layer.bias[rows] = small[layer.name].bias


def shrink(full: nn.Sequential) -> Shrunk:
    """Make a small network without the dead parts of `full`, which is not changed.

    Raises
    ------
    TypeError
        `full` is not a chain; see `chain_layers`.
    """
    source = copy.deepcopy(full)
    remove_dead_units(source)
    layers = chain_layers(source)
    outputs, inputs = {}, {}
    columns = _alive_inputs(layers[0])
    for number, layer in enumerate(layers):
        inputs[layer.name] = columns
        last = number == len(layers) - 1
        outputs[layer.name] = torch.arange(layer.units) if last else _alive_units(layer)
        outputs[layer.name] = outputs[layer.name].to(layer.weight.device)
        if not last:
            columns = _columns_of(layers[number + 1], layer, outputs[layer.name])
    slices = {layer.name: _slice(layer, outputs[layer.name], inputs[layer.name]) for layer in layers}
    children = {name: slices.get(name, child) for name, child in source.named_children()}
    first = layers[0]
    if isinstance(first.layer, nn.Linear):
        flatten, before = next(source.named_children())
        index = inputs[first.name]
        children[flatten] = Pick(before.index[index] if isinstance(before, Pick) else index)
    return Shrunk(nn.Sequential(OrderedDict(children)), outputs, inputs)


@dataclass(frozen=True, slots=True, eq=False)
class UnshrunkNetwork:
    """A network that is not a chain, and trains unchanged.

    Attributes
    ----------
    module : nn.Module
    """

    module: nn.Module

    def expand(self, full: nn.Module) -> None:
        """Do nothing, because the weights were trained in place."""


def working_copy(module: nn.Module, *, in_place: bool) -> Shrunk | UnshrunkNetwork:
    """Return the network to train for `module`: a copy without the dead parts if it is a chain, unless `in_place`."""
    if not in_place and isinstance(module, nn.Sequential) and is_chain(module):
        return shrink(module)
    return UnshrunkNetwork(module)


def _alive_units(layer: ChainLayer) -> Tensor:
    """Return the indices of the units that read something; at least one, because a layer needs a unit."""
    return _true_indices((layer.weight != 0).flatten(1).any(1))


def _alive_inputs(layer: ChainLayer) -> Tensor:
    """Return the indices of the input features or channels that the first layer reads."""
    if isinstance(layer.layer, nn.Conv2d):
        return torch.arange(layer.layer.in_channels, device=layer.weight.device)
    return _true_indices((layer.weight != 0).any(0))


def _true_indices(alive: Tensor) -> Tensor:
    """Return the indices of True; the first index where there is none."""
    if not bool(alive.any()):
        alive[0] = True
    return torch.nonzero(alive).flatten()


def _columns_of(following: ChainLayer, layer: ChainLayer, alive: Tensor) -> Tensor:
    """Return the columns of `following` that read the alive units of `layer`: several per unit after a Flatten."""
    if isinstance(following.layer, nn.Conv2d):
        return alive
    each = following.layer.in_features // layer.units
    return (alive[:, None] * each + torch.arange(each, device=alive.device)).flatten()


def _slice(layer: ChainLayer, rows: Tensor, columns: Tensor) -> TracedLayer:
    """Return a new layer with some of the rows and columns of another."""
    small: TracedLayer
    if isinstance(layer.layer, nn.Conv2d):
        height, width = layer.weight.shape[2:]
        stride, dilation = layer.layer.stride, layer.layer.dilation
        small = nn.Conv2d(
            len(columns),
            len(rows),
            (height, width),
            (stride[0], stride[1]),
            dilation=(dilation[0], dilation[1]),
        )
    else:
        small = nn.Linear(len(columns), len(rows))
    small = small.to(layer.weight.device)
    with torch.no_grad():
        small.weight.copy_(layer.weight[rows][:, columns])
        small.bias.copy_(layer.bias[rows])  # type: ignore[union-attr]
    return small
