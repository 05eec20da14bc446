"""Training shared weights: the members of a cluster move together (Han, Mao and Dally 2016, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dcformat_pruning.masks import PruningError


class SharedWeights:
    """A constraint that keeps shared weights equal while they train (centroid fine-tuning: section 3.3 of the paper).

    Before a step, each member of a cluster gets the sum of the cluster's gradients. An elementwise optimiser (SGD,
    Adam) then moves all members alike, as it would move the centroid. After the step, all members take the value of the
    first, so that rounding cannot separate them. Pruned weights get no gradient and are set to zero.

    Parameters
    ----------
    module : nn.Module
    groups : sequence of mappings of str to Tensor
        Each group has a codebook of its own, and maps the names of its parameters to codes: int64 in the parameter's
        shape, with -1 for a weight that is pruned.

    Raises
    ------
    PruningError
        Codes have another shape than their parameter; the message names it.
    """

    def __init__(self, module: nn.Module, groups: Sequence[Mapping[str, Tensor]]) -> None:
        parameters = dict(module.named_parameters())
        self._groups = [_SharedGroup({name: parameters[name] for name in group}, group) for group in groups]

    @classmethod
    def from_values(cls, module: nn.Module, names: Sequence[str], *, across: bool = False) -> SharedWeights:
        """Treat equal nonzero values as shared, as in a network with shared weights that was loaded from a file.

        Parameters
        ----------
        names : sequence of str
            The parameters that share weights.
        across : bool
            The parameters have one codebook in common; otherwise each has its own.
        """
        parameters = dict(module.named_parameters())
        values = {name: parameters[name].detach() for name in names}
        parts = [list(names)] if across else [[name] for name in names]
        groups = []
        for part in parts:
            codebook = torch.unique(torch.cat([values[name].flatten() for name in part]))
            codebook = codebook[codebook != 0]
            codes = {name: torch.searchsorted(codebook, values[name].contiguous()) for name in part}
            groups.append({name: code.masked_fill(values[name] == 0, -1) for name, code in codes.items()})
        return cls(module, groups)

    def before_step(self, progress: float) -> None:
        """Replace each gradient by the sum of its cluster's gradients."""
        for group in self._groups:
            group.sum_gradients()

    def after_step(self, progress: float) -> None:
        """Make the members of each cluster equal again, and pruned weights zero."""
        for group in self._groups:
            group.tie()


class _SharedGroup:
    """Parameters with one codebook, treated as one long vector."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], codes: Mapping[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            if codes[name].shape != parameter.shape:
                expected, found = tuple(parameter.shape), tuple(codes[name].shape)
                raise PruningError(f"{name}: expected codes of shape {expected}, found {found}")
        self._parameters = list(parameters.values())
        self._sizes = [p.numel() for p in self._parameters]
        device = self._parameters[0].device
        flat = torch.cat([codes[name].to(device).flatten() for name in parameters])
        self._alive = torch.nonzero(flat >= 0).flatten()
        self._codes = flat[self._alive]
        self._clusters = int(self._codes.max()) + 1 if len(self._codes) else 0
        first = torch.full((self._clusters,), len(flat), dtype=torch.int64, device=device)
        first = first.scatter_reduce(0, self._codes, self._alive, "amin")
        self._first = first.masked_fill(first == len(flat), 0)

    def sum_gradients(self) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if len(gradients) != len(self._parameters):
            return
        flat = torch.cat([g.flatten() for g in gradients])
        sums = torch.zeros(self._clusters, dtype=flat.dtype, device=flat.device)
        sums.index_add_(0, self._codes, flat[self._alive])
        self._scatter(sums, gradients)

    @torch.no_grad()
    def tie(self) -> None:
        values = [p.detach() for p in self._parameters]
        self._scatter(torch.cat([v.flatten() for v in values])[self._first], values)

    def _scatter(self, by_cluster: Tensor, out: Sequence[Tensor]) -> None:
        flat = torch.zeros(sum(self._sizes), dtype=by_cluster.dtype, device=by_cluster.device)
        flat[self._alive] = by_cluster[self._codes]
        for tensor, part in zip(out, torch.split(flat, self._sizes), strict=True):
            tensor.copy_(part.view_as(tensor))
