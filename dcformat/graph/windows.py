"""Sliding windows, and the pools that use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from dcformat.errors import GraphError, ShapeError
from dcformat.graph.node import Node, Shape, check_at_least, check_count
from dcformat.records import record


def window_count(
    node: Node, size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int = 1,
    ceil_mode: bool = False,
) -> int:  # fmt: skip
    """Return a sliding window's output length, as in PyTorch: the last window of ceil mode starts inside the input.

    `padding` is that before and after the input.
    """
    before, after = padding
    span = size + before + after - dilation * (kernel - 1) - 1
    if span < 0:
        raise ShapeError(f"{node.kind} input size", got=size, expected=f"room for a window of {kernel}")
    out = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + before:
        out -= 1
    return out


@record
class _Pool(Node):
    """The value is ``(..., channels, *spatial)``, and each attribute has a value for each spatial dimension, 1 or 2.

    `padding` is that before the input, and `padding_end` that behind it.
    """

    kernel: Shape
    stride: Shape
    padding: Shape = (0, 0)
    padding_end: Shape = (0, 0)
    ceil_mode: bool = False

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        spatial = len(self.kernel)
        if spatial not in (1, 2):
            raise GraphError(f"{self.kind} kernel", got=self.kernel, expected="1 or 2 values")
        shape = inputs[0]
        if len(shape) <= spatial:
            raise ShapeError(f"{self.kind} input", got=shape, expected=f"channels and {spatial} spatial dimensions")
        for field, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("padding_end", 0)):
            check_count(self, getattr(self, field), spatial, field)
            check_at_least(self, getattr(self, field), least, field)
        # Every window must hold an element of the input.
        for field in ("padding", "padding_end"):
            if any(p >= k for p, k in zip(getattr(self, field), self.kernel, strict=True)):
                raise GraphError(f"{self.kind} {field}", got=getattr(self, field), expected="less than the kernel")
        pads = zip(self.padding, self.padding_end, strict=True)
        lengths = (
            window_count(self, size, kernel, stride, pad, ceil_mode=self.ceil_mode)
            for size, kernel, stride, pad in zip(shape[-spatial:], self.kernel, self.stride, pads, strict=True)
        )
        return (*shape[:-spatial], *lengths)


@record
class MaxPool(_Pool):
    """Maximum over windows; padding counts as minus infinity."""

    kind: ClassVar[str] = "max_pool"


@record
class AvgPool(_Pool):
    """Mean over windows; with `count_include_pad` the padding counts as zeros, as in PyTorch."""

    count_include_pad: bool = True
    kind: ClassVar[str] = "avg_pool"
