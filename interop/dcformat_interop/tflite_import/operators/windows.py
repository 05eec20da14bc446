"""Sliding windows: their padding, and the pools."""

from __future__ import annotations

from collections.abc import Sequence

from dcformat.graph import AvgPool, MaxPool, Shape
from dcformat_interop.tflite_import.calls import TfliteCall, lowers
from dcformat_interop.tflite_import.items import CHANNELS_FIRST, TfliteItem, of_value

SAME, VALID = 0, 1


def strides(call: TfliteCall) -> Shape:
    """Return the strides along height and width, which must be at least 1."""
    found = call.options["stride_h"], call.options["stride_w"]
    if min(found) < 1:
        raise ValueError(f"strides: expected at least 1, found {found}")
    return found


def padding(
    call: TfliteCall,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int] = (1, 1),
) -> tuple[Shape, Shape]:
    """Return the padding before and after the last dimensions: with SAME, a result for each step of the stride."""
    kind = call.options["padding"]
    if kind not in (SAME, VALID):
        raise ValueError(f"padding: expected {SAME} or {VALID}, found {kind}")
    if kind == VALID:
        return (0, 0), (0, 0)
    totals = [
        max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        for length, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    before = tuple(total // 2 for total in totals)
    return before, tuple(total - first for total, first in zip(totals, before, strict=True))


@lowers("AVERAGE_POOL_2D")
@lowers("MAX_POOL_2D", moves_only=True)
def _pool(call: TfliteCall) -> TfliteItem:
    x, stride = call.stored(0, CHANNELS_FIRST), strides(call)
    kernel = call.options["filter_h"], call.options["filter_w"]
    if min(kernel) < 1:
        raise ValueError(f"filter: expected at least 1, found {kernel}")
    before, behind = padding(call, x.shape[2:], kernel, stride)
    attributes = {"kernel": kernel, "stride": stride, "padding": before, "padding_end": behind}
    if call.op_type == "MAX_POOL_2D":
        return of_value(call.emit(MaxPool, x, **attributes), CHANNELS_FIRST)
    return of_value(call.emit(AvgPool, x, **attributes, count_include_pad=False), CHANNELS_FIRST)
