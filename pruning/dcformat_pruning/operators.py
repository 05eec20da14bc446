"""PyTorch's modules, functions and methods without weights, and the graph operators that do the same.

An entry takes a `Call` and returns a graph node, or None where the value passes through as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dcformat.graph import (
    Add,
    AvgPool2d,
    Concat,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool2d,
    Node,
    Pair,
    ReLU,
    Shape,
    Softmax,
)
from dcformat_pruning.wiring import UnsupportedModuleError


@dataclass(frozen=True, slots=True)
class Call:
    """A traced call: value numbers and shapes (without the batch) of its inputs, further arguments, or the module."""

    name: str
    inputs: tuple[int, ...]
    shapes: Sequence[Shape]
    rest: tuple[Any, ...]
    named: Mapping[str, Any]
    module: nn.Module | None

    def argument(self, place: int, name: str, default: Any) -> Any:
        """Return an argument: an attribute of the module, or one of the call, by name or place after the input."""
        if self.module is not None:
            return getattr(self.module, name, default)
        if name in self.named:
            return self.named[name]
        return self.rest[place] if place < len(self.rest) else default

    def fail(self, expected: str, found: object) -> UnsupportedModuleError:
        """Return the error that names this call."""
        return UnsupportedModuleError(f"{self.name}: expected {expected}, found {found}")


Make = Callable[[Call], Node | None]


def pair(value: Any) -> Pair:
    """Return ``(height, width)`` of what PyTorch takes as one number or two."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def _pass(call: Call) -> None:
    return None


def _relu(call: Call) -> Node:
    return ReLU(call.inputs[:1])


def _dropout(call: Call) -> None:
    if call.module is None and call.argument(1, "training", True):
        raise call.fail("dropout that is off in eval mode", "training=True")
    return


def _window(call: Call) -> tuple[Pair, Pair, Pair]:
    kernel = pair(call.argument(0, "kernel_size", None))
    stride = call.argument(1, "stride", None)
    return kernel, kernel if stride in (None, [], ()) else pair(stride), pair(call.argument(2, "padding", 0))


def _max_pool(call: Call) -> Node:
    if pair(call.argument(3, "dilation", 1)) != (1, 1) or call.argument(5, "return_indices", False):
        raise call.fail("max pooling without dilation or indices", "one with them")
    return MaxPool2d(call.inputs, *_window(call), bool(call.argument(4, "ceil_mode", False)))


def _avg_pool(call: Call) -> Node:
    if call.argument(5, "divisor_override", None) is not None:
        raise call.fail("average pooling by the window's size", "a divisor_override")
    ceil, count = call.argument(3, "ceil_mode", False), call.argument(4, "count_include_pad", True)
    return AvgPool2d(call.inputs, *_window(call), bool(ceil), bool(count))


def _adaptive(call: Call, pool: Callable[..., Node], whole: type[Node]) -> Node | None:
    """Average or maximum of a fixed number of windows: all of it, none of it, or equal parts."""
    wanted = call.argument(0, "output_size", None)
    size = (wanted, wanted) if wanted is None or isinstance(wanted, int) else tuple(wanted)
    if len(call.shapes[0]) != 3:
        raise call.fail("an image (channels, height, width) to pool", call.shapes[0])
    actual = call.shapes[0][1:]
    size = tuple(a if s is None else s for s, a in zip(size, actual, strict=True))
    if size == actual:
        return None
    if size == (1, 1):
        return whole(call.inputs)
    if any(a % s for s, a in zip(size, actual, strict=True)):
        raise call.fail(f"an output size that divides {actual}", size)
    kernel = (actual[0] // size[0], actual[1] // size[1])
    return pool(call.inputs, kernel, kernel)


def _adaptive_avg(call: Call) -> Node | None:
    return _adaptive(call, AvgPool2d, GlobalAvgPool)


def _adaptive_max(call: Call) -> Node | None:
    return _adaptive(call, MaxPool2d, GlobalMaxPool)


def _flatten(call: Call) -> Node:
    start, end = call.argument(0, "start_dim", 0), call.argument(1, "end_dim", -1)
    if start != 1 or end not in (-1, len(call.shapes[0])):
        raise call.fail("all dimensions but the batch to be flattened", f"dimensions {start} to {end}")
    return Flatten(call.inputs[:1])


def _reshape(call: Call) -> Node:
    """``x.view(x.size(0), -1)`` and its kin: the batch first, all the rest in one."""
    sizes = call.rest[0] if len(call.rest) == 1 and isinstance(call.rest[0], list | tuple) else call.rest
    features = prod(call.shapes[0])
    known = len(sizes) == 2 and not isinstance(sizes[0], list)
    if not known or sizes[1] not in (-1, features) or (sizes[0] == -1 and sizes[1] == -1):
        raise call.fail(f"a reshape to (batch, {features})", tuple(sizes))
    if isinstance(sizes[0], int) and sizes[0] != -1:
        raise call.fail("a reshape for any batch", tuple(sizes))
    return Flatten(call.inputs[:1])


def _mean(call: Call) -> Node:
    dims = call.argument(0, "dim", None)
    image = len(call.shapes[0]) == 3
    if not image or not isinstance(dims, list | tuple) or sorted(d % 4 for d in dims) != [2, 3]:
        raise call.fail("a mean over height and width", f"dimensions {dims}")
    if call.argument(1, "keepdim", False):
        raise call.fail("a mean without keepdim", "keepdim=True")
    return GlobalAvgPool(call.inputs)


def _add(call: Call) -> Node:
    if len(call.inputs) < 2 or call.named.get("alpha", 1) != 1:
        raise call.fail("a sum of two results of layers", "something else")
    return Add(call.inputs)


def _concat(call: Call) -> Node | None:
    dim = call.argument(0, "dim", call.named.get("axis", 0))
    if dim not in (1, -len(call.shapes[0])):
        raise call.fail("values joined along the channels, dim=1", f"dim={dim}")
    return Concat(call.inputs) if len(call.inputs) > 1 else None


def _softmax(call: Call) -> Node:
    dim = call.argument(0, "dim", None)
    if dim not in (1, -1):
        raise call.fail("softmax over the features, dim=1", f"dim={dim}")
    return Softmax(call.inputs[:1])


MODULES: Mapping[type, Make] = {
    nn.ReLU: _relu,
    nn.Identity: _pass,
    nn.Dropout: _pass,
    nn.Dropout2d: _pass,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg,
    nn.AdaptiveMaxPool2d: _adaptive_max,
    nn.Flatten: _flatten,
    nn.Softmax: _softmax,
}

FUNCTIONS: Mapping[Any, Make] = {
    functional.relu: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,
    functional.dropout: _dropout,
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
