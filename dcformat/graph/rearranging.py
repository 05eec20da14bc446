"""Operators that move elements without changing them, and `Resize`, which interpolates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import copysign, inf, isnan, prod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dcformat.errors import GraphError, ShapeError
from dcformat.graph.node import Node, Shape, as_float32, check_at_least, check_count, check_rank
from dcformat.records import record

PAD_MODES = ("constant", "edge", "reflect")
RESIZE_MODES = ("nearest", "linear")
#: How an output position x gives an input position (ONNX, Resize).
COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
#: How `nearest` rounds that position.
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


@record
class Flatten(Node):
    """Join all dimensions into one, in row-major order."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return (prod(inputs[0]),)


@record
class Reshape(Node):
    """The same elements in another shape, in row-major order; `Flatten` gives a single dimension."""

    shape: Shape
    kind: ClassVar[str] = "reshape"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        check_at_least(self, self.shape, 1, "shape")
        if len(self.shape) == 1:
            raise GraphError("reshape shape", got=self.shape, expected="no dimension, or two and more; or Flatten")
        if prod(self.shape) != prod(inputs[0]):
            raise ShapeError("reshape input", got=inputs[0], expected=f"the elements of {self.shape}")
        return check_rank(self, self.shape)


@record
class Transpose(Node):
    """Dimension i of the result is dimension ``order[i]`` of the operand."""

    order: tuple[int, ...]
    kind: ClassVar[str] = "transpose"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        if sorted(self.order) != list(range(len(inputs[0]))):
            raise GraphError("transpose order", got=self.order, expected=f"each of {len(inputs[0])} dimensions once")
        return tuple(inputs[0][axis] for axis in self.order)


@record
class Slice(Node):
    """`size` positions along `axis`, from `start`, `step` apart; a negative step goes backwards."""

    axis: int
    start: int
    size: int
    step: int = 1
    kind: ClassVar[str] = "slice"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        shape = inputs[0]
        if not 0 <= self.axis < len(shape):
            raise GraphError("slice axis", got=self.axis, expected=f"0 to {len(shape) - 1}")
        check_at_least(self, (self.size,), 1, "size")
        if self.step == 0:
            raise GraphError("slice step", got=0, expected="another number")
        last, length = self.start + (self.size - 1) * self.step, shape[self.axis]
        if not (0 <= self.start < length and 0 <= last < length):
            got = f"{self.size} positions from {self.start}, {self.step} apart"
            raise ShapeError("slice", got=got, expected=f"positions from 0 to {length - 1}")
        return (*shape[: self.axis], self.size, *shape[self.axis + 1 :])


@record
class Pad(Node):
    """Adds `before` and `after` positions to each dimension, with a `value` or with elements of the operand.

    `mode` is one of `PAD_MODES`; ``reflect`` does not repeat the edge. Only ``constant`` has a `value` other than 0.
    """

    before: Shape
    after: Shape
    mode: str = "constant"
    value: float = 0.0
    kind: ClassVar[str] = "pad"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        shape = inputs[0]
        for field in ("before", "after"):
            check_count(self, getattr(self, field), len(shape), field)
            check_at_least(self, getattr(self, field), 0, field)
        if self.mode not in PAD_MODES:
            raise GraphError("pad mode", got=repr(self.mode), expected=", ".join(PAD_MODES))
        if isnan(self.value) or (self.mode != "constant" and (self.value, copysign(1, self.value)) != (0, 1)):
            raise GraphError("pad value", got=self.value, expected="a number; 0 unless the mode is constant")
        if self.mode == "reflect":
            for size, before, after in zip(shape, self.before, self.after, strict=True):
                if size <= max(before, after):
                    raise ShapeError("pad input", got=shape, expected=f"more than {max(before, after)} positions")
        return tuple(b + size + a for b, size, a in zip(self.before, shape, self.after, strict=True))


@record
class Concat(Node):
    """The operands joined along a dimension, in the order of `inputs`."""

    axis: int = 0
    kind: ClassVar[str] = "concat"
    arity: ClassVar[int | None] = None
    takes_tensors: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        first, axis = inputs[0], self.axis
        if not 0 <= axis < len(first):
            raise GraphError("concat axis", got=axis, expected=f"0 to {len(first) - 1}")
        rest = first[:axis] + first[axis + 1 :]
        if any(len(shape) != len(first) or shape[:axis] + shape[axis + 1 :] != rest for shape in inputs):
            raise ShapeError("concat inputs", got=tuple(inputs), expected=f"shapes equal except in dimension {axis}")
        return (*first[:axis], sum(shape[axis] for shape in inputs), *first[axis + 1 :])


@record
class Tile(Node):
    """The operand repeated along each dimension."""

    repeats: Shape
    kind: ClassVar[str] = "tile"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        check_count(self, self.repeats, len(inputs[0]), "repeats")
        check_at_least(self, self.repeats, 1, "repeats")
        return tuple(size * count for size, count in zip(inputs[0], self.repeats, strict=True))


@record
class Gather(Node):
    """Entries of the first operand along `axis`, chosen by the second: an embedding, if the first is a tensor.

    Indices are whole numbers from ``-length`` to ``length - 1``; negative ones count from the end. A call with any
    other index fails.
    """

    axis: int = 0
    kind: ClassVar[str] = "gather"
    arity: ClassVar[int | None] = 2
    takes_tensors: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        data, indices = inputs
        if not 0 <= self.axis < len(data):
            raise GraphError("gather axis", got=self.axis, expected=f"0 to {len(data) - 1}")
        return check_rank(self, (*data[: self.axis], *indices, *data[self.axis + 1 :]))


@record
class Resize(Node):
    """Nearest or linear interpolation of the last ``len(size)`` dimensions.

    `scale` holds the ratio of output to input positions along each dimension, by which positions are computed
    (ONNX, Resize); `mode`, `coordinates` and `rounding` are one of `RESIZE_MODES`, `COORDINATES` and `ROUNDINGS`.
    Linear interpolation does not round, and keeps the default of `rounding`.
    """

    size: Shape
    scale: tuple[float, ...]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    kind: ClassVar[str] = "resize"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        shape, count = inputs[0], len(self.size)
        for field, known in (("mode", RESIZE_MODES), ("coordinates", COORDINATES), ("rounding", ROUNDINGS)):
            if getattr(self, field) not in known:
                raise GraphError(f"resize {field}", got=repr(getattr(self, field)), expected=", ".join(known))
        check_at_least(self, self.size, 1, "size")
        check_count(self, self.scale, count, "scale")
        if any(not 0 < as_float32(scale) < inf for scale in self.scale):
            raise GraphError("resize scale", got=self.scale, expected="finite float32 numbers above 0")
        if self.mode == "linear" and self.rounding != ROUNDINGS[2]:
            raise GraphError("resize rounding", got=self.rounding, expected=f"{ROUNDINGS[2]}, as linear does not round")
        if not 1 <= count <= len(shape):
            raise ShapeError("resize input", got=shape, expected=f"{count} dimensions to interpolate")
        return (*shape[:-count], *self.size)

    def positions(self, dim: int, length: int) -> npt.NDArray[np.float64]:
        """Return the input position of each output position along the `dim`-th of the interpolated dimensions.

        Positions are computed in float32, as the specification demands. For ``nearest``, they are whole numbers. They
        may lie beyond the `length` input positions.
        """
        size, scale = self.size[dim], np.float32(self.scale[dim])
        out = np.arange(size, dtype=np.float32)
        if self.coordinates == "align_corners":
            single = out * np.float32(length - 1) / np.float32(max(size - 1, 1))
        elif self.coordinates == "asymmetric":
            single = out / scale
        elif self.coordinates == "pytorch_half_pixel" and size == 1:
            single = out
        else:
            single = (out + np.float32(0.5)) / scale - np.float32(0.5)
        at = single.astype(np.float64)
        if self.mode == "linear":
            return at
        if self.rounding == "floor":
            return np.floor(at)
        if self.rounding == "ceil":
            return np.ceil(at)
        return np.ceil(at - 0.5) if self.rounding == "round_prefer_floor" else np.floor(at + 0.5)
