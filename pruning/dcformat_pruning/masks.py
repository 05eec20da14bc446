"""Which weights are alive, kept apart from the weights themselves.

A mask is a boolean tensor for each pruned parameter. Applying masks writes zeros into the parameters; as a
constraint of the training loop they also silence the gradients of pruned weights, so zeros stay zero
whatever the optimiser's momentum.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import prune


class PruningError(ValueError):
    """A pruning request that makes no sense; the message names the layer."""


class PrunedAwayWarning(UserWarning):
    """A layer lost all of its weights."""


class Masks:
    """Masks of a module's parameters, by parameter name; True is alive.

    Parameters
    ----------
    module : nn.Module
    masks : mapping of str to Tensor
        Zeros and ones of any dtype, of the parameter's shape; one (or True) is alive.

    Raises
    ------
    PruningError
        A name that is no parameter's, another shape, or other values; names the parameter.
    """

    def __init__(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        self.masks: dict[str, Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        for name, mask in masks.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
            alive = as_mask(name, mask, parameter.shape)
            if not bool(alive.any()):
                warnings.warn(f"{name}: the whole layer is pruned away", PrunedAwayWarning, stacklevel=2)
            self.masks[name] = alive.to(parameter.device)
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
            self.masks[name].copy_(as_mask(name, mask, self.masks[name].shape))

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


def as_mask(name: str, mask: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a mask of zeros and ones as booleans, True where it is one.

    Parameters
    ----------
    name : str
        The parameter's, for errors.
    mask : Tensor
        Of any dtype.
    shape : sequence of int
        The parameter's.

    Raises
    ------
    PruningError
        Another shape, or values that are neither zero nor one.
    """
    if tuple(mask.shape) != tuple(shape):
        raise PruningError(f"{name}: expected a mask of shape {tuple(shape)}, found {tuple(mask.shape)}")
    if mask.dtype == torch.bool:
        return mask
    if mask.is_complex():
        raise PruningError(f"{name}: expected a mask of zeros and ones, found one of {mask.dtype}")
    # Some dtypes (float8, uint16) have no comparisons; float64 holds every value that is close to 0 or 1.
    values = mask.detach().double()
    alive = values == 1
    other = values[~alive & (values != 0)]
    if len(other):
        raise PruningError(f"{name}: expected a mask of zeros and ones, found {other[0].item():g} in it")
    return alive


def masked(name: str, values: Tensor, mask: Tensor) -> Tensor:
    """Return a copy of `values` with positive zeros where `mask` is zero, even in place of NaN and infinity."""
    alive = as_mask(name, mask, values.shape).to(values.device)
    return torch.where(alive, values.detach(), torch.zeros((), dtype=values.dtype, device=values.device))


def fold_torch_prune(module: nn.Module) -> list[str]:
    """Make masks of `torch.nn.utils.prune` permanent, in place: what they keep stays bit for bit, the rest is zero.

    Returns
    -------
    list of str
        Names of the parameters that were folded.

    Raises
    ------
    PruningError
        A mask has values other than zero and one; names the parameter.
    """
    folded = []
    for prefix, child in module.named_modules():
        hooks = [hook for hook in child._forward_pre_hooks.values() if isinstance(hook, prune.BasePruningMethod)]
        for name in [str(hook._tensor_name) for hook in hooks]:
            full = f"{prefix}.{name}" if prefix else name
            values = masked(full, child._parameters[f"{name}_orig"], child._buffers[f"{name}_mask"])
            prune.remove(child, name)  # type: ignore[no-untyped-call]
            getattr(child, name).data.copy_(values)
            folded.append(full)
    return folded
