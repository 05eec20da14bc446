"""Changes of dtype. The importer rounds to integers by itself, after any operator whose result is quantised."""

from __future__ import annotations

import numpy as np

from dcformat_interop.lowering.composed import logical_not, truncated
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tflite_import.calls import TfliteCall, lowers
from dcformat_interop.tflite_import.items import TfliteItem, of_array, of_value


@lowers("QUANTIZE", "DEQUANTIZE", "DENSIFY", moves_only=True)
def _same_numbers(call: TfliteCall) -> TfliteItem:
    return call.item()


@lowers("CAST")
def _cast(call: TfliteCall) -> TfliteItem:
    source, target = call.tensor(), call.results[0]
    if source.quantization is not None or target.quantization is not None:
        raise Unsupported("of quantised integers")
    wanted, had = np.dtype(target.dtype), np.dtype(source.dtype)
    if wanted.kind not in "iufb":
        raise Unsupported(f"to {target.dtype}")
    array = call.item().array
    if array is not None:
        return of_array(array.astype(wanted), call.item().name)
    view, b = call.view(), call.builder
    assert view.value is not None
    if wanted.kind == "b" and had.kind != "b":
        return of_value(logical_not(b, b.binary("equal", view.value, 0.0)), view.axes)
    if wanted.kind in "iu" and had.kind == "f":
        return of_value(truncated(b, view.value), view.axes)
    return view
