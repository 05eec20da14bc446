"""The meaning of a tensor, and the order in which a value's dimensions are stored.

TensorFlow Lite has the channels last, and a graph of `dcformat` has them before the spatial dimensions. So that no
operator moves them, the importer remembers for each value which stored dimension is which, and moves dimensions only
where an operator needs them in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Shape
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.tflite_import.quantization import Quantization

Array = npt.NDArray[Any]
Axes = tuple[int, ...]

#: The places at which convolutions and pools store batch, height, width and channels.
CHANNELS_FIRST: Axes = (0, 2, 3, 1)


@dataclass(frozen=True, slots=True, eq=False)
class TfliteItem:
    """A value of the graph, or a constant.

    Attributes
    ----------
    value : Value or None
    axes : tuple of int
        For each dimension of the tensor, the dimension of `value` that it is.
    shape : tuple of int
        The tensor's shape. If it is not that of `value` in the order of `axes`, the elements are still to be reshaped.
    array : ndarray or None
        The numbers of a constant; None for a value.
    name : str
        The name of the tensor from which a constant comes.
    fits : Quantization or None
        Integers that stand for exactly these numbers.
    """

    value: Value | None
    axes: Axes
    shape: Shape
    array: Array | None = None
    name: str = ""
    fits: Quantization | None = None

    @property
    def unshaped(self) -> Shape:
        """The shape before the elements are reshaped."""
        assert self.value is not None
        return tuple(self.value.shape[axis] for axis in self.axes)


def identity(rank: int) -> Axes:
    """Return the axes of a value whose dimensions have the tensor's order."""
    return tuple(range(rank))


def of_value(value: Value, axes: Sequence[int] | None = None) -> TfliteItem:
    """Return the item of a value whose dimensions are stored at `axes`; by default, in the tensor's order."""
    axes = identity(len(value.shape)) if axes is None else tuple(axes)
    return TfliteItem(value, axes, tuple(value.shape[axis] for axis in axes))


def of_array(array: npt.ArrayLike, name: str = "") -> TfliteItem:
    """Return the item of a constant."""
    values = np.asarray(array)
    return TfliteItem(None, identity(values.ndim), values.shape, values, name)


def stored_order(axes: Axes) -> list[int]:
    """Return for each stored dimension the tensor's dimension."""
    return [axes.index(place) for place in range(len(axes))]


def settled(builder: GraphBuilder, item: TfliteItem) -> TfliteItem:
    """Return a value's item with no reshape left to do."""
    if item.shape == item.unshaped:
        return item
    value = builder.reshape(_moved(builder, item, identity(len(item.axes))), item.shape)
    return replace(of_value(value), fits=item.fits)


def stored(builder: GraphBuilder, item: TfliteItem, axes: Axes) -> Value:
    """Return a value with its dimensions stored at `axes`."""
    return _moved(builder, settled(builder, item), axes)


def plain(builder: GraphBuilder, item: TfliteItem) -> Value:
    """Return a value with its dimensions in the tensor's order."""
    return stored(builder, item, identity(len(item.shape)))


def _moved(builder: GraphBuilder, item: TfliteItem, axes: Axes) -> Value:
    order = [0] * len(axes)
    for place, wanted in enumerate(axes):
        order[wanted] = item.axes[place]
    assert item.value is not None
    return builder.transpose(item.value, order)


def reshaped(builder: GraphBuilder, item: TfliteItem, shape: Shape) -> TfliteItem:
    """Return a value's elements in another shape; they are moved only when an operator needs that."""
    if prod(shape) != prod(item.shape):
        raise ValueError(f"shape: expected {prod(item.shape)} elements, found {shape}")
    if item.shape != item.unshaped or [n for n in shape if n != 1] != [n for n in item.shape if n != 1]:
        if item.axes != identity(len(item.axes)):
            return replace(item, shape=shape)
        assert item.value is not None
        return replace(of_value(builder.reshape(item.value, shape)), fits=item.fits)
    return replace(_with_ones(builder, item, shape), fits=item.fits)


def _with_ones(builder: GraphBuilder, item: TfliteItem, shape: Shape) -> TfliteItem:
    """Return a value with dimensions of size 1 inserted or removed, and the others in place.

    The first of them, such as the batch, are stored first, and the others last.
    """
    large = [place for place, size in enumerate(shape) if size != 1]
    kept = [axis for axis, size in zip(item.axes, item.shape, strict=True) if size != 1]
    by_storage = [place for _, place in sorted(zip(kept, large, strict=True))]
    leading = list(range(large[0] if large else len(shape)))
    order = [*leading, *by_storage, *(place for place, size in enumerate(shape) if size == 1 and place not in leading)]
    if by_storage == large:
        order = list(range(len(shape)))
    assert item.value is not None
    value = builder.reshape(item.value, tuple(shape[place] for place in order))
    return of_value(value, [order.index(place) for place in range(len(shape))])


def flattened(builder: GraphBuilder, item: TfliteItem) -> tuple[Value, Array | None]:
    """Return all elements of a value in a row, ``(1, elements)``, in the order in which they are stored.

    The second result has the number of each element in the tensor's order; it is None if the two orders are the same.
    """
    assert item.value is not None
    axes = item.axes
    row = builder.reshape(item.value, (1, prod(item.shape)))
    numbers = np.arange(prod(item.shape)).reshape(item.unshaped).transpose(stored_order(axes)).reshape(-1)
    return row, None if (numbers[1:] > numbers[:-1]).all() else numbers
