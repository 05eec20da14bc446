"""Turning a traced module into the nodes and tensors of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dcformat.errors import FormatError
from dcformat.graph import (
    Add,
    AvgPool,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Node,
    Pair,
    Reduce,
    ReLU,
    Shape,
)
from dcformat.records import replace
from dcformat_pruning.export.folding import affine, foldable, folded_weights
from dcformat_pruning.export.operators import (
    BATCH,
    FUNCTIONS,
    JOINS,
    METHODS,
    MODULES,
    VIEWS,
    WAY_OUT,
    Batch,
    Call,
    Value,
    pair,
)
from dcformat_pruning.tracing import UnsupportedModuleError, kind_of, place, reason, trace, unsupported


class GraphBuilder:
    """Turns traced nodes into graph nodes, and keeps the shape of every value.

    A traced node computes a value of the graph or a constant: a size, a parameter, or a result of these.

    Attributes
    ----------
    shapes : list of tuple of int
        The shape of each value without the batch; value 0 is the input.
    nodes : list of Node
        Node ``i`` computes value ``i + 1``.
    tensors : dict of str to Tensor
        The weights of the nodes.
    marks : list of (str, int)
        The paths of the layers in order of execution, and the values that they compute.
    """

    def __init__(self, module: nn.Module, input_shape: Shape) -> None:
        self._module = module
        self._parts = dict(module.named_modules())
        self._graph = trace(module)
        self._folds = foldable(self._graph, self._parts)
        self._values: dict[fx.Node, int] = {}
        self._constants: dict[fx.Node, Any] = {}
        # For each value, the call whose result owns its memory; for each overwritten value, the call that did it.
        self._memory: dict[fx.Node, fx.Node] = {}
        self._stale: dict[fx.Node, fx.Node] = {}
        self.shapes: list[Shape] = [input_shape]
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.marks: list[tuple[str, int]] = []

    def build(self) -> tuple[tuple[Node, ...], dict[int, int]]:
        """Return the nodes that the output needs, and a mapping from the old to the new numbers of their values."""
        for node in self._graph.nodes:
            if node.op == "output":
                return self._needed(self._output(node))
            self._take(node)
        raise AssertionError("a traced graph ends in its output")

    def _take(self, node: fx.Node) -> None:
        """Translate one traced node."""
        if node.op == "placeholder":
            if self._values or str(node.target).startswith("*"):
                raise self._fail(node, "one input", f"another: {node.target}", "give it a default, or export a part")
            self._values[node], self._memory[node] = 0, node
            return
        if node.op == "get_attr":
            self._constants[node] = reduce(getattr, str(node.target).split("."), self._module)
            return
        args = fx.node.map_arg(node.args, self._read)
        named = fx.node.map_arg(node.kwargs, self._read)
        if not _values((*args, *named.values())):
            self._constants[node] = self._computed(node, args, named)
        elif _is_size(node):
            self._constants[node] = self._size(node, args, named)
        else:
            self._call(node, args, named)

    def _read(self, node: fx.Node) -> Any:
        """Return the value or constant that a node computed."""
        if node in self._stale:
            raise self._fail(
                self._stale[node],
                "in-place operations on memory that is not read again in another shape",
                f"that {node.name} shares it and is read",
                "do it out of place",
            )
        if node in self._values:
            number = self._values[node]
            return Value(number, self.shapes[number])
        return self._constants[node]

    def _computed(self, node: fx.Node, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Return the result of a call that does not depend on the input."""
        try:
            if node.op == "call_module":
                return self._parts[str(node.target)](*args, **named)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **named)
            return node.target(*args, **named)  # type: ignore[operator]
        except Exception as error:  # a user's function may raise any exception
            raise self._fail(node, "a value that does not depend on the batch", reason(error), WAY_OUT) from error

    def _size(self, node: fx.Node, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        sizes: tuple[int | Batch, ...] = (BATCH, *args[0].shape)
        if node.target is getattr:
            return sizes if args[1] == "shape" else len(sizes)
        dim = args[1] if len(args) > 1 else named.get("dim")
        return sizes if dim is None else sizes[dim]

    def _call(self, node: fx.Node, args: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Add the node for a call of a layer, function or method."""
        if not args:  # the input is given by name
            first = next(name for name in named if _values([named[name]]))
            args, named = [named[first]], {name: value for name, value in named.items() if name != first}
        path, kind = self._where(node)
        where, part = place(path, kind), None
        if node.op == "call_module":
            part = self._parts[str(node.target)]
        else:
            where = f"{where}, {_name(node)}"
        call = Call(where, _values([*args, *named.values()]), tuple(args), named, part)
        if named.get("out") is not None:
            raise call.fail("a call that returns its result", "out=", "leave it out")
        made, views = self._layer(node, path, call) if part is not None else self._function(node, path, call)
        self._values[node] = call.inputs[0] if made is None else self._add(made, where)
        source = next(n for n in node.all_input_nodes if n in self._values)
        in_place = isinstance(made, ReLU | Add) and _in_place(node, call)
        self._memory[node] = self._memory[source] if views or in_place else node
        if in_place:
            self._overwrite(source, node)
        if part is not None and node not in self._folds:
            self.marks.append((path, self._values[node]))

    def _overwrite(self, source: fx.Node, by: fx.Node) -> None:
        """Record an operation in place: its input now holds its result, and views of the input cannot be read."""
        before = self._values[source]
        for other, memory in self._memory.items():
            if memory is self._memory[source] and other is not by:
                if self._values[other] == before:
                    self._values[other] = self._values[by]
                else:
                    self._stale[other] = by

    def _layer(self, node: fx.Node, name: str, call: Call) -> tuple[Node | None, bool]:
        """Return the node of a layer (None if it returns its input), and whether the result shares its memory."""
        part, kind = self._parts[name], kind_of(self._parts[name])
        if kind in (nn.Linear, nn.Conv2d):
            weight, bias = part.weight.detach(), None if part.bias is None else part.bias.detach()
            if node in self._folds:
                norm = str(self._folds[node].target)
                weight, bias = folded_weights(norm, part, self._parts[norm])
            names = self._store(f"{name}.weight", weight), self._store(f"{name}.bias", bias)
            if kind is nn.Linear:
                return Linear(call.inputs, *names), False
            if part.padding_mode != "zeros":
                raise call.fail("padding with zeros", repr(part.padding_mode))
            settings = part.stride, part.padding, part.dilation, part.groups
            return _conv(call, names, weight.shape, *settings), False
        if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm):
            folded = node.all_input_nodes[0] in self._folds
            return (None if folded else self._norm(name, part, call)), False
        make = None if kind is None else MODULES.get(kind)
        if make is None:
            supported = ", ".join(["Linear", "Conv2d", "BatchNorm1d", "BatchNorm2d", *(k.__name__ for k in MODULES)])
            changed = any(issubclass(k, nn.Module) and isinstance(part, k) for k in (nn.Linear, nn.Conv2d, *MODULES))
            own = " with a forward pass of its own" if changed else ""
            raise call.fail(f"a supported layer ({supported})", f"{type(part).__name__}{own}")
        return make(call), make in VIEWS

    def _function(self, node: fx.Node, path: str, call: Call) -> tuple[Node | None, bool]:
        """Return the node of a function or method, as `_layer` does."""
        if node.target in (functional.linear, functional.conv2d, torch.conv2d):
            _check_single(call)
            weight, bias = call.argument(1, "weight", None), call.argument(2, "bias", None)
            names = [_attribute(node, i, k) or f"{path}.{k}".lstrip(".") for i, k in ((1, "weight"), (2, "bias"))]
            stored = self._store(names[0], weight), self._store(names[1], bias)
            if node.target is functional.linear:
                return Linear(call.inputs, *stored), False
            settings = [call.argument(i, k, d) for i, k, d in _CONV_ARGUMENTS]
            return _conv(call, stored, weight.shape, *settings), False
        name = _name(node)
        make = METHODS.get(name) if node.op == "call_method" else FUNCTIONS.get(node.target)
        if make is None:
            known = ", ".join(sorted({*METHODS, *(f.__name__ for f in FUNCTIONS)} - {"iadd"}))
            raise call.fail(f"a supported function ({known})", name)
        if make not in JOINS:
            _check_single(call)
        return make(call), make in VIEWS

    def _store(self, name: str, tensor: Tensor | None) -> Any:
        """Store a tensor, under another name if the name is taken by other values; return the name."""
        if tensor is None:
            return None
        base, count = name, 1
        while name in self.tensors and not torch.equal(self.tensors[name], tensor):
            count += 1
            name = f"{base}.{count}"
        self.tensors[name] = tensor.detach()
        return name

    def _norm(self, name: str, norm: nn.Module, call: Call) -> Node:
        """Turn a batch norm that could not be folded into a layer with one weight for each channel."""
        scale, shift = (t.float() for t in affine(name, norm))
        bias = self._store(f"{name}.bias", shift)
        if len(call.shape) == 1:
            return Linear(call.inputs, self._store(f"{name}.weight", torch.diag(scale)), bias)
        weight = self._store(f"{name}.weight", scale.view(-1, 1, 1, 1))
        return Conv(call.inputs, weight, bias, groups=len(scale))

    def _add(self, node: Node, where: str) -> int:
        """Add a node; return the number of its value."""
        before = self.nodes[node.values[0] - 1] if node.values[0] else None
        if isinstance(node, Flatten) and isinstance(before, AvgPool | MaxPool) and _is_global(before, self.shapes):
            node = Reduce(before.inputs, "mean" if isinstance(before, AvgPool) else "max", (1, 2))
        known = {n: tuple(t.shape) for n, t in self.tensors.items()}
        try:
            shape = node.output_shape([self.shapes[i] for i in node.values], known)
        except FormatError as error:
            fit = "fit input_shape to the module, or reshape before it"
            raise unsupported(where, "inputs that the graph's operator takes", error, fit) from error
        self.nodes.append(node)
        self.shapes.append(shape)
        return len(self.nodes)

    def _output(self, node: fx.Node) -> int:
        """Return the number of the value that the module returns."""
        result = fx.node.map_arg(node.args[0], self._read)
        if not isinstance(result, Value):
            found = type(node.args[0]).__name__ if not isinstance(node.args[0], fx.Node) else "a constant"
            raise self._fail(node, "one tensor as result", found, "return one tensor that depends on the input")
        if not result.number:
            raise self._fail(node, "a result that is computed from the input", "the input", "export a larger part")
        return result.number

    def _needed(self, output: int) -> tuple[tuple[Node, ...], dict[int, int]]:
        """Leave out the nodes that the output does not need; see `build`."""
        needed = {output}
        for number in range(output, 0, -1):
            if number in needed:
                needed.update(self.nodes[number - 1].values)
        numbers = {old: new for new, old in enumerate(sorted(needed | {0}))}
        kept = [self.nodes[number - 1] for number in sorted(needed - {0})]
        return tuple(replace(n, inputs=tuple(numbers[i] for i in n.values)) for n in kept), numbers

    def _where(self, node: fx.Node) -> tuple[str, type]:
        """Return the path and type of the innermost module that makes a call."""
        stack = node.meta.get("nn_module_stack") or {}
        path, kind = next(reversed(stack.values()), ("", type(self._module)))
        return path, kind

    def _fail(self, node: fx.Node, expected: str, found: object, way_out: str) -> UnsupportedModuleError:
        return unsupported(f"{place(*self._where(node))}, {node.name}", expected, found, way_out)


#: Positions, names and defaults of the arguments of a functional convolution.
_CONV_ARGUMENTS = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1), (6, "groups", 1))


def _conv(call: Call, names: Any, weight: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: int) -> Node:
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(pair(dilation), weight[2:], strict=True)]
        if any(t % 2 for t in total):
            raise call.fail("the same padding on both sides", "'same' of an even kernel", "pad by numbers")
        padding = total[0] // 2, total[1] // 2
    around = (0, 0) if padding == "valid" else pair(padding)
    return Conv(call.inputs, names[0], names[1], pair(stride), around, around, pair(dilation), groups)


def _is_global(pool: AvgPool | MaxPool, shapes: Sequence[Shape]) -> bool:
    """Whether a pool has a single window that covers its whole input."""
    size: Pair = shapes[pool.values[0]][1:]  # type: ignore[assignment]
    return pool.kernel == size and pool.padding == (0, 0)


def _values(arguments: Sequence[Any]) -> tuple[Value, ...]:
    """Return the values among arguments, including those inside lists."""
    found: list[Value] = []
    for argument in arguments:
        if isinstance(argument, Value):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            found += _values(argument)
    return tuple(found)


def _check_single(call: Call) -> None:
    if len(call.values) != 1 or call.args[0] is not call.values[0]:
        raise call.fail("one result of a layer, and constants", "other arguments")


def _is_size(node: fx.Node) -> bool:
    """Whether a node asks for a size, as in ``x.view(x.size(0), -1)``."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is getattr and node.args[1] in ("shape", "ndim")


def _in_place(node: fx.Node, call: Call) -> bool:
    name = _name(node)
    return name.endswith("_") or name == "iadd" or bool(call.argument(1, "inplace", False) is True)


def _attribute(node: fx.Node, index: int, name: str) -> str | None:
    """Return the path of the parameter that is an argument of a call; None if the argument is something else."""
    argument = node.args[index] if index < len(node.args) else node.kwargs.get(name)
    return str(argument.target) if isinstance(argument, fx.Node) and argument.op == "get_attr" else None


def _name(node: fx.Node) -> str:
    if node.target is getattr:
        return f"the attribute {node.args[1]}"
    return str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
