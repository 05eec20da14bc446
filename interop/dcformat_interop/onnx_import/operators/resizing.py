"""Resize and Upsample: interpolations that `dcformat.graph` lacks become products with small sparse matrices."""

from __future__ import annotations

from math import floor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Linear, Resize
from dcformat.graph.rearranging import COORDINATES, RESIZE_MODES, ROUNDINGS
from dcformat_interop.graph_builder import Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.constant_folding import evaluate
from dcformat_interop.onnx_import.items import OnnxCall, lowers

Array = npt.NDArray[Any]


class _Scaling(NamedTuple):
    """The sizes and scales of all dimensions, and how positions are computed."""

    sizes: list[int]
    scales: list[float]
    mode: str
    coordinates: str
    rounding: str
    roi: list[float]


@lowers("Resize", "Upsample")
def _resize(call: OnnxCall) -> Value:
    scaling, shape = _scaling(call), call.shape()
    if min(scaling.sizes, default=1) < 1:
        raise Unsupported("with an empty result")
    changed = [
        axis for axis, (size, scale) in enumerate(zip(scaling.sizes, scaling.scales, strict=True))
        if size != shape[axis] or scale != 1 or scaling.coordinates == "tf_crop_and_resize"
    ]  # fmt: skip
    if not changed:
        return call.value()
    spatial = call.rank - min(changed)
    native = (
        spatial <= 2 and scaling.mode in RESIZE_MODES and scaling.coordinates in COORDINATES
        and scaling.rounding in ROUNDINGS and not call.attr("antialias", 0)
    )  # fmt: skip
    if native:
        return call.emit(
            Resize, call.value(), size=tuple(scaling.sizes[-spatial:]), scale=tuple(scaling.scales[-spatial:]),
            mode=scaling.mode, coordinates=scaling.coordinates,
            **({"rounding": scaling.rounding} if scaling.mode == "nearest" else {}),
        )  # fmt: skip
    value = call.value()
    for axis in changed:
        value = _by_matrix(call, value, axis, scaling)
    return value


def _scaling(call: OnnxCall) -> _Scaling:
    shape, rank = call.shape(), call.rank
    mode = call.attr("mode", "nearest")
    if call.op_type == "Upsample" or call.opset < 11:
        scales = call.attr("scales") if call.op_type == "Upsample" and call.opset < 9 else call.const(1, "scales")
        factors = [float(scale) for scale in np.asarray(scales).reshape(-1)]
        sizes = [floor(size * scale) for size, scale in zip(shape, factors, strict=True)]
        return _Scaling(sizes, factors, mode.replace("bilinear", "linear"), "asymmetric", "floor", [])
    axes = [call.axis(axis) for axis in call.attr("axes", range(rank))]
    sizes, factors = list(shape), [1.0] * rank
    if call.has(3):
        wanted = call.ints(3, "sizes")
        policy = call.attr("keep_aspect_ratio_policy", "stretch")
        wanted, ratios = _kept_ratio([shape[axis] for axis in axes], wanted, policy)
    else:
        ratios = [float(scale) for scale in call.const(2, "scales").reshape(-1)]
        wanted = [floor(shape[axis] * ratio) for axis, ratio in zip(axes, ratios, strict=True)]
    for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
        sizes[axis], factors[axis] = size, ratio
    roi = [0.0] * rank + [1.0] * rank
    if call.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        given = [float(place) for place in call.const(1, "a region").reshape(-1)]
        for number, axis in enumerate(axes):
            roi[axis], roi[axis + rank] = given[number], given[number + len(axes)]
    return _Scaling(
        sizes, factors, mode, call.attr("coordinate_transformation_mode", "half_pixel"),
        call.attr("nearest_mode", "round_prefer_floor"), roi,
    )  # fmt: skip


def _kept_ratio(shape: list[int], wanted: list[int], policy: str) -> tuple[list[int], list[float]]:
    ratios = [size / have for size, have in zip(wanted, shape, strict=True)]
    if policy == "stretch":
        return wanted, ratios
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [floor(ratio * have + 0.5) for have in shape], [ratio] * len(shape)


def _by_matrix(call: OnnxCall, value: Value, axis: int, scaling: _Scaling) -> Value:
    call.take(value.shape[axis] * (value.shape[axis] + scaling.sizes[axis]))
    b, matrix = call.builder, _matrix(call, axis, value.shape[axis], scaling)
    shift, matrix = matrix[0], matrix[1:] - matrix[0]
    name = f"{call.name}.interpolation"
    if not shift.any() and ((matrix == 0) | (matrix == 1)).all() and (matrix.sum(0) == 1).all():
        return b.gather(value, matrix.argmax(0), axis, name)
    order = [i for i in range(len(value.shape)) if i != axis] + [axis]
    bias = call.tensor(shift, f"{name}.bias") if shift.any() else None
    made = b.emit(Linear, (b.transpose(value, order),), weight=call.tensor(matrix.T, name), bias=bias)
    return b.transpose(made, np.argsort(order).tolist())


def _matrix(call: OnnxCall, axis: int, size: int, scaling: _Scaling) -> Array:
    """Return the results for a vector of zeros and for each unit vector."""
    from onnx import helper

    rank, kept = call.rank, ("antialias", "cubic_coeff_a", "exclude_outside", "extrapolation_value")
    node = helper.make_node(
        "Resize", ["x", "roi", "scales", "sizes" if call.has(3) else ""], ["y"], mode=scaling.mode,
        coordinate_transformation_mode=scaling.coordinates, nearest_mode=scaling.rounding,
        **{name: call.attr(name) for name in kept if call.attr(name) is not None},
    )  # fmt: skip
    roi = np.array([scaling.roi[axis], scaling.roi[axis + rank]] if scaling.roi else [0, 1], np.float32)
    scale, sizes = np.array([scaling.scales[axis]], np.float32), None
    if call.has(3):
        scale, sizes = np.array([], np.float32), np.array([scaling.sizes[axis]], np.int64)
    units = np.concatenate([np.zeros((1, size)), np.eye(size)]).astype(np.float32)
    rows = (evaluate(node, [unit, roi, scale, sizes], max(call.opset, 13))[0] for unit in units)
    return np.stack([row for row in rows if row is not None])
