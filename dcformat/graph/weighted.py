"""Operators with weights: linear layers, convolutions, and products of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from dcformat.errors import GraphError, ShapeError
from dcformat.graph.node import (
    Node,
    Shape,
    broadcast,
    check_at_least,
    check_count,
    check_rank,
    check_tensor_shape,
    weight_shape,
)
from dcformat.graph.windows import window_count
from dcformat.records import record


@record
class _Weighted(Node):
    weight: str
    bias: str | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


@record
class Linear(_Weighted):
    """``y = x @ weight.T + bias``; x is ``(..., in_features)``, and the weight ``(out_features, in_features)``."""

    kind: ClassVar[str] = "linear"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        out, features = weight_shape(self, self.weight, tensors, 2)
        if inputs[0][-1:] != (features,):
            raise ShapeError(f"linear {self.weight!r} input", got=inputs[0], expected=f"{features} in the last place")
        check_tensor_shape(self, self.bias, tensors, (out,))
        return (*inputs[0][:-1], out)


@record
class Conv(_Weighted):
    """Cross-correlation with zero padding, over 1 or 2 spatial dimensions.

    The value is ``(..., in_channels, *spatial)``, and the weight ``(out_channels, in_channels / groups, *kernel)``.
    Each attribute but `groups` has a value for each spatial dimension. `padding` is that before the input, and
    `padding_end` that behind it.
    """

    stride: Shape = (1, 1)
    padding: Shape = (0, 0)
    padding_end: Shape = (0, 0)
    dilation: Shape = (1, 1)
    groups: int = 1
    kind: ClassVar[str] = "conv"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        out, per_group, *kernel = weight_shape(self, self.weight, tensors, 3, 4)
        channels, size = _spatial(self, inputs[0], len(kernel))
        for field, least in (("stride", 1), ("dilation", 1), ("padding", 0), ("padding_end", 0)):
            check_count(self, getattr(self, field), len(kernel), field)
            check_at_least(self, getattr(self, field), least, field)
        if self.groups < 1 or out % self.groups or channels != per_group * self.groups:
            raise ShapeError(
                f"conv {self.weight!r} with {self.groups} groups",
                got=f"{channels} input and {out} output channels",
                expected=f"{per_group} input channels a group, output channels divisible by the groups",
            )
        check_tensor_shape(self, self.bias, tensors, (out,))
        pads = zip(self.padding, self.padding_end, strict=True)
        windows = zip(size, kernel, self.stride, pads, self.dilation, strict=True)
        return (*inputs[0][: -len(kernel) - 1], out, *(window_count(self, *window) for window in windows))


@record
class ConvTranspose(_Weighted):
    """The transpose of a convolution: each input element adds its multiple of the kernel to the output.

    The value is ``(..., in_channels, *spatial)``, and the weight ``(in_channels, out_channels / groups, *kernel)``.
    `padding` and `padding_end` are cut off the output, to which `output_padding` adds positions at the end.
    """

    stride: Shape = (1, 1)
    padding: Shape = (0, 0)
    padding_end: Shape = (0, 0)
    dilation: Shape = (1, 1)
    output_padding: Shape = (0, 0)
    groups: int = 1
    kind: ClassVar[str] = "conv_transpose"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        in_channels, per_group, *kernel = weight_shape(self, self.weight, tensors, 3, 4)
        channels, size = _spatial(self, inputs[0], len(kernel))
        least = {"stride": 1, "dilation": 1, "padding": 0, "padding_end": 0, "output_padding": 0}
        for field, smallest in least.items():
            check_count(self, getattr(self, field), len(kernel), field)
            check_at_least(self, getattr(self, field), smallest, field)
        if any(extra >= max(s, d) for extra, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True)):
            raise GraphError(
                "conv_transpose output_padding", got=self.output_padding, expected="less than stride or dilation"
            )
        if self.groups < 1 or channels != in_channels or channels % self.groups:
            raise ShapeError(
                f"conv_transpose {self.weight!r} with {self.groups} groups", got=f"{channels} input channels",
                expected=f"{in_channels}, divisible by the groups",
            )  # fmt: skip
        out = per_group * self.groups
        check_tensor_shape(self, self.bias, tensors, (out,))
        lengths = tuple(
            (size[i] - 1) * self.stride[i] + self.dilation[i] * (kernel[i] - 1) + 1 + self.output_padding[i]
            - self.padding[i] - self.padding_end[i]
            for i in range(len(kernel))
        )  # fmt: skip
        if min(lengths) < 1:
            raise ShapeError("conv_transpose result", got=lengths, expected="at least one position")
        return (*inputs[0][: -len(kernel) - 1], out, *lengths)


@record
class MatMul(Node):
    """``a @ b`` as in NumPy, for operands of at least two dimensions whose leading dimensions broadcast."""

    kind: ClassVar[str] = "matmul"
    arity: ClassVar[int | None] = 2
    takes_tensors: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        a, b = inputs
        if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
            raise ShapeError("matmul operands", got=(a, b), expected="(..., n, k) and (..., k, m)")
        return check_rank(self, (*broadcast(self, (a[:-2], b[:-2])), a[-2], b[-1]))


def _spatial(node: Node, shape: Shape, count: int) -> tuple[int, Shape]:
    if len(shape) <= count:
        raise ShapeError(f"{node.kind} input", got=shape, expected=f"channels and {count} spatial dimensions")
    return shape[-count - 1], shape[-count:]
