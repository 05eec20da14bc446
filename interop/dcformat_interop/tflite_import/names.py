"""Short names for weights: TensorFlow names a constant after all operators that became one."""

from __future__ import annotations

from collections.abc import Mapping

#: The ends of the names of operators with weights.
_LAYERS = ("Conv2D", "depthwise", "MatMul", "conv2d_transpose", "kernel")

#: The ends that say nothing about a layer.
_ENDS = (
    *_LAYERS, "BiasAdd", "ReadVariableOp", "resource", "FusedBatchNormV3", "Relu", "add", "Add", "bias",
    "weight", "weights", "Reshape", "Const", "read",
)  # fmt: skip


def layer_names(names: Mapping[int, str]) -> dict[int, str]:
    """Return the layer to which each constant belongs, without the part that all of them begin with."""
    layers = {number: _layer(name) for number, name in names.items()}
    first = {name.partition("/")[0] for name in layers.values() if "/" in name}
    if len(first) != 1:
        return layers
    return {number: name.removeprefix(f"{next(iter(first))}/") for number, name in layers.items()}


def _layer(name: str) -> str:
    parts = [part for part in name.split(";") if part]
    chosen = next((part for part in parts if _last(part) in _LAYERS), parts[0] if parts else "")
    words = chosen.split("/")
    while len(words) > 1 and _last(words[-1]) in _ENDS:
        words.pop()
    return "/".join(words)


def _last(name: str) -> str:
    """Return the last part of a name, without the number of an output or a copy."""
    return name.rpartition("/")[2].partition(":")[0].rstrip("0123456789")
