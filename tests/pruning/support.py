"""Helpers for the tests of pruning: small images, small networks, and a user's module."""

from __future__ import annotations

import torch
from dcformat_pruning.data import Images
from torch import nn
from torch.nn import functional


def small_images(n: int = 96) -> Images:
    """Images of 4 x 4 pixels in three classes, which a small network learns in seconds."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=generator)
    pixels = torch.randint(0, 90, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(n), 0, labels] += 120
    return Images(pixels, labels)


def small_net(seed: int = 0) -> nn.Sequential:
    """A network for `small_images`, with 228 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))


def alive(module: nn.Module) -> int:
    """Return the number of nonzero weights."""
    return sum(int((p != 0).sum()) for p in module.parameters() if p.ndim > 1)


def gradient(module: nn.Module, name: str) -> torch.Tensor:
    """Return the gradient of a parameter, which a backward pass has filled."""
    found = module.get_parameter(name).grad
    assert found is not None, name
    return found


def digit_images(n: int, seed: int) -> Images:
    """Images of 28 x 28 pixels in ten classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (n,), generator=generator)
    pixels = torch.randint(0, 40, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        pixels[i, 0, 2 * label + 4 : 2 * label + 6] += 150
    return Images(pixels, labels)


class OwnNet(nn.Module):
    """A user's module: grouped and padded convolution, functional ReLU, in-place ReLU, a linear layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.act = nn.ReLU(inplace=True)
        self.twice = nn.Linear(4 * 2 * 2, 16)
        self.head = nn.Linear(16, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x)).flatten(1)
        x = functional.relu(self.twice(x))
        x = functional.relu(self.twice(x))
        return self.head(x)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def own(seed: int = 0) -> OwnNet:
    torch.manual_seed(seed)
    return OwnNet()


def mlp_data(n: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(n, 6, generator=g) * (torch.rand(n, 6, generator=g) > 0.4)
    y = torch.randint(3, (n,), generator=g)
    return [(x[:5], y[:5]), (x[5:], y[5:])]


def image_data(n: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(2)
    return [(torch.randn(n, 2, 4, 4, generator=g), torch.randint(3, (n,), generator=g))]


def everything(data: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
