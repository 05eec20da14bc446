"""Masks: boolean tensors that say which weights of a parameter are alive and which are pruned.

`Masks.apply` writes zeros into the pruned weights. As a constraint of the training loop, masks also zero the gradients
of pruned weights and write the zeros again after each step, because an optimiser's momentum may move a weight whose
gradient is zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import prune


class PruningError(ValueError):
    """A request that cannot be met, such as more weights to keep than there are; the message names the layer."""


class PrunedAwayWarning(UserWarning):
    """A layer lost all of its weights."""


class Masks:
    """The masks of a module's parameters; a `Constraint` of `training.fit`.

    Parameters
    ----------
    module : nn.Module
    masks : mapping of str to Tensor
        Parameter name to zeros and ones of any dtype, in the parameter's shape; one (or True) means alive.

    Attributes
    ----------
    masks : dict of str to Tensor
        Parameter name to bool in the parameter's shape, on its device.

    Raises
    ------
    PruningError
        The module has no such parameter, or a mask has another shape or other values; the message names the parameter.

    Warns
    -----
    PrunedAwayWarning
        A mask prunes all weights of a parameter.
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
        """Treat the zeros in the named parameters (by default, in all weights) as pruned."""
        chosen = weight_names(module) if names is None else list(names)
        parameters = dict(module.named_parameters())
        return cls(module, {name: parameters[name].detach() != 0 for name in chosen})

    def set(self, masks: Mapping[str, Tensor]) -> None:
        """Replace the masks of the named parameters; the weights change at the next `apply`.

        Raises
        ------
        PruningError
            A mask has another shape, or values other than zero and one.
        """
        for name, mask in masks.items():
            self.masks[name].copy_(as_mask(name, mask, self.masks[name].shape))

    @torch.no_grad()
    def apply(self) -> None:
        """Write positive zeros into the pruned weights, in place."""
        for name, mask in self.masks.items():
            self._parameters[name].masked_fill_(~mask, 0.0)

    def before_step(self, progress: float) -> None:
        """Zero the gradients of pruned weights."""
        for name, mask in self.masks.items():
            gradient = self._parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    def after_step(self, progress: float) -> None:
        """Write the zeros again, because momentum from earlier steps may have moved them."""
        self.apply()

    @property
    def alive(self) -> dict[str, int]:
        """Number of alive weights in each parameter."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}


class Zeroed:
    """A constraint that keeps parameters at zero: layers that were pruned to nothing."""

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        self._parameters = [module.get_parameter(name) for name in names]

    def before_step(self, progress: float) -> None:
        """Leave the gradients, whose effect `after_step` undoes."""

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Write the zeros again."""
        for parameter in self._parameters:
            parameter.zero_()


def weight_names(module: nn.Module) -> list[str]:
    """Return the names of the parameters that can be pruned: rank 2 or more, so no biases and no normalisation."""
    return [name for name, parameter in module.named_parameters() if parameter.ndim > 1]


def nonzero_weights(module: nn.Module) -> int:
    """Return the number of weights (not biases) that are not zero."""
    return sum(int((p != 0).sum()) for p in module.parameters() if p.ndim > 1)


def all_weights(module: nn.Module) -> Masks:
    """Return masks of all trainable weights of a module of any kind, which prune nothing."""
    parameters = dict(module.named_parameters())
    chosen = {name: parameters[name] for name in weight_names(module) if parameters[name].requires_grad}
    return Masks(module, {name: torch.ones_like(p, dtype=torch.bool) for name, p in chosen.items()})


def magnitude_masks(module: nn.Module, densities: Mapping[str, float]) -> dict[str, Tensor]:
    """Keep the largest weights of each named parameter: exactly ``round(density * size)`` (Han et al. 2015).

    Parameters
    ----------
    densities : mapping of str to float
        Parameter name to the share of its weights to keep, above 0 and at most 1.

    Returns
    -------
    dict of str to Tensor
        Parameter name to bool in the parameter's shape.

    Raises
    ------
    PruningError
        A name is unknown, or a density is outside (0, 1] or too small to keep a single weight.
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


def largest(scores: Tensor, keep: int) -> Tensor:
    """Return booleans that are True at exactly the `keep` largest scores; among equal scores, the earlier are kept."""
    order = torch.sort(scores.flatten(), descending=True, stable=True).indices[:keep]
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order] = True
    return mask.view_as(scores)


def as_mask(name: str, mask: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a mask of zeros and ones as booleans: True where it is one.

    Parameters
    ----------
    name : str
        The parameter's name, for errors.
    mask : Tensor
        Zeros and ones of any dtype.
    shape : sequence of int
        The parameter's shape, which the mask must have.

    Raises
    ------
    PruningError
        The mask has another shape, or values other than zero and one.
    """
    if tuple(mask.shape) != tuple(shape):
        raise PruningError(f"{name}: expected a mask of shape {tuple(shape)}, found {tuple(mask.shape)}")
    if mask.dtype == torch.bool:
        return mask
    if mask.is_complex():
        raise PruningError(f"{name}: expected a mask of zeros and ones, found one of {mask.dtype}")
    # Some dtypes (float8, uint16) cannot be compared; float64 can, and it distinguishes every value near 0 or 1.
    values = mask.detach().double()
    alive = values == 1
    other = values[~alive & (values != 0)]
    if len(other):
        raise PruningError(f"{name}: expected a mask of zeros and ones, found {other[0].item():g} in it")
    return alive


def masked(name: str, values: Tensor, mask: Tensor) -> Tensor:
    """Return a copy of `values` with positive zeros where `mask` is zero; NaN and infinity there become zero too."""
    alive = as_mask(name, mask, values.shape).to(values.device)
    return torch.where(alive, values.detach(), torch.zeros((), dtype=values.dtype, device=values.device))


def fold_torch_prune(module: nn.Module) -> list[str]:
    """Make the masks of `torch.nn.utils.prune` permanent, in place.

    Weights that a mask keeps do not change by a bit; the others become zero.

    Returns
    -------
    list of str
        The names of the parameters that were folded.

    Raises
    ------
    PruningError
        A mask has values other than zero and one; the message names the parameter.
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
