"""Gradient descent towards the outputs of the dense network at the calibration inputs; it needs no labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi
from types import MappingProxyType

import torch
from torch import Tensor

from dcformat_pruning.calibration.channel_scales import Steps
from dcformat_pruning.calibration.measures import Measure
from dcformat_pruning.calibration.torch_network import TorchNetwork

#: The length of a gradient step, relative to the root mean square of a tensor's entries, or to the step of its grid.
_RATE = 0.02
#: The steps in which the rate rises from 0.
_WARM = 20


class Teacher:
    """The dense network, whose outputs another network learns.

    Parameters
    ----------
    network : TorchNetwork
    batches : sequence of sequence of Tensor
        The inputs; each gradient step takes one batch of them.
    measure : Measure
    """

    def __init__(self, network: TorchNetwork, batches: Sequence[Sequence[Tensor]], measure: Measure) -> None:
        self._network, self._batches, self._measure = network, batches, measure
        self._wanted: dict[int, list[Tensor]] = {}

    def refine(
        self,
        tensors: Mapping[str, Tensor],
        steps: int,
        grids: Steps = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Return tensors that give outputs nearer to the dense network's.

        Zeros stay zero.

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
        optimizer = torch.optim.Adam([{"params": one.free, "rate": one.rate} for one in learnt.values()])
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
        size = tensor[self._entries].square().mean().sqrt() if grid is None else torch.as_tensor(grid).mean()
        self.rate = _RATE * float(size)

    def values(self) -> Tensor:
        """Return the values that the network computes with."""
        values = self.free
        if self._grid is not None:
            values = values + (torch.round(values / self._grid) * self._grid - values).detach()
        return torch.where(self._entries, values, 0.0)
