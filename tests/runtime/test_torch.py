"""Networks from PyTorch, pruned at random and exported, give the same results as PyTorch and the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcformat_interop import read_deep_compression_net
from dcformat_runtime import Session

from dcformat.architectures import ARCHITECTURES
from dcformat.dense import from_dense
from dcformat.model import Model
from tests.runtime.example_networks import error

pytest.importorskip("torch")
import torch
from dcformat_pruning import from_module
from torch import nn
from torch.nn import functional

VGG_11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


class Vgg(nn.Module):
    """VGG-11 for 32 x 32 images, with every width divided by `share`."""

    def __init__(self, share: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in VGG_11:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width // share, 3, padding=1), nn.BatchNorm2d(width // share), nn.ReLU()]
            channels = width // share
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.classifier(self.features(x))
        return out


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )
        self.is_same = same

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + (x if self.is_same else self.short(x)))


class ResNet(nn.Module):
    """ResNet-18 with ImageNet's stem, with every width divided by `share`."""

    def __init__(self, share: int = 1) -> None:
        super().__init__()
        channels = 64 // share
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        blocks: list[nn.Module] = []
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            for k in range(2):
                blocks.append(Block(channels, width // share, stride if k == 0 else 1))
                channels = width // share
        self.blocks = nn.Sequential(*blocks)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
        return out


def pruned(module: nn.Module, density: float) -> nn.Module:
    """Give a module random weights, most of them zero, and batch normalisation that has seen data."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight)
            part.weight.data *= (torch.rand_like(part.weight) < density) / density**0.5
        elif isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn_like(part.running_mean) / 10  # type: ignore[arg-type]
            part.running_var = torch.rand_like(part.running_var) + 0.5  # type: ignore[arg-type]
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "size"),
    [(Vgg(16), 32), (ResNet(16), 48), (Vgg(), 32), (ResNet(), 64)],
    ids=["vgg-11/16", "resnet-18/16", "vgg-11", "resnet-18"],
)
def test_exported_networks(module: nn.Module, size: int) -> None:
    module = pruned(module, 0.1)
    model = from_module(module, (3, size, size))
    x = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    oracle = Session.from_model(model, backend="numpy")(x)
    session = Session.from_model(model, backend="numba")
    for found in (session(x), np.concatenate([session(x[:1]), session(x[1:])]), oracle):
        assert error(found, expected) < 1e-5


HAN = Path(__file__).parents[2] / "data" / "han" / "compressed_SqueezeNet.net"


@pytest.mark.slow
def test_squeezenet_as_its_authors_compressed_it() -> None:
    architecture = ARCHITECTURES["squeezenet"]
    if HAN.exists():
        weights = {name: dense.values for name, dense in read_deep_compression_net(HAN, architecture).items()}
    else:  # the file is not part of the repository: random weights of the same shapes and densities
        random = np.random.default_rng(0)
        weights = {}
        for name, shape in architecture.shapes.items():
            values = random.standard_normal(shape) * np.sqrt(6 / np.prod(shape[1:]))
            weights[name] = (values * (random.random(shape) < 1 / 3)).astype(np.float32)
    tensors = {name: from_dense(name, values) for name, values in weights.items()}
    model = Model(tensors, architecture.build(list(architecture.shapes), None))
    x = np.random.default_rng(0).standard_normal((1, 3, 227, 227)).astype(np.float32)
    oracle = Session.from_model(model, backend="numpy")(x)
    assert error(Session.from_model(model, backend="numba")(x), oracle) < 1e-5
