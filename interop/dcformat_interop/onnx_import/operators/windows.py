"""Pools. Those that the graph's own pools cannot do become maxima or sums of slices."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import AvgPool, MaxPool
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, lowers
from dcformat_interop.onnx_import.operators.weighted import per_dimension, spatial_padding

Array = npt.NDArray[Any]

#: Maximum number of positions of a kernel for which a pool becomes slices.
_MAX_SLICES = 256


class _Windows:
    """The windows of a pool: kernel, strides, dilations, padding, and the number of windows along each dimension."""

    def __init__(self, call: OnnxCall, x: Value) -> None:
        self.size = x.shape[2:]
        self.kernel = list(call.attr("kernel_shape"))
        count = len(self.size)
        if len(self.kernel) != count or count < 1:
            raise ValueError(f"kernel_shape: expected {count} values, found {self.kernel}")
        self.strides, self.dilations = per_dimension(call, "strides", count), per_dimension(call, "dilations", count)
        if min(*self.kernel, *self.strides, *self.dilations) < 1:
            raise ValueError("kernel_shape, strides, dilations: expected numbers of at least 1, found less")
        self.before, self.after = spatial_padding(call, self.size, self.kernel, self.strides, self.dilations)
        self.ceil_mode = bool(call.attr("ceil_mode", 0)) and call.attr("auto_pad", "NOTSET") == "NOTSET"
        self.count = [self._count(axis) for axis in range(count)]

    def _count(self, axis: int) -> int:
        size, before, after = self.size[axis], self.before[axis], self.after[axis]
        span = size + before + after - self.dilations[axis] * (self.kernel[axis] - 1) - 1
        if span < 0:
            raise ValueError(f"kernel_shape: expected a window that fits {size} positions, found {self.kernel}")
        stride: int = self.strides[axis]
        count: int = (span + (stride - 1 if self.ceil_mode else 0)) // stride + 1
        return count - 1 if self.ceil_mode and (count - 1) * stride >= size + before else count

    @property
    def plain(self) -> bool:
        """Whether the graph's own pools have such windows."""
        inside = all(pad < kernel for pads in (self.before, self.after)
                     for pad, kernel in zip(pads, self.kernel, strict=True))  # fmt: skip
        return len(self.size) <= 2 and set(self.dilations) == {1} and inside and min(*self.before, *self.after) >= 0

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the graph's own pools."""
        return {
            "kernel": tuple(self.kernel), "stride": tuple(self.strides), "padding": tuple(self.before),
            "padding_end": tuple(self.after), "ceil_mode": self.ceil_mode,
        }  # fmt: skip

    def slices(self, b: GraphBuilder, x: Value, filler: float) -> list[Value]:
        """Return, for each position of the kernel, the elements of all windows there."""
        if np.prod(self.kernel) > _MAX_SLICES:
            raise Unsupported(f"with a kernel of {self.kernel}, dilations {self.dilations} and padding {self.before}")
        needed = [
            (count - 1) * stride + (kernel - 1) * dilation + 1
            for count, stride, kernel, dilation in zip(
                self.count, self.strides, self.kernel, self.dilations, strict=True
            )
        ]
        after = [max(need - size - pad, 0) for need, size, pad in zip(needed, self.size, self.before, strict=True)]
        x = b.pad(x, [0, 0, *self.before], [0, 0, *after], value=filler)
        out = []
        for places in product(*(range(kernel) for kernel in self.kernel)):
            part = x
            for axis, place in enumerate(places):
                part = b.slice(part, axis + 2, place * self.dilations[axis], self.count[axis], self.strides[axis])
            out.append(part)
        return out

    def counts(self, include_pad: bool) -> Array:
        """Return how many positions each window has inside the input, or inside its padding too."""
        factors = []
        for axis in range(len(self.size)):
            low = -self.before[axis] if include_pad else 0
            high = self.size[axis] + (self.after[axis] if include_pad else 0)
            starts = np.arange(self.count[axis]) * self.strides[axis] - self.before[axis]
            places = starts[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]
            factors.append(((places >= low) & (places < high)).sum(1))
        out: Array = factors[0]
        for factor in factors[1:]:
            out = out[..., None] * factor
        return out


@lowers("MaxPool")
def _max_pool(call: OnnxCall) -> Value:
    if call.wants(1):
        raise Unsupported("with the places of the maxima as an output")
    x = call.value()
    windows = _Windows(call, x)
    if windows.plain:
        return call.emit(MaxPool, x, **windows.attributes())
    first, *parts = windows.slices(call.builder, x, float("-inf"))
    for part in parts:
        first = call.builder.binary("maximum", first, part)
    return first


@lowers("AveragePool")
def _average_pool(call: OnnxCall) -> Value:
    x, include = call.value(), bool(call.attr("count_include_pad", 0))
    windows = _Windows(call, x)
    if windows.plain:
        return call.emit(AvgPool, x, **windows.attributes(), count_include_pad=include)
    parts = windows.slices(call.builder, x, 0.0)
    total = call.builder.add(*parts) if len(parts) > 1 else parts[0]
    return call.builder.binary("mul", total, 1 / windows.counts(include), f"{call.name}.counts")


@lowers("LpPool")
def _lp_pool(call: OnnxCall) -> Value:
    b, p = call.builder, float(call.attr("p", 2))
    windows = _Windows(call, call.value())
    powers = b.binary("pow", b.unary("abs", call.value()), p)
    if windows.plain and not windows.ceil_mode:
        mean = call.emit(AvgPool, powers, **windows.attributes(), count_include_pad=True)
        total = b.binary("mul", mean, float(np.prod(windows.kernel)))
    else:
        parts = windows.slices(b, powers, 0.0)
        total = b.add(*parts) if len(parts) > 1 else parts[0]
    return b.binary("pow", total, 1 / p)
