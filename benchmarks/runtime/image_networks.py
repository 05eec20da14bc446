"""Image networks with random weights: ResNet-50, MobileNetV1 and, for images of 32 x 32, ResNet-20 and VGG-16.

Batch norms are folded, so every convolution has a bias. The first layer and depthwise layers stay dense; all others
keep the same share of their weights at random places, scaled as by Kaiming He so that values keep their size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dcformat import Model, from_dense
from dcformat.graph import Add, Conv, Flatten, Graph, Linear, MaxPool, Node, Reduce, ReLU
from dcformat.model import Tensor


class _Net:
    """Collects nodes and weights; each method returns the number of the value it makes."""

    def __init__(self, density: float) -> None:
        self.density, self.random = density, np.random.default_rng(1)
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []

    def add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes)

    def relu(self, value: int) -> int:
        return self.add(ReLU((value,)))

    def conv(self, value: int, out: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> int:
        names = self._weights((out, channels // groups, kernel, kernel), 1.0 if channels in (3, groups) else None)
        pad = kernel // 2, kernel // 2
        return self.add(Conv((value,), *names, (stride, stride), padding=pad, padding_end=pad, groups=groups))

    def linear(self, value: int, out: int, features: int) -> int:
        return self.add(Linear((value,), *self._weights((out, features), None)))

    def _weights(self, shape: tuple[int, ...], density: float | None) -> tuple[str, str]:
        density = self.density if density is None else density
        weight = self.random.standard_normal(shape, np.float32)
        weight *= np.float32(np.sqrt(2 / (np.prod(shape[1:]) * density)))
        if density < 1:
            weight[self.random.random(shape, np.float32) >= density] = 0
        names = f"layer{len(self.nodes)}.weight", f"layer{len(self.nodes)}.bias"
        for name, values in zip(names, (weight, 0.1 * self.random.standard_normal(shape[0], np.float32)), strict=True):
            self.tensors[name] = from_dense(name, values)
        return names

    def model(self, size: int) -> Model:
        return Model(self.tensors, Graph.sequential((3, size, size), self.nodes))


def resnet_50(density: float) -> Model:
    """Return ResNet-50 for images of 224 x 224, with the strides in the 3 x 3 convolutions."""
    net = _Net(density)
    value = net.relu(net.conv(0, 64, 3, 7, 2))
    value = net.add(MaxPool((value,), (3, 3), (2, 2), (1, 1), (1, 1)))
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, out = 64 << stage, 256 << stage
        for block in range(blocks):
            stride = 2 if block == 0 and stage else 1
            way = net.relu(net.conv(value, inner, channels, 1))
            way = net.conv(net.relu(net.conv(way, inner, inner, 3, stride)), out, inner, 1)
            if block == 0:
                value = net.conv(value, out, channels, 1, stride)
            value, channels = net.relu(net.add(Add((way, value)))), out
    net.linear(net.add(Reduce((value,), "mean", (1, 2))), 1000, channels)
    return net.model(224)


def mobilenet_v1(density: float) -> Model:
    """Return MobileNetV1 for images of 224 x 224."""
    net = _Net(density)
    value, channels = net.relu(net.conv(0, 32, 3, 3, 2)), 32
    for out, stride in (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ):
        value = net.relu(net.conv(value, channels, channels, 3, stride, channels))
        value, channels = net.relu(net.conv(value, out, channels, 1)), out
    net.linear(net.add(Reduce((value,), "mean", (1, 2))), 1000, channels)
    return net.model(224)


def resnet_20(density: float) -> Model:
    """Return ResNet-20 for images of 32 x 32, with 1 x 1 convolutions where a shortcut changes the shape."""
    net = _Net(density)
    value, channels = net.relu(net.conv(0, 16, 3, 3)), 16
    for stage in range(3):
        out = 16 << stage
        for block in range(3):
            stride = 2 if block == 0 and stage else 1
            way = net.conv(net.relu(net.conv(value, out, channels, 3, stride)), out, out, 3)
            if channels != out:
                value = net.conv(value, out, channels, 1, stride)
            value, channels = net.relu(net.add(Add((way, value)))), out
    net.linear(net.add(Reduce((value,), "mean", (1, 2))), 10, channels)
    return net.model(32)


def vgg_16(density: float) -> Model:
    """Return VGG-16 for images of 32 x 32, with one linear layer."""
    net = _Net(density)
    value, channels = 0, 3
    for out, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            value, channels = net.relu(net.conv(value, out, channels, 3)), out
        value = net.add(MaxPool((value,), (2, 2), (2, 2)))
    net.linear(net.add(Flatten((value,))), 10, channels)
    return net.model(32)


NETWORKS: dict[str, Any] = {
    "resnet-50": resnet_50, "mobilenet-v1": mobilenet_v1, "resnet-20": resnet_20, "vgg-16": vgg_16,
}  # fmt: skip
