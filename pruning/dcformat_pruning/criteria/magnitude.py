"""Criteria that look only at the weights, of layers of any kind, and a random control."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import nn

from dcformat_pruning.criteria.base import Data, Scores, finite, scored_weights


@dataclass(frozen=True, slots=True)
class Magnitude:
    """``|w|`` (Han et al. 2015, section 3)."""

    name: str = "magnitude"

    def scores(self, module: nn.Module, data: Data = ()) -> Scores:
        """Return ``|w|``; `data` is not used. See `Criterion.scores`."""
        return finite({name: weight.detach().abs() for name, weight in scored_weights(module).items()})


@dataclass(frozen=True, slots=True)
class Lamp:
    """A weight's square over the sum of all squares in its layer that are not smaller (Lee et al. 2021, section 2).

    Within a layer it ranks as magnitude does; across layers it spares those that have few weights left.
    """

    name: str = "LAMP"

    def scores(self, module: nn.Module, data: Data = ()) -> Scores:
        """Return float64 scores; `data` is not used. See `Criterion.scores`."""
        out: Scores = {}
        for name, weight in scored_weights(module).items():
            squares = weight.detach().double().square().flatten()
            ordered, order = torch.sort(squares)
            above = ordered.flip(0).cumsum(0).flip(0)
            score = torch.empty_like(squares)
            score[order] = torch.where(above > 0, ordered / above, 0.0)
            out[name] = score.view_as(weight)
        return finite(out)


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform in [0, 1), from `seed` and the parameter's name: the control that every other criterion has to beat."""

    seed: int = 0
    name: str = "random"

    def scores(self, module: nn.Module, data: Data = ()) -> Scores:
        """Return random scores; `data` is not used. See `Criterion.scores`."""
        out: Scores = {}
        for name, weight in scored_weights(module).items():
            # The CPU generator uses only the low 32 bits of a seed.
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
            out[name] = torch.rand(weight.shape, generator=generator).to(weight.device)
        return out
