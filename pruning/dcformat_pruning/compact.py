"""Dead units, pixels and channels: removing what a pruned network no longer uses.

`tidy` folds what is constant and zeroes what nothing reads, which never changes the output. `narrow` removes whole
units. `Compact` is the same network without its dead parts, for training at the speed of the small network; `expand`
writes its weights back. All work on a chain: an `nn.Sequential` of Linear, Conv2d (no padding, one group), ReLU,
MaxPool2d and Flatten.
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

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A layer of a chain: its name in the module, weight ``(units, ...)`` and bias, and whether a ReLU follows."""

    name: str
    layer: Layer
    weight: Tensor
    bias: Tensor
    relu: bool

    @property
    def units(self) -> int:
        """Output features or channels."""
        return self.weight.shape[0]

    def by_unit(self, units: int) -> Tensor:
        """View the weight as (rows, units of the layer before, the rest): positions after a Flatten, or the kernel."""
        return self.weight.view(self.units, units, -1)


class Pick(nn.Module):
    """Flatten and keep some of the features: the input pixels that are alive."""

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 ``(n, len(index))``."""
        return x.flatten(1)[:, self.index]


def chain(module: nn.Sequential) -> list[Link]:
    """Return the layers with weights, in order; their tensors are the parameters without gradient tracking.

    Raises
    ------
    TypeError
        Naming the first child that is not supported, or a layer without bias.
    """
    links: list[Link] = []
    children = list(module.named_children())
    for number, (name, child) in enumerate(children):
        if isinstance(child, Layer):
            if child.bias is None:
                raise TypeError(f"{name}: expected a layer with a bias")
            if isinstance(child, nn.Conv2d) and (child.groups != 1 or child.padding != (0, 0)):
                raise TypeError(f"{name}: expected a convolution with one group and no padding")
            relu = _relu_first([c for _, c in children[number + 1 :]])
            links.append(Link(name, child, child.weight.detach(), child.bias.detach(), relu))
        elif not isinstance(child, nn.ReLU | nn.MaxPool2d | nn.Flatten | Pick):
            found = type(child).__name__
            raise TypeError(f"{name}: expected Linear, Conv2d, ReLU, MaxPool2d or Flatten, found {found}")
    return links


def _relu_first(following: list[nn.Module]) -> bool:
    """Whether a ReLU comes before the next layer with weights."""
    for child in following:
        if isinstance(child, nn.ReLU | Layer):
            return isinstance(child, nn.ReLU)
    return False


def tidy(module: nn.Sequential) -> None:
    """Fold constant units into the next bias and zero what is never read, in place; outputs stay the same.

    A unit without incoming weights puts out a constant; a unit without outgoing weights is not read at all.
    """
    pairs = _pairs(module)
    for link, following in pairs:
        silent = ~(link.weight != 0).flatten(1).any(1)
        constant = torch.where(silent, link.bias, 0.0)
        view = following.by_unit(link.units)
        following.bias.add_(view.sum(2) @ (constant.relu() if link.relu else constant))
        view[:, silent] = 0
        link.bias[silent] = 0
    for link, following in reversed(pairs):
        unread = ~(following.by_unit(link.units) != 0).any(2).any(0)
        link.weight[unread] = 0
        link.bias[unread] = 0


def narrow(module: nn.Sequential, units: Mapping[str, int]) -> None:
    """Zero all but the best units (or channels) of the named layers, in place.

    A unit's score is the norm of what it reads times the norm of what reads it, which does not change when a ReLU
    network trades scale between the two.

    Parameters
    ----------
    units : mapping of str to int
        Layer name to the number of units that stay; the last layer's are the classes and all stay.

    Raises
    ------
    PruningError
        Naming the layer: unknown, the last one, or fewer units than are to stay.
    """
    inner = {link.name: (link, following) for link, following in _pairs(module)}
    for name, keep in units.items():
        if name not in inner:
            raise PruningError(f"{name}: expected one of {', '.join(inner)}, a layer that another one reads")
        link, following = inner[name]
        if not 1 <= keep <= link.units:
            raise PruningError(f"{name}: expected to keep 1 to {link.units} units, found {keep}")
        view = following.by_unit(link.units)
        score = link.weight.flatten(1).norm(dim=1) * view.transpose(0, 1).flatten(1).norm(dim=1)
        dead = ~largest(score, keep)
        link.weight[dead] = 0
        link.bias[dead] = 0
        view[:, dead] = 0


def _pairs(module: nn.Sequential) -> list[tuple[Link, Link]]:
    """Return each layer with the one that reads it."""
    links = chain(module)
    return list(pairwise(links))


@dataclass(frozen=True, slots=True, eq=False)
class Compact:
    """A network without the dead parts of another, and where its parts are in that one.

    Attributes
    ----------
    module : nn.Sequential
        The small network, with the names of the full one; computes the same function.
    outputs, inputs : dict of str to Tensor
        For each layer int64 indices of its alive rows and columns (input features or channels).
    """

    module: nn.Sequential
    outputs: dict[str, Tensor]
    inputs: dict[str, Tensor]

    @classmethod
    def of(cls, full: nn.Sequential) -> Compact:
        """Make the small network from a tidied copy of `full`; `full` itself stays as it is."""
        source = copy.deepcopy(full)
        tidy(source)
        links = chain(source)
        outputs, inputs = {}, {}
        columns = _alive_inputs(links[0])
        for number, link in enumerate(links):
            inputs[link.name] = columns
            last = number == len(links) - 1
            outputs[link.name] = torch.arange(link.units) if last else _alive_units(link)
            outputs[link.name] = outputs[link.name].to(link.weight.device)
            if not last:
                columns = _columns_of(links[number + 1], link, outputs[link.name])
        slices = {link.name: _slice(link, outputs[link.name], inputs[link.name]) for link in links}
        children = {name: slices.get(name, child) for name, child in source.named_children()}
        first = links[0]
        if isinstance(first.layer, nn.Linear):
            flatten, before = next(source.named_children())
            index = inputs[first.name]
            children[flatten] = Pick(before.index[index] if isinstance(before, Pick) else index)
        return cls(nn.Sequential(OrderedDict(children)), outputs, inputs)

    def expand(self, full: nn.Sequential) -> None:
        """Write the small network's weights into `full`, zero elsewhere."""
        small = {link.name: link for link in chain(self.module)}
        for link in chain(full):
            rows, columns = self.outputs[link.name], self.inputs[link.name]
            link.weight.zero_()
            link.weight[rows[:, None], columns[None, :]] = small[link.name].weight
            link.bias.zero_()
            link.bias[rows] = small[link.name].bias


def _alive_units(link: Link) -> Tensor:
    """Return indices of units that read something; one at least, for a layer needs a unit."""
    alive = (link.weight != 0).flatten(1).any(1)
    if not bool(alive.any()):
        alive[0] = True
    return torch.nonzero(alive).flatten()


def _alive_inputs(link: Link) -> Tensor:
    if isinstance(link.layer, nn.Conv2d):
        return torch.arange(link.layer.in_channels, device=link.weight.device)
    alive = (link.weight != 0).any(0)
    if not bool(alive.any()):
        alive[0] = True
    return torch.nonzero(alive).flatten()


def _columns_of(following: Link, link: Link, alive: Tensor) -> Tensor:
    """Columns of `following` that read the alive units of `link` (several each after a Flatten)."""
    if isinstance(following.layer, nn.Conv2d):
        return alive
    each = following.layer.in_features // link.units
    return (alive[:, None] * each + torch.arange(each, device=alive.device)).flatten()


def _slice(link: Link, rows: Tensor, columns: Tensor) -> Layer:
    small: Layer
    if isinstance(link.layer, nn.Conv2d):
        height, width = link.weight.shape[2:]
        step, spread = link.layer.stride, link.layer.dilation
        small = nn.Conv2d(len(columns), len(rows), (height, width), (step[0], step[1]), dilation=(spread[0], spread[1]))
    else:
        small = nn.Linear(len(columns), len(rows))
    small = small.to(link.weight.device)
    with torch.no_grad():
        small.weight.copy_(link.weight[rows][:, columns])
        small.bias.copy_(link.bias[rows])  # type: ignore[union-attr]
    return small
