"""The image networks of the study: modern designs, small enough to train on a few processor cores.

Every parameter of rank 2 or more is the weight of a Linear or Conv2d, so that all criteria can score the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dcformat_pruning.lenets import seeded


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def _conv_norm(inputs: int, outputs: int, stride: int = 1, groups: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU())


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes.

    Parameters
    ----------
    inputs, outputs : int
        Numbers of channels.
    stride : int
        Stride of the first convolution.
    norm_shortcut : bool
        Whether a batch norm follows the shortcut's convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm_shortcut: bool) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, stride=stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=not norm_shortcut)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(outputs)) if norm_shortcut else shortcut
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 ``(n, outputs, height / stride, width / stride)``."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


def _resnet(channels: int, blocks: int, norm_shortcut: bool) -> nn.Sequential:
    layers: list[nn.Module] = [_conv_norm(channels, 16)]
    inputs = 16
    for outputs in (16, 32, 64):
        for _ in range(blocks):
            layers.append(ResidualBlock(inputs, outputs, 1 if inputs == outputs else 2, norm_shortcut))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet_8(channels: int, size: int) -> nn.Sequential:
    """Return the ResNet-8 of MLPerf Tiny (Banbury et al. 2021): one block at each of three sizes."""
    return _resnet(channels, 1, norm_shortcut=False)


def resnet_20(channels: int, size: int) -> nn.Sequential:
    """Return ResNet-20 (He et al. 2016, section 4.2), with 1x1 convolutions where the shape changes."""
    return _resnet(channels, 3, norm_shortcut=True)


def vgg_7(channels: int, size: int) -> nn.Sequential:
    """Return a network in the style of VGG (Simonyan and Zisserman 2015): six 3x3 convolutions and one Linear."""
    layers: list[nn.Module] = []
    inputs = channels
    for outputs in (32, 64, 128, 128, 192, 192):
        layers.append(_conv_norm(inputs, outputs))
        if outputs != inputs:
            layers.append(nn.MaxPool2d(2))
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def mobilenet_v1(channels: int, size: int) -> nn.Sequential:
    """Return MobileNetV1 at a quarter of its width (Howard et al. 2017), with the strides of small images."""
    layers: list[nn.Module] = [_conv_norm(channels, 8)]
    inputs = 8
    plan = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1))
    for outputs, stride in plan:
        layers += [_conv_norm(inputs, inputs, stride, groups=inputs), _conv_norm(inputs, outputs, kernel=1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


class Attention(nn.Module):
    """Multi-head self-attention, written as matrix products.

    With PyTorch's fused attention, a training step in bfloat16 takes 2.6 times as long on a CPU.

    Parameters
    ----------
    width : int
        Number of features of a token.
    heads : int
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 in the shape of `x`, ``(n, tokens, width)``."""
        q, k, v = (self._split(part(x)) for part in (self.queries, self.keys, self.values))
        shares = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(-1)
        out: Tensor = self.out((shares @ v).transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self._heads, -1).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Attention and two Linear layers, each after a layer norm and beside a shortcut (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.fc1, self.gelu, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 in the shape of `x`, ``(n, tokens, width)``."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(self.gelu(self.fc1(self.norm2(x))))
        return out


class VisionTransformer(nn.Module):
    """A plain vision transformer with fixed positions and average pooling (Beyer, Zhai and Kolesnikov 2022).

    Parameters
    ----------
    channels, size : int
        Of the images, which are square.
    patch : int
        Height and width of a patch; it divides `size`.
    width, depth, heads, hidden : int
        Features of a token, number of blocks, heads of each, and features between the two Linear layers of a block.
    """

    def __init__(self, channels: int, size: int, patch: int, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.register_buffer("positions", sines(size // patch, width), persistent=False)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, 10)`` of float32 images ``(n, channels, size, size)``."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return out


def sines(side: int, width: int) -> Tensor:
    """Return fixed positions of a square of tokens: sines and cosines of x and y, float32 ``(side * side, width)``."""
    frequencies = 10000 ** -(torch.arange(width // 4) / (width // 4 - 1))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (x, y)]
    return torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], 1)


def vit(channels: int, size: int) -> VisionTransformer:
    """Return a small vision transformer: four blocks of 96 features, on patches of 4 x 4 pixels."""
    return VisionTransformer(channels, size, patch=4, width=96, depth=4, heads=4, hidden=192)


#: Name to a function of the images' channels and size that makes the network.
IMAGE_NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "resnet-8": resnet_8,
    "resnet-20": resnet_20,
    "vgg-7": vgg_7,
    "mobilenet-v1": mobilenet_v1,
    "vit": vit,
}


def image_network(name: str, channels: int, size: int, seed: int = 0) -> nn.Module:
    """Build a freshly initialised network for ten classes of square images.

    Parameters
    ----------
    name : str
        A key of `IMAGE_NETWORKS`.
    channels, size : int
        Of the images.
    seed : int
        Seeds the initial weights. The global generator is not affected.

    Raises
    ------
    ValueError
        The network is unknown.
    """
    if name not in IMAGE_NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(IMAGE_NETWORKS)}, found {name!r}")
    with seeded(seed):
        return IMAGE_NETWORKS[name](channels, size)
