"""Interpolation of images."""

from __future__ import annotations

from dcformat.graph import Resize
from dcformat_interop.tflite_import.calls import TfliteCall, lowers
from dcformat_interop.tflite_import.items import CHANNELS_FIRST, TfliteItem, of_value


@lowers("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def _resize(call: TfliteCall) -> TfliteItem:
    x, size = call.stored(0, CHANNELS_FIRST), call.ints(1, "a size")
    corners, half = call.options["align_corners"], call.options["half_pixel_centers"]
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: expected 2 sizes of at least 1, found {size}")
    if corners and half:
        raise ValueError("positions: expected align_corners or half_pixel_centers, found both")
    attributes = {
        "size": tuple(size),
        "scale": tuple(new / old for new, old in zip(size, x.shape[2:], strict=True)),
        "coordinates": "align_corners" if corners else "half_pixel" if half else "asymmetric",
    }
    if call.op_type == "RESIZE_BILINEAR":
        return of_value(call.emit(Resize, x, mode="linear", **attributes), CHANNELS_FIRST)
    rounding = "round_prefer_ceil" if corners or half else "floor"
    return of_value(call.emit(Resize, x, mode="nearest", rounding=rounding, **attributes), CHANNELS_FIRST)
