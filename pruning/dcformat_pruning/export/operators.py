"""PyTorch's modules, functions and methods without weights, and the graph operators that compute the same.

Each is mapped to a function that takes a `Call` and returns a graph node, or None where the value is unchanged.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcformat.graph import (
    Add,
    AvgPool,
    Concat,
    Flatten,
    MaxPool,
    Node,
    Pair,
    Reduce,
    ReLU,
    Shape,
    Softmax,
)
from dcformat_pruning.tracing import UnsupportedModuleError, unsupported

#: The advice for a part that has no counterpart.
WAY_OUT = "replace it, or export a part of the network without it"


class Batch:
    """The size of the batch, which is unknown and allows no arithmetic."""

    def __repr__(self) -> str:
        return "batch"


BATCH = Batch()


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph.

    Attributes
    ----------
    number : int
        0 for the input, ``i`` for the result of node ``i - 1``.
    shape : tuple of int
        Without the batch.
    """

    number: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class Call:
    """A traced call.

    Attributes
    ----------
    where : str
        Names the call in errors: the path and type of the module, and the function if it is one.
    values : tuple of Value
        The values among the arguments, in order.
    args : tuple
        Positional arguments: `Value`, constants, and `BATCH` for the size of the batch.
    named : mapping
        Keyword arguments.
    module : nn.Module or None
        The module that is called, which has its settings as attributes; None for a function or method.
    """

    where: str
    values: tuple[Value, ...]
    args: tuple[Any, ...]
    named: Mapping[str, Any]
    module: nn.Module | None

    @property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the values."""
        return tuple(value.number for value in self.values)

    @property
    def shape(self) -> Shape:
        """The shape of the first value, without the batch."""
        return self.values[0].shape

    def argument(self, index: int, name: str, default: Any) -> Any:
        """Return a setting: an attribute of the module, or an argument by name or position (0 is the input)."""
        if self.module is not None:
            return getattr(self.module, name, default)
        if name in self.named:
            return self.named[name]
        return self.args[index] if index < len(self.args) else default

    def fail(self, expected: str, found: object, way_out: str = WAY_OUT) -> UnsupportedModuleError:
        """Return an error that names the call."""
        return unsupported(self.where, expected, found, way_out)


Make = Callable[[Call], Node | None]


def pair(value: Any) -> Pair:
    """Return ``(height, width)`` for a setting that is one number or two."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def _pass(call: Call) -> None:
    return None


def _relu(call: Call) -> Node:
    return ReLU(call.inputs)


def _dropout(call: Call) -> None:
    if call.argument(2, "training", True):
        raise call.fail("dropout that is off in eval mode", "training=True", "pass training=self.training")


def _window(call: Call) -> tuple[Pair, Pair, Pair, Pair]:
    kernel = pair(call.argument(1, "kernel_size", None))
    stride = call.argument(2, "stride", None)
    padding = pair(call.argument(3, "padding", 0))
    return kernel, kernel if stride in (None, [], ()) else pair(stride), padding, padding


def _max_pool(call: Call) -> Node:
    if pair(call.argument(4, "dilation", 1)) != (1, 1) or call.argument(6, "return_indices", False):
        raise call.fail("max pooling without dilation or indices", "one with them")
    return MaxPool(call.inputs, *_window(call), bool(call.argument(5, "ceil_mode", False)))


def _avg_pool(call: Call) -> Node:
    if call.argument(6, "divisor_override", None) is not None:
        raise call.fail("average pooling by the window's size", "a divisor_override")
    ceil, count = call.argument(4, "ceil_mode", False), call.argument(5, "count_include_pad", True)
    return AvgPool(call.inputs, *_window(call), bool(ceil), bool(count))


def _adaptive(call: Call, pool: Callable[..., Node]) -> Node | None:
    """Translate adaptive pooling, if all windows have the same size."""
    wanted = call.argument(1, "output_size", None)
    size = (wanted, wanted) if wanted is None or isinstance(wanted, int) else tuple(wanted)
    actual = _image(call)
    size = tuple(a if s is None else s for s, a in zip(size, actual, strict=True))
    if call.argument(2, "return_indices", False):
        raise call.fail("pooling without indices", "return_indices=True")
    if size == actual:
        return None
    if any(a % s for s, a in zip(size, actual, strict=True)):
        raise call.fail(f"an output size that divides {actual}", size, "choose another input or output size")
    kernel = (actual[0] // size[0], actual[1] // size[1])
    return pool(call.inputs, kernel, kernel)


def _adaptive_avg(call: Call) -> Node | None:
    return _adaptive(call, AvgPool)


def _adaptive_max(call: Call) -> Node | None:
    return _adaptive(call, MaxPool)


def _image(call: Call) -> Pair:
    """Return the height and width of the first value."""
    if len(call.shape) != 3:
        raise call.fail("an image (channels, height, width)", call.shape)
    return call.shape[1], call.shape[2]


def _flatten(call: Call) -> Node | None:
    dims = len(call.shape) + 1
    start, end = call.argument(1, "start_dim", 0), call.argument(2, "end_dim", -1)
    if start not in (1, 1 - dims) or end not in (-1, dims - 1):
        raise call.fail(
            "all dimensions but the batch to be flattened", f"dimensions {start} to {end}", "flatten with start_dim=1"
        )
    return _flat(call)


def _reshape(call: Call) -> Node | None:
    """Translate ``x.view(x.size(0), -1)`` and the like, which keep the batch and flatten the rest."""
    sizes = call.args[1] if len(call.args) == 2 and isinstance(call.args[1], list | tuple) else call.args[1:]
    features = prod(call.shape)
    if len(sizes) != 2 or sizes[1] not in (-1, features) or (sizes[0] == -1 and sizes[1] == -1):
        raise call.fail(f"a reshape to (batch, {features})", tuple(sizes), "flatten with x.flatten(1)")
    if sizes[0] is not BATCH and sizes[0] != -1:
        raise call.fail("a reshape for any batch", tuple(sizes), "take the batch's size from x.shape[0]")
    return _flat(call)


def _flat(call: Call) -> Node | None:
    return Flatten(call.inputs) if len(call.shape) > 1 else None


def _mean(call: Call) -> Node:
    dims = call.argument(1, "dim", None)
    kernel = _image(call)
    if not isinstance(dims, list | tuple) or sorted(d % 4 for d in dims) != [2, 3]:
        raise call.fail("a mean over height and width", f"dimensions {dims}")
    if call.argument(2, "keepdim", False):
        return AvgPool(call.inputs, kernel, kernel)
    return Reduce(call.inputs, "mean", (1, 2))


def _add(call: Call) -> Node | None:
    others = [a for a in (*call.args, call.named.get("other")) if a is not None and not isinstance(a, Value)]
    scale = call.named.get("alpha", 1)
    if len(call.inputs) == 1 and not any(isinstance(a, Tensor) or a != 0 for a in others) and others:
        return None  # as in sum([x, y])
    if len(call.inputs) != 2 or others or scale != 1:
        raise call.fail("a sum of two results of layers", "something else")
    return Add(call.inputs)


def _concat(call: Call) -> Node | None:
    dim = call.argument(1, "dim", call.named.get("axis", 0))
    if dim not in (1, -len(call.shape)):
        raise call.fail("values joined along the channels, dim=1", f"dim={dim}")
    if len(call.inputs) != len(call.args[0]):
        raise call.fail("results of layers to join", "a constant among them")
    return Concat(call.inputs) if len(call.inputs) > 1 else None


def _softmax(call: Call) -> Node:
    dim, rank = call.argument(1, "dim", None), len(call.shape)
    if not isinstance(dim, int) or not 1 <= dim % (rank + 1) <= rank:
        raise call.fail("softmax over another dimension than the batch", f"dim={dim}")
    axis = dim % (rank + 1) - 1
    return Softmax(call.inputs, None if axis == rank - 1 else axis)


MODULES: Mapping[type, Make] = {
    nn.ReLU: _relu,
    nn.Identity: _pass,
    nn.Dropout: _pass,
    nn.Dropout1d: _pass,
    nn.Dropout2d: _pass,
    nn.AlphaDropout: _pass,
    nn.FeatureAlphaDropout: _pass,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg,
    nn.AdaptiveMaxPool2d: _adaptive_max,
    nn.Flatten: _flatten,
    nn.Softmax: _softmax,
}

FUNCTIONS: Mapping[Any, Make] = {
    functional.relu: _relu,
    functional.relu_: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,
    functional.dropout: _dropout,
    functional.dropout2d: _dropout,
    functional.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    functional.avg_pool2d: _avg_pool,
    functional.adaptive_avg_pool2d: _adaptive_avg,
    functional.adaptive_max_pool2d: _adaptive_max,
    torch.flatten: _flatten,
    torch.mean: _mean,
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    torch.cat: _concat,
    torch.concat: _concat,
    functional.softmax: _softmax,
    torch.softmax: _softmax,
}

METHODS: Mapping[str, Make] = {
    "relu": _relu,
    "relu_": _relu,
    "flatten": _flatten,
    "view": _reshape,
    "reshape": _reshape,
    "mean": _mean,
    "add": _add,
    "add_": _add,
    "softmax": _softmax,
    "contiguous": _pass,
}

#: Operators that take more than one value.
JOINS = (_add, _concat)

#: Operators whose result shares memory with the input, or may do so.
VIEWS = (_pass, _dropout, _flatten, _reshape)
