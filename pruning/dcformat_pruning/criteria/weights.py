"""Criteria that look at the weights alone, and the control that looks at nothing."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import nn

from dcformat_pruning.criteria.base import Data, Scores, finite, scored_layers


@dataclass(frozen=True, slots=True)
class Magnitude:
    """``|w|`` (Han 2015)."""

    name: str = "magnitude"

    def scores(self, module: nn.Module, data: Data = ()) -> Scores:
        """Return ``|w|``; `data` is not looked at. See `Criterion.scores`."""
        return finite({name: layer.weight.detach().abs() for name, layer in scored_layers(module).items()})


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform in [0, 1), from `seed` and the parameter's name: the control that all others have to beat."""

    seed: int = 0
    name: str = "random"

    def scores(self, module: nn.Module, data: Data = ()) -> Scores:
        """Return random scores; `data` is not looked at. See `Criterion.scores`."""
        out: Scores = {}
        for name, layer in scored_layers(module).items():
            # The CPU generator looks at the low 32 bits of a seed only.
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
            out[name] = torch.rand(layer.weight.shape, generator=generator).to(layer.weight.device)
        return out
