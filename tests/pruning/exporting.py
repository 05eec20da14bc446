"""Helpers for the tests of the export: modules with given parts, and a check of the graph against its module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from dcformat_pruning import from_module
from dcformat_runtime import Session
from torch import Tensor, nn

from dcformat import graph as ops
from dcformat.model import Model

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Forward = Callable[[Any, Tensor], Any]


class Net(nn.Module):
    """A module with the given parts and forward pass."""

    def __init__(self, how: Forward, **parts: nn.Module) -> None:
        super().__init__()
        self.how = how
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def fc() -> nn.Linear:
    return nn.Linear(4, 4)


def conv() -> nn.Conv2d:
    return nn.Conv2d(2, 3, 3)


def graph_of(model: Model) -> ops.Graph:
    """Return the graph that an export puts into each model."""
    assert model.graph is not None
    return model.graph


def kinds_of(model: Model) -> list[str]:
    return [node.kind for node in graph_of(model).nodes]


def run(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Return what a model computes."""
    session = Session.from_model(model, backend="numpy")
    (result,) = session({session.inputs[0].name: x.numpy()}).values()
    return torch.from_numpy(result)


def check(module: nn.Module, *shape: int) -> Model:
    module.eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    expected = module(x).detach()
    model = from_module(module, shape)
    torch.testing.assert_close(run(model, x), expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    return model


def with_statistics(module: AnyModule, seed: int = 0) -> AnyModule:
    """Give batch norms statistics that are worth folding."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module
