"""Hypothesis strategies for graphs whose shapes fit: any operators, several inputs and outputs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import Any

from hypothesis import strategies as st

from dcformat import graph as g
from dcformat.graph.graph import PORT_DTYPES
from dcformat.graph.rearranging import COORDINATES, PAD_MODES, RESIZE_MODES, ROUNDINGS

Shape = tuple[int, ...]
small = st.integers(1, 3)
flags = st.booleans()
floats = st.floats(width=32, allow_nan=False)
positive = st.floats(min_value=0.125, max_value=8, width=32)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


class Builder:
    """Adds operators that fit to a graph; each `draw` is Hypothesis's."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.values: list[Shape] = []
        self.nodes: list[g.Node] = []
        self.tensors: dict[str, Shape] = {}

    def tensor(self, *shape: int) -> str:
        """Return the name of a tensor of a shape, which may exist already."""
        same = [name for name, known in self.tensors.items() if known == shape]
        if same and self.draw(flags):
            return same[0]
        name = f"t{len(self.tensors)}"
        self.tensors[name] = shape
        return name

    def maybe(self, *shape: int) -> str | None:
        """Return the name of a tensor, or None."""
        return self.tensor(*shape) if self.draw(flags) else None

    def value(self, fits: Callable[[Shape], bool] = lambda shape: True) -> int | None:
        """Return the number of a value of few dimensions that fits, the last one more often than others."""
        fitting = [number for number, shape in enumerate(self.values) if len(shape) <= 4 and fits(shape)]
        return self.draw(st.sampled_from([fitting[-1], *fitting])) if fitting else None

    def sizes(self, count: int, least: int = 0, largest: int = 2) -> Shape:
        """Return an attribute with a value for each of some dimensions."""
        return tuple(self.draw(st.integers(least, largest)) for _ in range(count))

    def other(self, node: type[g.Node], *shapes: Shape) -> g.Operand:
        """Return an operand that has one of some shapes: a value, a tensor, or a constant if `node` takes any."""
        known = [number for number, shape in enumerate(self.values) if shape in shapes]
        if known and self.draw(flags):
            return self.draw(st.sampled_from(known))
        if node.takes_constants and () in shapes and self.draw(flags):
            return self.draw(floats)
        return self.tensor(*self.draw(st.sampled_from(shapes)))

    def add(self, node: g.Node | None) -> None:
        """Append an operator, unless there is none that fits or its result would be large."""
        if node is None:
            return
        shapes = [
            self.tensors[i] if isinstance(i, str) else () if isinstance(i, float) else self.values[i]
            for i in node.inputs
        ]
        shape = node.output_shape(shapes, self.tensors)
        if prod(shape) <= 4096:
            self.nodes.append(node)
            self.values.append(shape)


def _weighted(b: Builder) -> g.Node | None:
    spatial, kind = b.draw(st.integers(1, 2)), b.draw(st.sampled_from([g.Conv, g.ConvTranspose, g.Linear]))
    value = b.value(lambda s: len(s) > spatial if kind is not g.Linear else len(s) > 0)
    if value is None:
        return None
    shape = b.values[value]
    if kind is g.Linear:
        out = b.draw(small)
        return g.Linear((value,), b.tensor(out, shape[-1]), b.maybe(out))
    channels, size = shape[-spatial - 1], shape[-spatial:]
    groups = b.draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
    kernel = tuple(b.draw(st.integers(1, min(3, n))) for n in size)
    out, per_group = groups * b.draw(small), channels // groups
    around = {"stride": b.sizes(spatial, 1), "padding": b.sizes(spatial), "padding_end": b.sizes(spatial)}
    if kind is g.Conv:
        dilation = b.draw(st.sampled_from([(1,) * spatial, (2,) * spatial]))
        if any(n < d * (k - 1) + 1 for n, d, k in zip(size, dilation, kernel, strict=True)):
            dilation = (1,) * spatial
        weight, bias = b.tensor(out, per_group, *kernel), b.maybe(out)
        return g.Conv((value,), weight, bias, dilation=dilation, groups=groups, **around)
    dilation = (3,) * spatial
    lengths = [(n - 1) * s + 3 * (k - 1) + 1 for n, s, k in zip(size, around["stride"], kernel, strict=True)]
    if min(lengths) <= 4:
        around |= {"padding": (0,) * spatial, "padding_end": (0,) * spatial}
    weight, bias = b.tensor(channels, out // groups, *kernel), b.maybe(out)
    extra = b.sizes(spatial)
    return g.ConvTranspose((value,), weight, bias, dilation=dilation, output_padding=extra, groups=groups, **around)


def _recurrent(b: Builder) -> g.Node | None:
    kind: Any = b.draw(st.sampled_from([g.LSTM, g.GRU]))
    units = b.draw(small)
    value = b.value(lambda s: len(s) == 2)
    if value is None:
        return None
    rows = kind.gates * units
    states = [number for number, shape in enumerate(b.values) if shape == (units,)]
    inputs = (value, *[b.draw(st.sampled_from(states)) for _ in range(kind.states)]) if states else (value,)
    more = {} if kind is g.LSTM else {"reset_after": b.draw(flags)}
    return kind(
        inputs, b.tensor(rows, b.values[value][1]), b.tensor(rows, units), b.maybe(rows), b.maybe(rows),
        b.draw(flags), **more,
    )  # fmt: skip


def _pool(b: Builder) -> g.Node | None:
    spatial = b.draw(st.integers(1, 2))
    value = b.value(lambda s: len(s) > spatial)
    if value is None:
        return None
    kernel = tuple(b.draw(st.integers(1, min(3, n))) for n in b.values[value][-spatial:])
    pads = [tuple(b.draw(st.integers(0, k - 1)) for k in kernel) for _ in range(2)]
    settings: list[Any] = [kernel, b.sizes(spatial, 1), *pads, b.draw(flags)]
    if b.draw(flags):
        return g.MaxPool((value,), *settings)
    settings.append(b.draw(flags))
    return g.AvgPool((value,), *settings)


def _elementwise(b: Builder) -> g.Node | None:
    value = b.value()
    if value is None:
        return None
    shape = b.values[value]
    kind: Any = b.draw(st.sampled_from([g.ReLU, g.Unary, g.Quantize, g.Requantize, g.Add, g.Binary, g.Where]))
    if kind is g.ReLU:
        return g.ReLU((value,))
    if kind is g.Unary:
        return g.Unary((value,), b.draw(st.sampled_from(g.UNARY)))
    if kind is g.Quantize:
        low, middle, high = sorted(b.draw(st.lists(st.integers(-128, 255), min_size=3, max_size=3)))
        return g.Quantize((value,), b.draw(positive), middle, low, high)
    if kind is g.Requantize:
        low, high = b.draw(st.integers(-255, 0)), b.draw(st.integers(0, 255))
        scales = b.other(kind, shape, (1,) * len(shape), ())
        return g.Requantize((value, scales), b.draw(positive), b.draw(positive), low, high)
    count = b.draw(st.integers(1, 3)) if kind is g.Add else kind.arity - 1
    others: list[g.Operand] = [value, *(b.other(kind, shape, shape[1:], ()) for _ in range(count))]
    inputs = tuple(b.draw(st.permutations(others)))
    return g.Binary(inputs, b.draw(st.sampled_from(g.BINARY))) if kind is g.Binary else kind(inputs)


def _reducing(b: Builder) -> g.Node | None:
    value = b.value(lambda s: len(s) > 0)
    if value is None:
        return None
    rank = len(b.values[value])
    kind = b.draw(st.sampled_from([g.Reduce, g.Softmax, g.Normalize]))
    if kind is g.Softmax:
        return g.Softmax((value,), b.draw(st.sampled_from([None, *range(rank - 1)])))
    axes = tuple(sorted(b.draw(st.sets(st.integers(0, rank - 1), min_size=1))))
    if kind is g.Normalize:
        return g.Normalize((value,), axes, b.draw(positive), b.draw(flags))
    function = b.draw(st.sampled_from(g.REDUCTIONS))
    return g.Reduce((value,), function, axes[:1] if function[:3] == "arg" else axes, b.draw(flags))


def _joining(b: Builder) -> g.Node | None:
    value = b.value(lambda s: len(s) > 0)
    if value is None:
        return None
    shape = b.values[value]
    kind = b.draw(st.sampled_from([g.Concat, g.Gather, g.MatMul]))
    axis = b.draw(st.integers(0, len(shape) - 1))
    if kind is g.Concat:
        other = (*shape[:axis], b.draw(small), *shape[axis + 1 :])
        return g.Concat((value, b.other(kind, shape, other)), axis)
    if kind is g.Gather:
        return g.Gather((b.other(kind, shape), value), axis)
    if len(shape) < 2:
        return None
    return g.MatMul((value, b.other(kind, (shape[-1], b.draw(small)))))


def _rearranging(b: Builder) -> g.Node | None:
    value = b.value(lambda s: len(s) > 0)
    if value is None:
        return None
    shape = b.values[value]
    rank, axis = len(shape), b.draw(st.integers(0, len(shape) - 1))
    kind = b.draw(st.sampled_from([g.Flatten, g.Reshape, g.Transpose, g.Slice, g.Pad, g.Tile, g.Resize]))
    if kind is g.Reshape:
        sizes = [() if prod(shape) == 1 else (prod(shape), 1), (1, *shape), (prod(shape[:axis]), prod(shape[axis:]))]
        return g.Reshape((value,), b.draw(st.sampled_from(sizes)))
    if kind is g.Transpose:
        return g.Transpose((value,), tuple(b.draw(st.permutations(range(rank)))))
    if kind is g.Slice:
        first, last = (b.draw(st.integers(0, shape[axis] - 1)) for _ in range(2))
        step = 1 if first <= last else -1
        return g.Slice((value,), axis, first, abs(last - first) + 1, step)
    if kind is g.Pad:
        mode = b.draw(st.sampled_from(PAD_MODES))
        before, after = (tuple(min(p, n - 1) for p, n in zip(b.sizes(rank), shape, strict=True)) for _ in range(2))
        return g.Pad((value,), before, after, mode, b.draw(floats) if mode == "constant" else 0.0)
    if kind is g.Tile:
        return g.Tile((value,), b.sizes(rank, 1))
    if kind is g.Resize:
        count, mode = b.draw(st.integers(1, rank)), b.draw(st.sampled_from(RESIZE_MODES))
        scale = tuple(b.draw(positive) for _ in range(count))
        rounding = b.draw(st.sampled_from(ROUNDINGS)) if mode == "nearest" else "round_prefer_floor"
        coordinates = b.draw(st.sampled_from(COORDINATES))
        return g.Resize((value,), b.sizes(count, 1, 4), scale, mode, coordinates, rounding)
    return g.Flatten((value,))


_FAMILIES = (_weighted, _recurrent, _pool, _elementwise, _reducing, _joining, _rearranging)


@st.composite
def valid_graphs(draw: st.DrawFn, max_nodes: int = 6) -> tuple[g.Graph, dict[str, Shape]]:
    """Draw a graph whose shapes fit, and the shapes of its tensors, in order."""
    b = Builder(draw)
    plain = draw(flags)
    batches = draw(flags)
    inputs = []
    for name in ["input"] if plain else draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        shape = tuple(draw(st.lists(small, max_size=4)))
        axis = st.integers(0, len(shape))
        dtype = "float32" if plain else draw(st.sampled_from(PORT_DTYPES))
        inputs.append(g.Port(shape, name, dtype, 0 if plain else draw(st.none() | axis) if batches else None))
        b.values.append(shape)
    for family in draw(st.lists(st.sampled_from(_FAMILIES), max_size=max_nodes)):
        b.add(family(b))
    if plain:
        return g.Graph.sequential(b.values[0], b.nodes, draw(rules(b.values[0]))), b.tensors
    outputs = []
    batched = any(port.batch_axis is not None for port in inputs)
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        value = draw(st.integers(0, len(b.values) - 1))
        place = draw(st.integers(0, len(b.values[value]))) if batched else None
        outputs.append(g.Output(value, name, draw(st.sampled_from(PORT_DTYPES)), place))
    return g.Graph(tuple(inputs), tuple(b.nodes), tuple(outputs)), b.tensors


@st.composite
def rules(draw: st.DrawFn, shape: Shape) -> g.Preprocessing | None:
    """Draw preprocessing that fits an input, or None."""
    count = draw(st.sampled_from([0, 1, shape[0] if len(shape) == 3 else 1]))
    if not count:
        return None
    rounded = st.floats(-4, 4, width=32)
    mean = tuple(draw(st.lists(rounded, min_size=count, max_size=count)))
    std = tuple(draw(st.lists(positive, min_size=count, max_size=count)))
    equal = len({struct.pack("<f", m) for m in mean}) == len({struct.pack("<f", s) for s in std}) == 1
    return g.Preprocessing(mean[:1], std[:1]) if equal else g.Preprocessing(mean, std)
