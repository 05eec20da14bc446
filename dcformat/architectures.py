"""The named networks: the tensors of each, in order, and the graph that runs them.

A checkpoint's tensors are matched to an architecture by position and shape, so ``fc1.weight`` and ``0.weight`` both
work; the file keeps the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dcformat.graph import (
    Concat,
    Conv,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    Node,
    Preprocessing,
    Reduce,
    ReLU,
    Shape,
)
from dcformat.records import record


@record
class Architecture:
    """A named network: `shapes` lists its tensors in order; `build` makes the graph from their names in a file."""

    name: str
    shapes: Mapping[str, Shape]
    build: Callable[[Sequence[str], Preprocessing | None], Graph]


def _shapes(layers: Mapping[str, Shape]) -> dict[str, Shape]:
    out: dict[str, Shape] = {}
    for layer, shape in layers.items():
        out[f"{layer}.weight"], out[f"{layer}.bias"] = shape, shape[:1]
    return out


def _lenet_300_100(names: Sequence[str], preprocessing: Preprocessing | None) -> Graph:
    w1, b1, w2, b2, w3, b3 = names
    nodes = (
        Linear((0,), w1, b1), ReLU((1,)),
        Linear((2,), w2, b2), ReLU((3,)),
        Linear((4,), w3, b3),
    )  # fmt: skip
    return Graph.sequential((784,), nodes, preprocessing)


def _lenet_5(names: Sequence[str], preprocessing: Preprocessing | None) -> Graph:
    w1, b1, w2, b2, w3, b3, w4, b4 = names
    nodes = (
        Conv((0,), w1, b1), MaxPool((1,), (2, 2), (2, 2)),
        Conv((2,), w2, b2), MaxPool((3,), (2, 2), (2, 2)),
        Flatten((4,)),
        Linear((5,), w3, b3), ReLU((6,)),
        Linear((7,), w4, b4),
    )  # fmt: skip
    return Graph.sequential((1, 28, 28), nodes, preprocessing)


#: SqueezeNet 1.0's fire modules: squeeze and expand channels (Iandola et al. 2016, table 1).
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


def _squeezenet_layers() -> dict[str, Shape]:
    layers: dict[str, Shape] = {"conv1": (96, 3, 7, 7)}
    channels = 96
    for number, (squeeze, expand) in enumerate(_FIRES, start=2):
        layers[f"fire{number}.squeeze"] = (squeeze, channels, 1, 1)
        layers[f"fire{number}.expand1x1"] = (expand, squeeze, 1, 1)
        layers[f"fire{number}.expand3x3"] = (expand, squeeze, 3, 3)
        channels = 2 * expand
    layers["conv_final"] = (1000, channels, 1, 1)
    return layers


def _squeezenet(names: Sequence[str], preprocessing: Preprocessing | None) -> Graph:
    """SqueezeNet 1.0 as its authors released it for Caffe: conv_final is padded by 1, and the last ReLU is kept."""
    pairs = list(zip(names[0::2], names[1::2], strict=True))
    nodes: list[Node] = []

    def add(node: Node) -> int:
        nodes.append(node)
        return len(nodes)

    def conv(source: int, index: int, stride: int = 1, padding: int = 0) -> int:
        weight, bias = pairs[index]
        return add(ReLU((add(Conv((source,), weight, bias, (stride, stride), *((padding, padding),) * 2)),)))

    def pool(source: int) -> int:
        return add(MaxPool((source,), (3, 3), (2, 2), ceil_mode=True))

    value = pool(conv(0, 0, stride=2))
    for number in range(2, 10):
        first = 1 + 3 * (number - 2)
        squeezed = conv(value, first)
        value = add(Concat((conv(squeezed, first + 1), conv(squeezed, first + 2, padding=1))))
        if number in (4, 8):
            value = pool(value)
    add(Reduce((conv(value, 25, padding=1),), "mean", (1, 2)))
    return Graph.sequential((3, 227, 227), tuple(nodes), preprocessing)


ARCHITECTURES: Mapping[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(
            "lenet-300-100",
            _shapes({"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}),
            _lenet_300_100,
        ),
        Architecture(
            "lenet-5",
            _shapes({"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}),
            _lenet_5,
        ),
        Architecture("squeezenet", _shapes(_squeezenet_layers()), _squeezenet),
    )
}
