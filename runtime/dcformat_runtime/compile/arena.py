"""Places a network's values in the arena of a call."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from dcformat.graph import Concat, Conv, Flatten, Linear, Pair, Shape
from dcformat_runtime.compile.constants import aligned
from dcformat_runtime.isa import LEAD
from dcformat_runtime.network import Network
from dcformat_runtime.program_record import ALIGN

#: The size, in floats, of an arena that nothing limits yet.
_ENDLESS = 1 << 256
#: Number of free ranges that are tried for a buffer. Networks seldom leave more than a few.
_HOLES = 64


class ArenaBuffer(NamedTuple):
    """A piece of an arena: its offset, and its size in floats."""

    at: int
    size: int


class Arena:
    """Places buffers in an arena, first fit; `size` is the largest number of floats in use at any time."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = [(LEAD, _ENDLESS)]
        self.size = LEAD

    def take(self, floats: int) -> ArenaBuffer:
        """Return a buffer with space for one more block."""
        size = aligned(floats + ALIGN)
        free = self._free
        # Only the first holes are tried, so the time to place values is proportional to their number.
        k = next((k for k, (_, room) in enumerate(free[:_HOLES]) if room >= size), len(free) - 1)
        at, room = free[k]
        if room == size:
            del free[k]
        else:
            free[k] = (at + size, room - size)
        self.size = max(self.size, at + size)
        return ArenaBuffer(at, size)

    def give(self, buffer: ArenaBuffer) -> None:
        """Take a buffer back and join it with the free ranges on both sides."""
        at, size = buffer
        free = self._free
        k = bisect(free, buffer)
        if free[k][0] == at + size:  # the last range has no end, so there is always one
            size += free.pop(k)[1]
        if k and free[k - 1][0] + free[k - 1][1] == at:
            k -= 1
            at, before = free.pop(k)
            size += before
        free.insert(k, (at, size))


class Home(NamedTuple):
    """The storage of a value, and the offset at which the value starts there, in elements of one lane."""

    storage: int
    offset: int


class Planes(NamedTuple):
    """The distances between the channels of values, for one image (`flat`) or with each image in a lane.

    For one image, channels are filled up to whole cache lines. Those of the sizes ``(height, width)`` in `lined` have
    room for a line of zeros after them, and one before the first. The values that `copies` numbers have room for so
    many copies after them.
    """

    flat: bool
    lined: frozenset[Pair] = frozenset()
    copies: Mapping[int, int] = MappingProxyType({})

    def step(self, shape: Shape) -> int:
        """Return the distance between the channels of a value of this shape, in positions."""
        positions = prod(shape[1:])
        if not self.flat or positions == 1:
            return positions
        return aligned(positions + (shape[2] if shape[1:] in self.lined else 0))

    def size(self, shape: Shape) -> int:
        """Return the number of elements that a value of this shape takes."""
        return shape[0] * self.step(shape)

    def lead(self, shape: Shape) -> int:
        """Return the number of floats before a value of this shape: as many as lie between two of its channels."""
        return aligned(self.step(shape) - prod(shape[1:])) if self.flat and shape[1:] in self.lined else 0


class Homes(NamedTuple):
    """The homes of a network's values.

    `of` maps a value to its home; `sizes` maps a storage to its size in elements; `ends` maps a layer's number to the
    storages that no later layer reads. `linear` holds the values that only linear layers read, which may lie in any
    order. `planes` says how values lie.
    """

    of: dict[int, Home]
    sizes: dict[int, int]
    ends: dict[int, list[int]]
    linear: frozenset[int]
    planes: Planes


def homes(network: Network, planes: Planes, exact: bool) -> Homes:
    """Give each value its storage; values that are views of one another share theirs.

    A flattened value is its source, unless the source's planes are filled up. A convolution whose output only a
    `Concat` reads writes it to its place in the concatenation, and one with a residual that nothing reads afterwards
    overwrites that, unless the sums are `exact`, which add it last. The input's planes are never filled up.
    """
    layers = network.layers
    uses: dict[int, int] = {network.output: 1}
    for layer in layers:
        for value in layer.inputs:
            uses[value] = uses.get(value, 0) + 1
    makers = {layer.output: layer for layer in layers}
    joins: dict[int, Home] = {}
    linear, others = set[int](), {network.output}
    for layer in layers:
        (linear if isinstance(layer.node, Linear) else others).update(layer.inputs)
        if not isinstance(layer.node, Concat):
            continue
        offset = 0
        for value, shape in zip(layer.inputs, layer.in_shapes, strict=True):
            maker = makers.get(value)
            made_alone = maker is not None and isinstance(maker.node, Conv) and maker.pool is None
            if made_alone and uses[value] == 1:
                joins[value] = Home(layer.output, offset)
            offset += planes.size(shape)
    overwriting = set[int]() if exact else _overwriting(network)
    of = {0: Home(0, 0)}
    sizes = {0: prod(network.input_shape)}
    last = {0: -1}
    for k, layer in enumerate(layers):
        value = layer.output
        shape = layer.in_shapes[0]
        if isinstance(layer.node, Flatten) and (layer.inputs[0] == 0 or planes.size(shape) == prod(shape)):
            of[value] = of[layer.inputs[0]]
        else:
            of[value] = joins.get(value, Home(value, 0))
            if k in overwriting and layer.residual not in joins and value not in joins:
                of[value] = of[layer.inputs[1]]
            elif value not in joins:
                sizes[value] = planes.size(layer.out_shape)
        for read in (*layer.inputs, value):
            last[of[read].storage] = k
    last[of[network.output].storage] = len(layers)
    ends: dict[int, list[int]] = {}
    for storage, layer_number in last.items():
        ends.setdefault(layer_number, []).append(storage)
    for value, count in planes.copies.items():
        shape, storage = network.shape(value), of[value].storage
        taken = planes.size(shape) + count * (planes.lead(shape) + planes.size(shape))
        sizes[storage] = max(sizes[storage], taken)
    return Homes(of, sizes, ends, frozenset(linear - others), planes)


def _overwriting(network: Network) -> set[int]:
    """Return the numbers of the convolutions whose results may overwrite their residuals.

    Nothing else may read a residual from then on, and neither it nor the result may be seen through a view.
    """
    last: dict[int, int] = {network.output: len(network.layers)}
    viewed = set[int]()
    for k, layer in enumerate(network.layers):
        for value in layer.inputs:
            last[value] = max(k, last.get(value, k))
        if isinstance(layer.node, (Flatten, Concat)):
            viewed.update(layer.inputs, (layer.output,))
    return {
        k
        for k, layer in enumerate(network.layers)
        if layer.residual is not None
        and last[layer.residual] == k
        and layer.residual != layer.inputs[0]
        and not viewed & {layer.residual, layer.output}
    }
