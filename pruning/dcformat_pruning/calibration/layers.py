"""The compressible tensors of a graph: weights as matrices with the inputs that meet them, and all others."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional

from dcformat.graph import GRU, LSTM, Conv, Gather, Graph, Linear, MatMul, Node, Shape

#: Maximum number of columns of a Hessian. Wider matrices are split, because a Hessian of 8,192 columns takes minutes to
#: invert, and more inputs to estimate than anybody has.
_MOST_COLUMNS = 1024


class Use(NamedTuple):
    """A node that reads a tensor as a matrix.

    Attributes
    ----------
    number : int
        The node's number.
    kind : {'product', 'lookup', 'recurrent'}
        The matrix meets each vector of inputs; inputs choose rows; or a recurrent layer makes its products.
    value : int
        The value that meets the matrix.
    groups : int
        Number of blocks of rows of the matrix, each of which meets its own share of the inputs.
    """

    number: int
    kind: str
    value: int
    groups: int = 1


class UsedTensor(NamedTuple):
    """A tensor that a graph reads, and its uses; without uses, its elements are treated one by one.

    Attributes
    ----------
    name : str
    shape : tuple of int
    uses : tuple of Use
    transposed : bool
        Whether the matrix is the transpose of the tensor.
    parts : int
        Number of blocks into which the columns of a wide matrix are split. The blocks of a group of rows are stacked,
        so that each is a separate group.
    """

    name: str
    shape: Shape
    uses: tuple[Use, ...] = ()
    transposed: bool = False
    parts: int = 1

    @property
    def groups(self) -> int:
        """The number of blocks of rows that meet different inputs."""
        return self.uses[0].groups if self.uses else 1

    @property
    def only_product(self) -> Use | None:
        """The only use, if the tensor meets inputs in one place."""
        return self.uses[0] if len(self.uses) == 1 and self.uses[0].kind == "product" else None

    def matrix(self, tensor: Tensor) -> Tensor:
        """Return the tensor as a matrix ``(rows * parts, columns / parts)``; without uses, as a column."""
        if not self.uses:
            return tensor.reshape(-1, 1)
        whole = tensor.T if self.transposed else tensor.reshape(len(tensor), -1)
        return self._split(whole.reshape(self.groups, -1, whole.shape[1])).flatten(0, 1)

    def tensor(self, matrix: Tensor) -> Tensor:
        """Return a matrix in the shape of the tensor."""
        if self.parts > 1:
            blocks = matrix.reshape(self.groups, self.parts, -1, matrix.shape[1])
            matrix = blocks.transpose(1, 2).reshape(-1, self.parts * matrix.shape[1])
        return (matrix.T if self.transposed else matrix).reshape(self.shape)

    def vectors(self, node: Node, x: Tensor) -> Tensor:
        """Return the inputs of a product that meet each group's rows, ``(groups * parts, count, columns / parts)``."""
        return self._split(_vectors(node, x, self.shape[2:]))

    def results(self, node: Node, y: Tensor) -> Tensor:
        """Return the results of each group's rows, ``(groups * parts, count, rows)``, in the order of `vectors`."""
        return _results(node, y, self.groups).repeat_interleave(self.parts, 0)

    def _split(self, whole: Tensor) -> Tensor:
        """Return ``(groups, count, columns)`` with each part of the columns as a separate group."""
        if self.parts == 1:
            return whole
        groups, count, columns = whole.shape
        blocks = whole.reshape(groups, count, self.parts, columns // self.parts).transpose(1, 2)
        return blocks.reshape(groups * self.parts, count, columns // self.parts)


def find_layers(graph: Graph, shapes: dict[str, Shape]) -> list[UsedTensor]:
    """Return the tensors that nodes read, in the order in which nodes read them first."""
    found: dict[str, list[tuple[Use, bool] | None]] = {}
    for number, node in enumerate(graph.nodes):
        for name in node.tensors:
            found.setdefault(name, []).append(_use(number, node, name, shapes[name]))
    return [_layer(name, shapes[name], entries) for name, entries in found.items()]


def _layer(name: str, shape: Shape, entries: Sequence[tuple[Use, bool] | None]) -> UsedTensor:
    uses = [entry for entry in entries if entry is not None]
    alike = len(uses) == len(entries) and len({(transposed, use.groups) for use, transposed in uses}) == 1
    if not alike:
        return UsedTensor(name, shape)
    layer = UsedTensor(name, shape, tuple(use for use, _ in uses), uses[0][1])
    return (
        layer._replace(parts=_parts(shape[0] if layer.transposed else prod(shape[1:]))) if layer.only_product else layer
    )


def _parts(columns: int) -> int:
    """Return the least number of equal blocks of columns that are not too wide."""
    return next(parts for parts in range(1, columns + 1) if columns % parts == 0 and columns <= parts * _MOST_COLUMNS)


def _use(number: int, node: Node, name: str, shape: Shape) -> tuple[Use, bool] | None:
    """Return how a node reads a tensor, and whether the matrix is its transpose; None if not as a matrix."""
    match node:
        case Linear() if name == node.weight:
            return Use(number, "product", node.values[0]), False
        case Conv() if name == node.weight:
            return Use(number, "product", node.values[0], node.groups), False
        case MatMul() if len(shape) == 2 and len(node.values) == 1:
            return Use(number, "product", node.values[0]), node.inputs[1] == name
        case LSTM() | GRU() if name in (node.weight, node.recurrent_weight):
            return Use(number, "recurrent", node.values[0]), False
        case Gather() if node.axis == 0 and node.inputs[0] == name and len(shape) == 2:
            return Use(number, "lookup", node.values[0]), False
    return None


def _vectors(node: Node, x: Tensor, kernel: Shape) -> Tensor:
    """Return the inputs that meet each group's rows, ``(groups, count, columns)``."""
    match node:
        case Conv():
            return _windows(node, x, kernel)
        case MatMul() if isinstance(node.inputs[0], str):
            x = x.transpose(-1, -2)
    return x.reshape(1, -1, x.shape[-1])


def _windows(node: Conv, x: Tensor, kernel: Shape) -> Tensor:
    spatial = len(kernel)
    x = x.reshape(-1, *x.shape[-spatial - 1 :])
    pads = [amount for pair in reversed(list(zip(node.padding, node.padding_end, strict=True))) for amount in pair]
    x = functional.pad(x, pads)
    stride, dilation = node.stride, node.dilation
    if spatial == 1:
        x, kernel, stride, dilation = x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    found = functional.unfold(x, _pair(kernel), dilation=_pair(dilation), stride=_pair(stride))
    columns = found.shape[1] // node.groups
    return found.reshape(-1, node.groups, columns, found.shape[2]).permute(1, 0, 3, 2).reshape(node.groups, -1, columns)


def _pair(sizes: Shape) -> Any:
    return tuple(sizes)


def _results(node: Node, y: Tensor, groups: int) -> Tensor:
    """Return the results of each group's rows, ``(groups, count, rows)``, in the order of `_vectors`."""
    match node:
        case Conv():
            spatial = len(node.stride)
            y = y.reshape(-1, groups, y.shape[-spatial - 1] // groups, prod(y.shape[-spatial:]))
            return y.permute(1, 0, 3, 2).reshape(groups, -1, y.shape[2])
        case MatMul() if isinstance(node.inputs[0], str):
            y = y.transpose(-1, -2)
    return y.reshape(1, -1, y.shape[-1])
