"""Gradient descent towards the outputs of the dense network at the calibration inputs; it needs no labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi, sqrt
from types import MappingProxyType

import torch
from torch import Tensor

from dcformat_pruning.calibration.channel_scales import Steps
from dcformat_pruning.calibration.measures import Measure
from dcformat_pruning.calibration.torch_network import TorchNetwork

#: The length of a gradient step, relative to a random change of all numbers that would do as much harm as was done; its
#: limit, relative to the root mean square of a tensor's entries; and the batches at which harm is measured.
_SHARE, _LONGEST, _MEASURED = 0.08, 0.02, 8
#: A random change, relative to the root mean square of a tensor's entries, whose harm is measured.
_NOISE = 0.02
#: The steps in which the rate rises from 0.
_WARM = 20
#: Inputs of a gradient step.
_INPUTS = 8


class Teacher:
    """The dense network, whose outputs another network learns.

    Parameters
    ----------
    network : TorchNetwork
    batches : sequence of sequence of Tensor
        The inputs; each gradient step takes up to eight of a batch.
    measure : Measure
    """

    def __init__(self, network: TorchNetwork, batches: Sequence[Sequence[Tensor]], measure: Measure) -> None:
        self._network, self._measure = network, measure
        self._batches = [
            [x[k : k + _INPUTS] for x in batch] for batch in batches for k in range(0, len(batch[0]), _INPUTS)
        ]
        self._wanted: dict[int, list[Tensor]] = {}

    def refine(
        self,
        tensors: Mapping[str, Tensor],
        steps: int,
        grids: Steps = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Return tensors that give outputs nearer to the dense network's.

        Zeros stay zero. Steps are short if little harm was done: long ones would do more.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            The tensors to change.
        steps : int
            The number of gradient steps.
        grids : mapping of str to float or Tensor
            For tensors of multiples of a step: the step, or that of each row. Gradients are those at the multiples
            (straight through the rounding), and the results are multiples again.
        """
        learnt = {name: _Learnt(tensor, grids.get(name)) for name, tensor in tensors.items() if tensor.any()}
        rate = min(_LONGEST, _SHARE * self._equal_noise(tensors))
        optimizer = torch.optim.Adam([{"params": one.free, "rate": rate * one.size} for one in learnt.values()])
        generator = torch.Generator().manual_seed(0)
        order = torch.cat([torch.randperm(len(self._batches), generator=generator) for _ in range(steps)])[:steps]
        for step, place in enumerate(order.tolist()):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * min(1, (step + 1) / _WARM) * (1 + cos(pi * step / steps)) / 2
            batch, wanted = self._batches[place], self._outputs(place)
            found = self._network.with_tensors({name: one.values() for name, one in learnt.items()}).run(batch)
            optimizer.zero_grad()
            (self._measure.divergence(wanted, found) / len(batch[0])).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            return {**tensors, **{name: one.values().detach() for name, one in learnt.items()}}

    @torch.no_grad()
    def _equal_noise(self, tensors: Mapping[str, Tensor]) -> float:
        """Return the relative random change of the dense network that does as much harm as other tensors."""
        generator = torch.Generator().manual_seed(0)
        dense = {name: self._network.tensors[name] for name in tensors}
        noisy = {
            name: x + _NOISE * x.square().mean().sqrt() * torch.randn(x.shape, generator=generator)
            for name, x in dense.items()
        }
        found, noise = (self._divergence(some) for some in (tensors, noisy))
        return _NOISE * sqrt(max(found, 0.0) / max(noise, 1e-30))

    def _divergence(self, tensors: Mapping[str, Tensor]) -> float:
        """Return the sum of the measure over a few batches."""
        network, places = self._network.with_tensors(tensors), range(min(_MEASURED, len(self._batches)))
        return sum(self._measure.change(self._outputs(place), network.run(self._batches[place])) for place in places)

    def _outputs(self, place: int) -> list[Tensor]:
        """Return the dense network's outputs for a batch, which are computed once."""
        if place not in self._wanted:
            with torch.no_grad():
                self._wanted[place] = self._network.run(self._batches[place])
        return self._wanted[place]


class _Learnt:
    """A tensor while it learns."""

    def __init__(self, tensor: Tensor, grid: float | Tensor | None) -> None:
        self.free = tensor.clone().requires_grad_()
        self._entries, self._grid = tensor != 0, grid
        self.size = float(tensor[self._entries].square().mean().sqrt())

    def values(self) -> Tensor:
        """Return the values that the network computes with."""
        values = self.free
        if self._grid is not None:
            values = values + (torch.round(values / self._grid) * self._grid - values).detach()
        return torch.where(self._entries, values, 0.0)
