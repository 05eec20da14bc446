"""Reductions, along any dimensions wherever they are stored."""

from __future__ import annotations

import numpy as np

from dcformat_interop.tflite_import.calls import TfliteCall, lowers
from dcformat_interop.tflite_import.items import TfliteItem, of_array, of_value

_FUNCTIONS = {
    "MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max", "REDUCE_MIN": "min", "REDUCE_PROD": "prod",
    "REDUCE_ANY": "max", "REDUCE_ALL": "min",
}  # fmt: skip


@lowers(*_FUNCTIONS)
def _reduce(call: TfliteCall) -> TfliteItem:
    axes = sorted({call.axis(axis) for axis in call.ints(1, "axes")})
    keep, array = call.options["keep_dims"], call.item().array
    if array is not None and array.dtype.kind in "iu" and call.op_type == "REDUCE_PROD":
        return of_array(np.prod(array, tuple(axes), keepdims=keep, dtype=array.dtype))
    return _reduced(call, _FUNCTIONS[call.op_type], axes, keep)


@lowers("ARG_MAX", "ARG_MIN")
def _arg(call: TfliteCall) -> TfliteItem:
    axes = call.ints(1, "an axis")
    if len(axes) != 1:
        raise ValueError(f"axis: expected one, found {len(axes)}")
    return _reduced(call, call.op_type.replace("_", "").lower(), [call.axis(axes[0])], False)


def _reduced(call: TfliteCall, function: str, axes: list[int], keep: bool) -> TfliteItem:
    view = call.view()
    assert view.value is not None
    places = [view.axes[axis] for axis in axes]
    made = call.builder.reduce(function, view.value, places, keep)
    if keep:
        return of_value(made, view.axes)
    left = [place for axis, place in enumerate(view.axes) if axis not in axes]
    return of_value(made, [sorted(left).index(place) for place in left])
