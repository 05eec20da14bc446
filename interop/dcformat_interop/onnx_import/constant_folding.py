"""Evaluates operators whose inputs are all constant, with onnx's reference evaluator.

Results are counted before they are made: a constant may ask for any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat_interop.tensors import Budget

Array = npt.NDArray[Any]
Size = Callable[[Sequence[Array], Mapping[str, Any]], int]


def _broadcast(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    return prod(np.broadcast_shapes(*(array.shape for array in arrays)))


def _inputs(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    return sum(array.size for array in arrays)


def _filled(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    return prod(max(int(size), 0) for size in arrays[0].reshape(-1))


def _expanded(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    return prod(np.broadcast_shapes(arrays[0].shape, tuple(int(size) for size in arrays[1])))


def _tiled(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    return arrays[0].size * prod(int(count) for count in arrays[1].reshape(-1))


def _ranged(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    start, limit, step = (float(array.reshape(())) for array in arrays)
    return max(int((limit - start) / step) + 1, 0) if step else 0


def _gathered(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    return arrays[1].size * max(arrays[0].size, 1)


def _multiplied(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    a, b = arrays[0], arrays[1]
    return max(a.size, 1) * max(b.shape[-1] if b.ndim else 1, 1)


def _padded(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    pads = arrays[1].reshape(-1) if len(arrays) > 1 else attributes.get("pads", ())
    return (arrays[0].size + 1) * prod(1 + abs(int(pad)) for pad in pads)


def _one_hot(arrays: Sequence[Array], attributes: Mapping[str, Any]) -> int:
    return int(arrays[0].size * max(int(arrays[1].reshape(-1)[0]), 0))


#: For each operator that is folded, the maximum number of elements of its results.
_SIZES: dict[str, Size] = {
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "Equal", "Greater", "GreaterOrEqual",
         "Less", "LessOrEqual", "And", "Or", "Xor", "Where", "PRelu", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
         "BitShift", "Clip"),
        _broadcast,
    ),
    **dict.fromkeys(
        ("Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Sin", "Cos",
         "Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh", "Reciprocal", "Not", "BitwiseNot",
         "IsNaN", "IsInf", "Relu", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "HardSigmoid", "Cast",
         "CastLike", "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat",
         "Shape", "Size", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
         "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin", "CumSum", "Trilu", "Softmax",
         "LogSoftmax", "GatherElements", "ScatterND", "ScatterElements", "Compress", "TopK", "Unique", "EyeLike",
         "DepthToSpace", "SpaceToDepth", "LayerNormalization"),
        _inputs,
    ),
    "NonZero": lambda arrays, attributes: arrays[0].size * max(arrays[0].ndim, 1),
    "ConstantOfShape": _filled, "Expand": _expanded, "Tile": _tiled, "Range": _ranged, "Gather": _gathered,
    "GatherND": _gathered, "MatMul": _multiplied, "Gemm": lambda arrays, attributes: arrays[0].size * arrays[1].size,
    "Pad": _padded, "OneHot": _one_hot,
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"),
                    lambda arrays, attributes: int(arrays[0].reshape(-1)[0])),
}  # fmt: skip


def can_fold(node: Any) -> bool:
    """Return whether an operator is folded if its inputs are constant."""
    return node.domain in ("", "ai.onnx") and node.op_type in _SIZES


def fold(
    node: Any, arrays: Sequence[Array | None], attributes: Mapping[str, Any], opset: int, budget: Budget
) -> list[Array | None]:
    """Return the results of a node whose inputs are `arrays`, None for those that are left out."""
    present = [array for array in arrays if array is not None]
    budget.take(8 * _SIZES[node.op_type](present, attributes), f"result of {node.op_type} {node.name!r}")
    return evaluate(node, arrays, opset)


def evaluate(node: Any, arrays: Sequence[Array | None], opset: int) -> list[Array | None]:
    """Return the outputs that onnx's reference evaluator gives a node of ONNX, None for those without a name.

    Raises
    ------
    ValueError
        The evaluator refuses the node or its inputs.
    """
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {name: array for name, array in zip(node.input, arrays, strict=True) if name and array is not None}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    # A model states the version of its operators; the evaluator assumes the newest for a node alone.
    graph = helper.make_graph([node], "constant", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = iter(ReferenceEvaluator(model).run(None, feeds))
    except Exception as error:  # the evaluator raises errors of many classes
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from error
    return [np.asarray(next(results)) if name else None for name in node.output]
