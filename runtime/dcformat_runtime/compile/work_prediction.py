"""Predicts the work of one input by arithmetic on shapes and numbers of entries.

A step is a multiply-add, or one element of a simpler operator: about a nanosecond of compiled code.
"""

from __future__ import annotations

from math import prod

from dcformat.graph import Add, AvgPool, Conv, Linear, MaxPool, Reduce, Shape, Softmax
from dcformat_runtime.elementwise_layers import Elementwise
from dcformat_runtime.network import Layer, Network

#: The steps of an exponential, and of a call of NumPy.
_EXPONENTIAL, _CALL = 32, 1 << 12
#: The steps that make a layer's tables and operators, for the layer and for each entry.
_LAYER, _ENTRY = 1 << 19, 1 << 6


def steps(network: Network, backend: str, exact: bool) -> int:
    """Return the steps of one input through a network; `exact` stands for ``deterministic=True``."""
    ends = prod(network.input_shape) + network.outputs
    return ends + sum(_layer(layer, backend == "numpy", exact) for layer in network.layers)


def making_steps(network: Network) -> int:
    """Return the steps that make a network ready; each layer has its own tables and operators in every plan."""
    entries = sum(layer.matrix.nnz for layer in network.layers if layer.matrix is not None)
    return _LAYER * len(network.layers) + _ENTRY * entries


def _layer(layer: Layer, numpy: bool, exact: bool) -> int:
    node, source, out = layer.node, layer.in_shapes[0], prod(layer.out_shape)
    total = out + (_CALL if numpy else 0)
    if layer.matrix is not None:
        # The NumPy backend multiplies all elements, or in exact form only the entries.
        entries = layer.matrix.size if numpy and not exact else layer.matrix.nnz
        total += entries * prod(layer.conv_shape[1:]) if isinstance(node, Conv) else entries
        if numpy and exact:
            total += entries * _CALL if isinstance(node, Conv) else layer.matrix.size // layer.matrix.rows * _CALL
    if isinstance(node, Conv) and layer.matrix is not None:
        kernel = layer.matrix.shape[2:]
        total += _copies(node, source, layer.conv_shape, kernel, numpy)
        if layer.residual is not None:
            total += out
        if layer.pool is not None:
            total += out * _window(layer.pool, layer.conv_shape, numpy)
    elif isinstance(node, (MaxPool, AvgPool)):
        total += out * _window(node, source, numpy)
    elif isinstance(node, Reduce):
        total += prod(source)
    elif isinstance(node, Elementwise):
        total += _EXPONENTIAL * len(node.nodes) * out
    elif isinstance(node, Add):
        total += len(node.inputs) * out
    elif isinstance(node, Softmax):
        total += _EXPONENTIAL * out
    elif not isinstance(node, Linear):
        total += out
    return total


def _window(node: MaxPool | AvgPool, source: Shape, numpy: bool) -> int:
    """Return the number of elements in a pool's window; kernels skip the padding."""
    return prod(k if numpy else min(k, size) for k, size in zip(node.kernel, source[1:], strict=True))


def _copies(node: Conv, source: Shape, out: Shape, kernel: Shape, numpy: bool) -> int:
    """Return the elements in a convolution's copies of its input: one copy for each kernel column or element."""
    lines = out[1] * node.stride[0] + (kernel[0] - 1) * node.dilation[0]
    if numpy:
        lines = out[1] * kernel[0]
    return source[0] * kernel[1] * lines * out[2]
