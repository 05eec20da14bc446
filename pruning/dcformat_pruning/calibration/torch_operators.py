"""The operators of a graph in PyTorch, so that outputs can be differentiated; the batch is the first dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from dcformat_runtime.numpy_backend.windows import pool_counts, pool_ends
from torch import Tensor
from torch.nn import functional

from dcformat import graph as ops
from dcformat.graph import Node, Shape


class TorchOperand(NamedTuple):
    """An operand: a value, whose first dimension is the batch, or a tensor or constant without a batch."""

    array: Tensor
    batched: bool

    @property
    def rank(self) -> int:
        """The number of dimensions without the batch."""
        return self.array.ndim - self.batched

    def aligned(self, rank: int) -> Tensor:
        """Return the array with `rank` dimensions behind the batch, if it has a batch."""
        if not self.batched or self.rank == rank:
            return self.array
        return self.array.reshape(len(self.array), *(1,) * (rank - self.rank), *self.array.shape[1:])


#: Called with the name of a weight, its inputs and its outputs wherever they meet: ``(..., columns)``, ``(..., rows)``.
Watch = Callable[[str, Tensor, Tensor], None]


class NodeCall(NamedTuple):
    """A node with its operands, its weights and biases, the shape of its result, and the watcher of recurrent steps."""

    node: Any
    operands: Sequence[TorchOperand]
    tensors: dict[str, Tensor]
    out_shape: Shape
    watch: Watch | None = None

    @property
    def x(self) -> Tensor:
        """The first operand."""
        return self.operands[0].array

    def weight(self, name: str | None) -> Tensor | None:
        """Return a tensor by its name, or None without a name."""
        return None if name is None else self.tensors[name]


def evaluate(call: NodeCall) -> Tensor:
    """Return a node's result ``(batch, *out_shape)``."""
    return _OPERATORS[type(call.node)](call)


def _linear(call: NodeCall) -> Tensor:
    return functional.linear(call.x, call.tensors[call.node.weight], call.weight(call.node.bias))


def _matmul(call: NodeCall) -> Tensor:
    rank = len(call.out_shape)
    return torch.matmul(*(operand.aligned(rank) for operand in call.operands))


def _padded(x: Tensor, before: Shape, after: Shape, fill: float = 0.0) -> Tensor:
    """Return the last dimensions with constant padding, which may be negative."""
    if not any(before) and not any(after):
        return x
    pads = [amount for pair in reversed(list(zip(before, after, strict=True))) for amount in pair]
    return functional.pad(x, pads, value=fill)


def _conv(call: NodeCall) -> Tensor:
    node, weight = call.node, call.tensors[call.node.weight]
    spatial = weight.ndim - 2
    x = _padded(call.x.reshape(-1, *call.x.shape[-spatial - 1 :]), node.padding, node.padding_end)
    convolve: Any = functional.conv1d if spatial == 1 else functional.conv2d
    bias = call.weight(node.bias)
    out: Tensor = convolve(x, weight, bias, stride=node.stride, dilation=node.dilation, groups=node.groups)
    return out.reshape(-1, *call.out_shape)


def _conv_transpose(call: NodeCall) -> Tensor:
    node, weight = call.node, call.tensors[call.node.weight]
    spatial = weight.ndim - 2
    x = call.x.reshape(-1, *call.x.shape[-spatial - 1 :])
    convolve: Any = functional.conv_transpose1d if spatial == 1 else functional.conv_transpose2d
    whole = convolve(x, weight, stride=node.stride, dilation=node.dilation, groups=node.groups)
    # Output padding adds positions that no kernel reaches, and padding cuts positions off.
    after = [extra - end for extra, end in zip(node.output_padding, node.padding_end, strict=True)]
    out = _padded(whole, tuple(-amount for amount in node.padding), tuple(after))
    bias = call.weight(node.bias)
    return (out if bias is None else out + bias.reshape(-1, *(1,) * spatial)).reshape(-1, *call.out_shape)


def _product(call: NodeCall, name: str, x: Tensor) -> Tensor:
    """Return ``x @ weight.T`` of a recurrent layer's weight, watched."""
    out = x @ call.tensors[name].T
    if call.watch is not None:
        call.watch(name, x, out)
    return out


def _first_state(call: NodeCall, i: int, units: int) -> Tensor:
    return call.operands[i].array if len(call.operands) > i else call.x.new_zeros(len(call.x), units)


def _inputs_to_gates(call: NodeCall) -> Tensor:
    gates = _product(call, call.node.weight, call.x)
    bias = call.weight(call.node.bias)
    return gates if bias is None else gates + bias


def _steps(call: NodeCall) -> range:
    count = call.out_shape[0]
    return range(count - 1, -1, -1) if call.node.reverse else range(count)


def _lstm(call: NodeCall) -> Tensor:
    gates, bias = _inputs_to_gates(call), call.weight(call.node.recurrent_bias)
    h, c = (_first_state(call, i, call.out_shape[1] // 2) for i in (1, 2))
    results: dict[int, Tensor] = {}
    for step in _steps(call):
        together = gates[:, step] + _product(call, call.node.recurrent_weight, h)
        i, f, g, o = (together if bias is None else together + bias).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        results[step] = torch.cat((h, c), 1)
    return torch.stack([results[step] for step in sorted(results)], 1)


def _gru(call: NodeCall) -> Tensor:
    node, units, gates = call.node, call.out_shape[1], _inputs_to_gates(call)
    found = call.weight(node.recurrent_bias)
    bias = gates.new_zeros(3 * units) if found is None else found
    h = _first_state(call, 1, units)
    results: dict[int, Tensor] = {}
    for step in _steps(call):
        together = _product(call, node.recurrent_weight, h)
        r, z = (torch.sigmoid(part) for part in (gates[:, step] + together + bias)[:, : 2 * units].chunk(2, 1))
        if node.reset_after:
            inner = r * (together + bias)[:, 2 * units :]
        else:
            inner = (_product(call, node.recurrent_weight, r * h) + bias)[:, 2 * units :]
        h = (1 - z) * torch.tanh(gates[:, step, 2 * units :] + inner) + z * h
        results[step] = h
    return torch.stack([results[step] for step in sorted(results)], 1)


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "floor": torch.floor, "ceil": torch.ceil,
    "round": torch.round, "sqrt": torch.sqrt, "exp": torch.exp, "log": torch.log, "erf": torch.erf,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "sin": torch.sin, "cos": torch.cos,
}  # fmt: skip
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow, "minimum": torch.minimum,
    "maximum": torch.maximum, "equal": torch.eq, "less": torch.lt, "less_equal": torch.le,
}  # fmt: skip


def _aligned(call: NodeCall) -> list[Tensor]:
    return [operand.aligned(len(call.out_shape)) for operand in call.operands]


def _add(call: NodeCall) -> Tensor:
    total, *rest = _aligned(call)
    for operand in rest:
        total = total + operand
    return total


def _binary(call: NodeCall) -> Tensor:
    a, b = _aligned(call)
    return _BINARY[call.node.function](a, b).to(torch.float32)


def _where(call: NodeCall) -> Tensor:
    condition, chosen, other = _aligned(call)
    return torch.where(condition != 0, chosen, other)


def _rounded(x: Tensor, low: float, high: float) -> Tensor:
    """Return whole numbers of a range; the gradient is that of the numbers before they were rounded."""
    return torch.clamp(x + (torch.round(x) - x).detach(), low, high)


def _quantize(call: NodeCall) -> Tensor:
    node, zero = call.node, float(call.node.zero_point)
    scale = float(np.float32(node.scale))
    return _rounded(call.x / scale, node.low - zero, node.high - zero) * scale


def _requantize(call: NodeCall) -> Tensor:
    x, scale = _aligned(call)
    factor = scale * float(np.float32(call.node.input_scale)) / float(np.float32(call.node.output_scale))
    return _rounded(x * factor, call.node.low, call.node.high)


def _reduce(call: NodeCall) -> Tensor:
    node, axes = call.node, [axis + 1 for axis in call.node.axes]
    if node.function.startswith("arg"):
        search = torch.argmax if node.function == "argmax" else torch.argmin
        return search(call.x, dim=axes[0], keepdim=node.keepdims).to(torch.float32)
    if node.function == "prod":
        out = call.x
        for axis in axes:
            out = out.prod(dim=axis, keepdim=True)
        return out.reshape(-1, *call.out_shape)
    reduce: Any = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax, "min": torch.amin}[node.function]
    return torch.as_tensor(reduce(call.x, dim=axes, keepdim=node.keepdims))


def _softmax(call: NodeCall) -> Tensor:
    return torch.softmax(call.x, -1 if call.node.axis is None else call.node.axis + 1)


def _normalize(call: NodeCall) -> Tensor:
    axes = [axis + 1 for axis in call.node.axes]
    x = call.x - call.x.mean(axes, keepdim=True) if call.node.centered else call.x
    return x / torch.sqrt((x * x).mean(axes, keepdim=True) + float(np.float32(call.node.epsilon)))


def _windows(node: ops.MaxPool | ops.AvgPool, x: Tensor, fill: float) -> Tensor:
    """Return the windows of a pool, ``(..., *positions, *kernel)``."""
    count = len(node.kernel)
    x = _padded(x, node.padding, pool_ends(node, tuple(x.shape)), fill)
    for kernel, stride in zip(node.kernel, node.stride, strict=True):
        x = x.unfold(x.ndim - count, kernel, stride)
    return x


def _max_pool(call: NodeCall) -> Tensor:
    return _windows(call.node, call.x, -np.inf).amax(tuple(range(-len(call.node.kernel), 0)))


def _avg_pool(call: NodeCall) -> Tensor:
    total = _windows(call.node, call.x, 0.0).sum(tuple(range(-len(call.node.kernel), 0)))
    counts = pool_counts(call.node, tuple(call.x.shape), tuple(total.shape))
    return total / torch.from_numpy(np.ascontiguousarray(counts))


def _slice(call: NodeCall) -> Tensor:
    at = call.node.start + call.node.step * torch.arange(call.node.size)
    return call.x.index_select(call.node.axis + 1, at)


def _pad(call: NodeCall) -> Tensor:
    node, out = call.node, call.x
    if node.mode == "constant":
        return _padded(out, node.before, node.after, node.value)
    for axis, (before, after) in enumerate(zip(node.before, node.after, strict=True)):
        last = out.shape[axis + 1] - 1
        at = torch.arange(-before, last + 1 + after)
        if node.mode == "reflect":
            at = last - (at.abs() - last).abs()
        out = out.index_select(axis + 1, at.clamp(0, last))
    return out


def _concat(call: NodeCall) -> Tensor:
    batch = next(len(operand.array) for operand in call.operands if operand.batched)
    arrays = [o.array if o.batched else o.array.expand(batch, *o.array.shape) for o in call.operands]
    return torch.cat(arrays, call.node.axis + 1)


def _gather(call: NodeCall) -> Tensor:
    data, indices = call.operands
    axis = call.node.axis
    at = indices.array.detach().to(torch.int64)
    at = torch.where(at < 0, at + data.array.shape[axis + data.batched], at)
    if not data.batched:
        out = data.array.index_select(axis, at.reshape(-1))
        shape = (*data.array.shape[:axis], *at.shape, *data.array.shape[axis + 1 :])
        return out.reshape(shape).movedim(axis, 0)
    if not indices.batched:
        out = data.array.index_select(axis + 1, at.reshape(-1))
    else:
        out = torch.stack(
            [row.index_select(axis, places.reshape(-1)) for row, places in zip(data.array, at, strict=True)]
        )
    return out.reshape(-1, *call.out_shape)


def _resize(call: NodeCall) -> Tensor:
    node, x = call.node, call.x
    for i in range(len(node.size)):
        axis = x.ndim - len(node.size) + i
        length, at = x.shape[axis], node.positions(i, x.shape[axis])
        if node.mode == "nearest":
            x = x.index_select(axis, torch.from_numpy(np.clip(at, 0, length - 1).astype(np.int64)))
            continue
        low = np.floor(at)
        share = torch.from_numpy((at - low).astype(np.float32)).reshape(-1, *(1,) * (x.ndim - axis - 1))
        first, second = (torch.from_numpy(np.clip(low + k, 0, length - 1).astype(np.int64)) for k in (0, 1))
        x = x.index_select(axis, first) * (1 - share) + x.index_select(axis, second) * share
    return x


_OPERATORS: dict[type[Node], Callable[[NodeCall], Tensor]] = {
    ops.Linear: _linear, ops.Conv: _conv, ops.ConvTranspose: _conv_transpose, ops.MatMul: _matmul, ops.LSTM: _lstm,
    ops.GRU: _gru, ops.ReLU: lambda call: torch.relu(call.x),
    ops.Unary: lambda call: _UNARY[call.node.function](call.x),
    ops.Add: _add, ops.Binary: _binary, ops.Where: _where, ops.Quantize: _quantize, ops.Requantize: _requantize,
    ops.Reduce: _reduce, ops.Softmax: _softmax, ops.Normalize: _normalize, ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Flatten: lambda call: call.x.reshape(-1, *call.out_shape),
    ops.Reshape: lambda call: call.x.reshape(-1, *call.out_shape),
    ops.Transpose: lambda call: call.x.permute(0, *(axis + 1 for axis in call.node.order)),
    ops.Slice: _slice, ops.Pad: _pad, ops.Tile: lambda call: call.x.repeat(1, *call.node.repeats), ops.Resize: _resize,
    ops.Concat: _concat, ops.Gather: _gather,
}  # fmt: skip
