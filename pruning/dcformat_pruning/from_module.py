"""From a user's own `nn.Module` to a `Model` with a graph, by tracing it with `torch.fx`.

The module stays as it is: masks of `torch.nn.utils.prune` and batch norms are folded in a copy. What the
graph has no operator for raises `UnsupportedModuleError`, naming the module.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from dcformat.dense import from_dense
from dcformat.errors import FormatError
from dcformat.graph import Conv2d, Graph, Linear, Node, Pair, Preprocessing, Shape
from dcformat.model import Model
from dcformat_pruning.export import to_numpy
from dcformat_pruning.folding import affine, fold_batch_norm
from dcformat_pruning.masks import fold_torch_prune
from dcformat_pruning.operators import FUNCTIONS, METHODS, MODULES, Call, pair
from dcformat_pruning.wiring import UnsupportedModuleError, trace


def model_from_module(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Model:
    """Make a `Model` of a module: its weights by their own names, and the graph of its forward pass in eval mode.

    Parameters
    ----------
    module : nn.Module
        Its forward pass takes one tensor and may use Linear, Conv2d, BatchNorm, ReLU, max, average and global
        average pooling, Flatten, Dropout (left out), additions, concatenation of channels and Softmax, as
        modules or functions.
    input_shape : sequence of int
        Without the batch: ``(features,)`` or ``(channels, height, width)``.

    Raises
    ------
    UnsupportedModuleError
        Something in it has no counterpart, or cannot be traced; the message names it.
    FormatError
        The shapes do not fit.
    """
    own = _copied(module).cpu().float().eval()
    fold_torch_prune(own)
    fold_batch_norm(own)
    builder = _Builder(own, tuple(int(n) for n in input_shape))
    for node in trace(own).nodes:
        builder.take(node)
    graph = Graph(builder.shapes[0], tuple(builder.nodes), preprocessing)
    tensors = {name: from_dense(name, to_numpy(t)) for name, t in builder.tensors.items()}
    graph.shapes({name: tensor.shape for name, tensor in tensors.items()})
    return Model(tensors, graph, tuple(labels), dict(metadata or {}))


def _copied(module: nn.Module) -> nn.Module:
    """Copy a module, masks of `torch.nn.utils.prune` and all: their products are no leaves, which cannot be copied."""
    memo: dict[int, Tensor] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


class _Builder:
    """Turns traced nodes into graph nodes, keeping the shape of every value."""

    def __init__(self, module: nn.Module, input_shape: Shape) -> None:
        self._parts = dict(module.named_modules())
        self._values: dict[fx.Node, int] = {}
        self.shapes: list[Shape] = [input_shape]
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def take(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if self._values:
                raise UnsupportedModuleError(f"{node.name}: expected one input, found another")
            self._values[node] = 0
        elif node.op == "call_module":
            part = self._parts[str(node.target)]
            self._values[node] = self._module(str(node.target), part, node)
            self._rebind(node, bool(getattr(part, "inplace", False)))
        elif node.op in ("call_function", "call_method"):
            self._function(node)
            name = _name(node)
            in_place = name.endswith("_") or name == "iadd" or bool(node.kwargs.get("inplace", False))
            self._rebind(node, in_place)
        elif node.op == "output":
            self._output(node)
        else:
            raise UnsupportedModuleError(f"{node.target}: expected layers and functions, found a bare parameter")

    def _module(self, name: str, part: nn.Module, node: fx.Node) -> int:
        inputs = self._inputs(node, node.args)
        if isinstance(part, nn.Linear):
            return self._add(Linear(inputs, *self._weights(name, part)), name)
        if isinstance(part, nn.Conv2d):
            if part.padding_mode != "zeros":
                raise UnsupportedModuleError(f"{name}: expected padding with zeros, found {part.padding_mode!r}")
            stride, dilation = pair(part.stride), pair(part.dilation)
            weights = self._weights(name, part)
            made = Conv2d(inputs, *weights, stride, _padding(name, part), dilation, part.groups)
            return self._add(made, name)
        if isinstance(part, nn.BatchNorm2d):
            return self._norm(name, part, inputs)
        make = MODULES.get(type(part))
        if make is None:
            raise UnsupportedModuleError(f"{name}: expected a supported layer, found {type(part).__name__}")
        call = Call(name, inputs, [self.shapes[i] for i in inputs], (), {}, part)
        return self._call(name, make(call), inputs)

    def _rebind(self, node: fx.Node, in_place: bool) -> None:
        """After an operation in place, whoever reads its input reads its result."""
        if in_place and node.args and node in self._values:
            before = self._values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
            for other in [n for n, value in self._values.items() if value == before]:
                self._values[other] = self._values[node]

    def _function(self, node: fx.Node) -> None:
        name = _name(node)
        if _is_size(node, name):
            return
        make = METHODS.get(name) if node.op == "call_method" else FUNCTIONS.get(node.target)
        if make is None:
            raise UnsupportedModuleError(f"{node.name}: expected a supported function, found {name}")
        inputs = self._inputs(node, node.args)
        # Sizes of the batch, which only reshapes may use, are passed on as None.
        rest = tuple(None if isinstance(a, fx.Node) else a for a in node.args[1:])
        call = Call(node.name, inputs, [self.shapes[i] for i in inputs], rest, dict(node.kwargs), None)
        self._values[node] = self._call(node.name, make(call), inputs)

    def _call(self, name: str, made: Node | None, inputs: tuple[int, ...]) -> int:
        """Add what an operator made; None means that the value passes through."""
        return inputs[0] if made is None else self._add(made, name)

    def _inputs(self, node: fx.Node, arguments: Any) -> tuple[int, ...]:
        found: list[int] = []
        for argument in arguments:
            if isinstance(argument, fx.Node) and argument in self._values:
                found.append(self._values[argument])
            elif isinstance(argument, list | tuple):
                found += [self._values[a] for a in argument if isinstance(a, fx.Node) and a in self._values]
        if not found:
            raise UnsupportedModuleError(f"{node.name}: expected the result of a layer as input, found none")
        return tuple(found)

    def _weights(self, name: str, part: nn.Linear | nn.Conv2d) -> tuple[str, str | None]:
        weight, bias = f"{name}.weight", f"{name}.bias"
        self.tensors[weight] = part.weight.detach()
        if part.bias is None:
            return weight, None
        self.tensors[bias] = part.bias.detach()
        return weight, bias

    def _norm(self, name: str, norm: nn.BatchNorm2d, inputs: tuple[int, ...]) -> int:
        """Make a batch norm that no layer took a convolution of one weight for each channel."""
        scale, shift = affine(name, norm)
        weight, bias = f"{name}.weight", f"{name}.bias"
        self.tensors[weight], self.tensors[bias] = scale.view(-1, 1, 1, 1), shift
        return self._add(Conv2d(inputs, weight, bias, groups=norm.num_features), name)

    def _add(self, node: Node, name: str) -> int:
        known = {n: tuple(t.shape) for n, t in self.tensors.items()}
        try:
            shape = node.output_shape([self.shapes[i] for i in node.inputs], known)
        except FormatError as error:
            error.add_note(f"at {name}")
            raise
        self.nodes.append(node)
        self.shapes.append(shape)
        return len(self.nodes)

    def _output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or result not in self._values:
            raise UnsupportedModuleError(f"output: expected one tensor, found {type(result).__name__}")
        if self._values[result] != len(self.nodes):
            # The graph's last value is its output: what was computed beside it is dropped if nothing else
            # needs it.
            raise UnsupportedModuleError(f"output: expected the result of the last operator, found {result.name}")


def _is_size(node: fx.Node, name: str) -> bool:
    """Whether a node only asks for a size, as in ``x.view(x.size(0), -1)``."""
    if node.op == "call_method":
        return name == "size"
    if name == "getattr":
        return node.args[1] == "shape"
    source = node.args[0] if node.args else None
    return name == "getitem" and isinstance(source, fx.Node) and _is_size(source, _name(source))


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))


def _padding(name: str, part: nn.Conv2d) -> Pair:
    if not isinstance(part.padding, str):
        return pair(part.padding)
    if part.padding == "valid":
        return 0, 0
    left, right, top, bottom = part._reversed_padding_repeated_twice
    if left != right or top != bottom:
        raise UnsupportedModuleError(f"{name}: expected the same padding on both sides, found 'same' of an even kernel")
    return top, left
