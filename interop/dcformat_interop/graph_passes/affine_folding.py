"""Folds constant factors and shifts of channels into the layer before them: batch norms, and separate biases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.dense import from_dense
from dcformat.graph import Add, Binary, Conv, ConvTranspose, Linear, Node, Shape
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.graph_passes.copying import Copier, attributes_of

Array = npt.NDArray[Any]
AffineLayer = Linear | Conv | ConvTranspose


def fold_affine(builder: GraphBuilder, outputs: Sequence[Value]) -> tuple[GraphBuilder, list[Value]]:
    """Return the graph with factors and shifts folded into layers whose results nothing else reads.

    A layer whose weights have a codebook takes only one factor for all channels, because others would multiply the
    number of its values. Weights that several layers share take no factor, because each layer would store its own.
    """
    copier = Copier(builder)
    readers = Counter(number for node in builder.nodes for number in node.values)
    readers.update(value.number for value in outputs)
    users = Counter(name for node in builder.nodes for name in node.tensors)
    shared: set[str] = set()
    for number, port in enumerate(builder.inputs):
        copier.made[number] = copier.new.input(port)
    for number, node in enumerate(builder.nodes, len(builder.inputs)):
        value = copier.made[number] = _folded(copier, node, readers, shared) or copier.copy(node)
        if isinstance(node, AffineLayer) and users[node.weight] > 1:
            copied = copier.maker(value)
            assert isinstance(copied, AffineLayer)
            shared.add(copied.weight)
    return copier.new, [copier.made[value.number] for value in outputs]


def _folded(copier: Copier, node: Node, readers: Counter[int], shared: set[str]) -> Value | None:
    """Return a layer's result in which a node's factor or shift is folded, or None if it cannot be."""
    if not isinstance(node, Add | Binary) or len(node.inputs) != 2 or len(node.values) != 1:
        return None
    number = node.values[0]
    layer = copier.maker(copier.made[number])
    if readers[number] != 1 or not isinstance(layer, AffineLayer):
        return None
    other = node.inputs[1 - node.inputs.index(number)]
    constant = np.asarray(copier.operand(other), np.float64)
    shape = copier.made[number].shape
    channels = _for_channels(constant, shape, len(shape) - _spatial(copier, layer) - 1)
    effect = None if channels is None else _effect(node, channels, node.inputs.index(number) == 0)
    if effect is None:
        return None
    factor, shift = effect
    if layer.weight in shared and (factor != 1).any():
        return None
    weight = copier.new.tensors[layer.weight]
    if len(np.unique(factor)) > 1 and from_dense(layer.weight, weight).codebook is not None:
        return None
    named = copier.old.wanted[other] if isinstance(other, str) else ""
    return _changed(copier, layer, named, factor, shift)


def _effect(node: Add | Binary, constant: Array, value_first: bool) -> tuple[Array, Array] | None:
    """Return the factor and the shift that an operator amounts to for each channel."""
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    function = "add" if isinstance(node, Add) else node.function
    if function == "add":
        return one, constant
    if function == "mul":
        return constant, zero
    if function == "sub":
        return (one, -constant) if value_first else (-one, constant)
    if function == "div" and value_first and constant.all():
        return 1 / constant, zero
    return None


def _spatial(copier: Copier, layer: AffineLayer) -> int:
    return 0 if isinstance(layer, Linear) else len(copier.new.tensors[layer.weight].shape) - 2


def _for_channels(constant: Array, shape: Shape, axis: int) -> Array | None:
    """Return a constant that depends on the channel alone as a vector, or None if it depends on more."""
    if constant.ndim > len(shape):
        return None
    sizes = (1,) * (len(shape) - constant.ndim) + constant.shape
    if any(size not in (1, shape[place] if place == axis else 1) for place, size in enumerate(sizes)):
        return None
    return np.broadcast_to(constant.reshape(-1), shape[axis])


def _changed(copier: Copier, layer: AffineLayer, constant: str, factor: Array, shift: Array) -> Value | None:
    """Return a layer's result with a factor and a shift, which come from the constant of that name."""
    new, weight = copier.new, copier.new.tensors[layer.weight]
    bias: Array = (0 if layer.bias is None else new.tensors[layer.bias]) * factor + shift
    with np.errstate(over="ignore"):
        scaled = _scaled(layer, weight, factor)
        if not (np.isfinite(scaled).all() and np.isfinite(np.float32(bias)).all()):
            return None
    name = new.wanted[layer.weight]
    changes: dict[str, Any] = {"weight": new.tensor(scaled, name), "bias": None}
    kept = new.keeps(bias, constant)
    named = constant if kept else _bias_name(name) if layer.bias is None else new.wanted[layer.bias]
    if layer.bias is not None or bias.any() or kept:
        changes["bias"] = new.tensor(bias, named)
    source = Value(layer.values[0], new.shapes[layer.values[0]])
    return new.emit(type(layer), (source,), **{**attributes_of(layer), **changes})


def _scaled(layer: AffineLayer, weight: Array, factor: Array) -> Array:
    """Return a layer's weights times a factor for each channel, as float32; the same array if all are 1."""
    if (factor == 1).all():
        return weight
    if isinstance(layer, ConvTranspose):
        parts = weight.reshape(layer.groups, -1, *weight.shape[1:])
        spread = factor.reshape(layer.groups, 1, weight.shape[1], *(1,) * (weight.ndim - 2))
        return (parts * spread).reshape(weight.shape).astype(np.float32)
    return (weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))).astype(np.float32)


def _bias_name(weight: str) -> str:
    """Return the name of the bias beside a weight, as PyTorch gives it: ``fc.bias``, or ``attention.in_proj_bias``."""
    stem = weight.removesuffix("weight")
    return f"{weight}.bias" if stem == weight else f"{stem}bias"
