"""The writer of ONNX files with dense weights, which other runtimes can read. It needs the onnx package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Node,
    Reduce,
    ReLU,
    Softmax,
)
from dcformat.model import Model, Tensor

#: The operator set and the file version, both old enough for every recent runtime.
_OPSET, _IR_VERSION = 13, 8


def dense(tensor: Tensor) -> npt.NDArray[np.float32]:
    """Return a tensor's values as a dense float32 array of its shape."""
    values = tensor.to_dense()
    if tensor.dtype == "bfloat16":
        return (values.astype("<u4") << 16).view("<f4").reshape(tensor.shape)
    out = values.astype(np.float32)
    return out if tensor.scale == 1.0 else out * np.float32(tensor.scale)


def to_onnx(model: Model) -> bytes:
    """Return the network as ONNX without preprocessing: input ``x`` (float32, ``(batch, ...)``) and output ``y``.

    Raises
    ------
    ValueError
        The model holds no network, or one with an operator that is not written yet.
    ImportError
        The onnx package is not installed.
    """
    from onnx import TensorProto, helper, numpy_helper

    if model.graph is None:
        raise ValueError("model: expected a network, found only tensors")
    network = model.graph
    shapes = network.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    names = ["x", *(f"v{i}" for i in range(1, len(network.nodes))), "y"] if network.nodes else ["x"]
    used = {name for node in network.nodes for name in node.tensors}
    # The prefix keeps a tensor called "x" apart from the input.
    weights = [numpy_helper.from_array(dense(model.tensors[name]), f"w:{name}") for name in sorted(used)]
    nodes = []
    for number, node in enumerate(network.nodes):
        if type(node) not in _CONVERTERS or len(node.values) != len(node.inputs):
            raise ValueError(f"node {number}: expected an operator that ONNX files get, found {node.kind}, not yet one")
        inputs = [names[i] for i in node.values]
        nodes += _CONVERTERS[type(node)](helper.make_node, node, inputs, names[number + 1])
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        nodes,
        "dcformat",
        [value("x", TensorProto.FLOAT, ["batch", *shapes[0]])],
        [value("y", TensorProto.FLOAT, ["batch", *shapes[-1]])],
        weights,
    )
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(made.SerializeToString())


def _weights(node: Linear | Conv) -> list[str]:
    return [f"w:{name}" for name in node.tensors]


def _linear(make: Any, node: Linear, inputs: Sequence[str], output: str) -> list[Any]:
    return [make("Gemm", [*inputs, *_weights(node)], [output], transB=1)]


def _conv(make: Any, node: Conv, inputs: Sequence[str], output: str) -> list[Any]:
    return [
        make(
            "Conv", [*inputs, *_weights(node)], [output], strides=node.stride, pads=(*node.padding, *node.padding_end),
            dilations=node.dilation, group=node.groups,
        )
    ]  # fmt: skip


def _pool(make: Any, node: MaxPool | AvgPool, inputs: Sequence[str], output: str) -> list[Any]:
    options: dict[str, Any] = {
        "kernel_shape": node.kernel, "strides": node.stride, "pads": (*node.padding, *node.padding_end),
        "ceil_mode": int(node.ceil_mode),
    }  # fmt: skip
    if isinstance(node, MaxPool):
        return [make("MaxPool", inputs, [output], **options)]
    return [make("AveragePool", inputs, [output], count_include_pad=int(node.count_include_pad), **options)]


def _reduce(make: Any, node: Reduce, inputs: Sequence[str], output: str) -> list[Any]:
    if node.axes != (1, 2) or node.keepdims or node.function not in ("mean", "max"):
        raise ValueError(f"{node}: expected a mean or maximum over height and width, found another, not yet written")
    pooled, operator = f"{output}:pooled", "GlobalAveragePool" if node.function == "mean" else "GlobalMaxPool"
    return [make(operator, inputs, [pooled]), make("Flatten", [pooled], [output])]


def _plain(operator: str, **options: Any) -> Callable[..., list[Any]]:
    return lambda make, node, inputs, output: [make(operator, inputs, [output], **options)]


_CONVERTERS: dict[type[Node], Callable[..., list[Any]]] = {
    Linear: _linear,
    Conv: _conv,
    MaxPool: _pool,
    AvgPool: _pool,
    ReLU: _plain("Relu"),
    Flatten: _plain("Flatten"),
    Softmax: _plain("Softmax", axis=1),
    Add: _plain("Sum"),
    Concat: _plain("Concat", axis=1),
    Reduce: _reduce,
}
