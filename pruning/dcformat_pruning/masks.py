"""Which weights are alive, kept apart from the weights themselves.

A mask is a boolean tensor for each pruned parameter. Applying masks writes zeros into the parameters; as a
constraint of the training loop they also silence the gradients of pruned weights, so zeros stay zero
whatever the optimiser's momentum.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune


class PruningError(ValueError):
    """A pruning request that makes no sense; the message names the layer."""


class PrunedAwayWarning(UserWarning):
    """A layer lost all of its weights."""


class Masks:
    """Boolean masks of a module's parameters, by parameter name; True is alive.

    Parameters
    ----------
    module : nn.Module
    masks : mapping of str to Tensor
        Boolean, of the parameter's shape.
    """

    def __init__(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        self.masks: dict[str, Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        for name, mask in masks.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
            if mask.dtype != torch.bool or mask.shape != parameter.shape:
                raise PruningError(
                    f"{name}: expected a boolean mask of shape {tuple(parameter.shape)}, "
                    f"found {mask.dtype} {tuple(mask.shape)}"
                )
            if not bool(mask.any()):
                warnings.warn(f"{name}: the whole layer is pruned away", PrunedAwayWarning, stacklevel=2)
            self.masks[name] = mask.to(parameter.device)
            self._parameters[name] = parameter

    @classmethod
    def from_zeros(cls, module: nn.Module, names: Iterable[str] | None = None) -> Masks:
        """Take the zeros that are there (in the weights, or the named parameters) as pruned."""
        chosen = weight_names(module) if names is None else list(names)
        parameters = dict(module.named_parameters())
        return cls(module, {name: parameters[name].detach() != 0 for name in chosen})

    def set(self, masks: Mapping[str, Tensor]) -> None:
        """Replace the masks of the named parameters (same shapes); weights change at the next `apply`."""
        for name, mask in masks.items():
            self.masks[name].copy_(mask)

    @torch.no_grad()
    def apply(self) -> None:
        """Write zeros (positive) into the pruned weights, in place."""
        for name, mask in self.masks.items():
            self._parameters[name].masked_fill_(~mask, 0.0)

    def before_step(self, progress: float) -> None:
        """Silence the gradients of pruned weights."""
        for name, mask in self.masks.items():
            gradient = self._parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    def after_step(self, progress: float) -> None:
        """Put the zeros back, which momentum of earlier steps may have moved."""
        self.apply()

    @property
    def alive(self) -> dict[str, int]:
        """Number of alive weights of each parameter."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}


class GradualMagnitude:
    """Gradual pruning while training: the number of alive weights falls along a cubic (Zhu and Gupta 2017).

    Every `every` steps the smallest weights of all layers together are pruned; a pruned weight stays pruned.

    Parameters
    ----------
    masks : Masks
    keep : int
        Alive weights at the end.
    until : float
        The share of training after which the number stays as it is.
    """

    def __init__(self, module: nn.Module, masks: Masks, keep: int, until: float = 0.8, every: int = 50) -> None:
        self._module, self._masks, self._keep = module, masks, keep
        self._until, self._every, self._steps = until, every, 0
        self._start = sum(masks.alive.values())
        if not 0 < keep <= self._start:
            raise PruningError(f"expected to keep 1 to {self._start} weights, found {keep}")

    def before_step(self, progress: float) -> None:
        """Silence the gradients of pruned weights."""
        self._masks.before_step(progress)

    def after_step(self, progress: float) -> None:
        """Prune as far as the schedule has come, and put zeros back."""
        self._steps += 1
        self._masks.apply()
        if self._steps % self._every == 0 or progress >= 1:
            left = max(0.0, 1 - progress / self._until) ** 3
            keep = round(self._keep + (self._start - self._keep) * left)
            self._masks.set(global_magnitude_masks(self._module, keep, list(self._masks.masks)))
            self._masks.apply()


def weight_names(module: nn.Module) -> list[str]:
    """Names of the parameters that pruning is about: rank 2 and more, so no biases and no normalisation."""
    return [name for name, parameter in module.named_parameters() if parameter.ndim > 1]


def magnitude_masks(module: nn.Module, densities: Mapping[str, float]) -> dict[str, Tensor]:
    """Keep the largest weights of each named parameter (Han 2015): exactly ``round(density * size)`` of them.

    Parameters
    ----------
    densities : mapping of str to float
        Parameter name to the share that stays, above 0 and at most 1.

    Raises
    ------
    PruningError
        An unknown name, a density outside (0, 1], or so small that nothing stays.
    """
    parameters = dict(module.named_parameters())
    masks = {}
    for name, density in densities.items():
        if name not in parameters:
            raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
        if not 0 < density <= 1:
            raise PruningError(f"{name}: expected a density above 0 and at most 1, found {density}")
        size = parameters[name].numel()
        keep = round(density * size)
        if not keep:
            raise PruningError(f"{name}: density {density} of {size} weights keeps none of them")
        masks[name] = largest(parameters[name].detach().abs(), keep)
    return masks


def global_magnitude_masks(module: nn.Module, keep: int, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Keep the `keep` largest weights of all named parameters (default: all weights) together."""
    parameters = dict(module.named_parameters())
    chosen = list(names) if names is not None else weight_names(module)
    scores = {name: parameters[name].detach().abs() for name in chosen}
    total = sum(s.numel() for s in scores.values())
    if not 0 < keep <= total:
        raise PruningError(f"expected to keep 1 to {total} weights, found {keep}")
    alive = largest(torch.cat([s.flatten() for s in scores.values()]), keep)
    parts = torch.split(alive, [s.numel() for s in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(chosen, parts, strict=True)}


def largest(scores: Tensor, keep: int) -> Tensor:
    """Return booleans that are True at exactly the `keep` largest scores; the earlier of equals wins."""
    order = torch.sort(scores.flatten(), descending=True, stable=True).indices[:keep]
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order] = True
    return mask.view_as(scores)


def fold_torch_prune(module: nn.Module) -> list[str]:
    """Make masks of `torch.nn.utils.prune` permanent, in place: weight = weight_orig * weight_mask.

    Returns
    -------
    list of str
        Names of the parameters that were folded.
    """
    folded = []
    for prefix, child in module.named_modules():
        for name in [n.removesuffix("_orig") for n in list(child._parameters) if n.endswith("_orig")]:
            if hasattr(child, f"{name}_mask"):
                prune.remove(child, name)  # type: ignore[no-untyped-call]
                # The mask left negative zeros, which are values like any other to the format.
                getattr(child, name).data.add_(0.0)
                folded.append(f"{prefix}.{name}" if prefix else name)
    return folded
