"""The weights that multiply inputs, and the inputs as matrices, by which TF-IDF, Wanda and OBS score.

The inputs of a weight are a matrix with a row for each sample and position. A convolution has a row for each patch that
its kernel covers, padding zeros included. Column ``j`` is multiplied by the weights ``[:, j]`` of the weight matrix.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import Data, batches, evaluating, layer_weights, patches
from dcformat_pruning.criteria.recurrent_inputs import cell_inputs, recurrent_inputs
from dcformat_pruning.masks import PruningError
from dcformat_pruning.objectives import run

_RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
_CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


class Multiplied(NamedTuple):
    """A weight that multiplies inputs.

    Attributes
    ----------
    weight : nn.Parameter
    groups : int
        Number of blocks of rows of the weight, each of which multiplies different inputs.
    """

    weight: nn.Parameter
    groups: int

    def matrix(self, tensor: Tensor) -> Tensor:
        """View a weight-shaped tensor as ``(groups, outputs of the group, columns)``."""
        return tensor.reshape(self.groups, tensor.shape[0] // self.groups, -1)

    def per_column(self, statistic: Tensor) -> Tensor:
        """Give each weight the figure of its input column: ``(groups, columns)`` to the weight's shape."""
        wide = statistic[:, None, :].expand(self.matrix(self.weight).shape)
        return wide.reshape(self.weight.shape).to(self.weight.dtype)


class WeightInputs(NamedTuple):
    """The inputs of a weight in one call.

    Attributes
    ----------
    x : Tensor
        ``(groups, rows, columns)``. Groups with fewer rows than others are filled up with zeros.
    counts : Tensor
        int64 ``(groups, 1)``, the number of rows of each group.
    """

    x: Tensor
    counts: Tensor


def multiplied_weights(module: nn.Module) -> dict[str, Multiplied]:
    """Return the weights of Linear, Conv1d, Conv2d, attention and recurrent layers, by the parameters' names.

    Raises
    ------
    PruningError
        A parameter of rank 2 or more belongs to another kind of layer, the module has masks of
        `torch.nn.utils.prune`, or it has no such weight.
    """
    return {
        name: Multiplied(weight, _groups(part, name))
        for name, (part, weight) in layer_weights(module, _multiplies, "that multiply inputs").items()
    }


def _multiplies(part: nn.Module, name: str) -> bool:
    if isinstance(part, nn.MultiheadAttention):  # bias_k and bias_v are added
        return _has_forward_of(part, nn.MultiheadAttention) and name.endswith("weight")
    if isinstance(part, _RECURRENT):
        return _has_forward_of(part, *_RECURRENT) and not part.proj_size
    return _has_forward_of(part, *_CELLS) or isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d)


def _has_forward_of(part: nn.Module, *kinds: type[nn.Module]) -> bool:
    return any(isinstance(part, kind) and type(part).forward is kind.forward for kind in kinds)


def _groups(part: nn.Module, name: str) -> int:
    if isinstance(part, nn.Conv1d | nn.Conv2d):
        return part.groups
    return 3 if name.endswith("in_proj_weight") else 1


@torch.no_grad()
def visit_inputs(
    module: nn.Module, weights: Mapping[str, Multiplied], data: Data, visit: Callable[[str, WeightInputs], None]
) -> None:
    """Run `data` through `module`, and call `visit` with the names and inputs of the weights."""

    def hook(path: str) -> Callable[..., None]:
        def visit_part(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
            for local, rows in _inputs(part, inspect.signature(part.forward).bind(*args, **kwargs).arguments):
                if (name := f"{path}.{local}" if path else local) in weights:
                    visit(name, rows)

        return visit_part

    handles = [
        part.register_forward_hook(hook(path), with_kwargs=True)
        for path, part in module.named_modules()
        if any(_multiplies(part, name) for name, _ in part.named_parameters(recurse=False))
    ]
    # The fast path of Transformer layers calls no parts.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(module):
            for x, _ in batches(data):
                run(module, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()


def input_energies(module: nn.Module, weights: Mapping[str, Multiplied], data: Data) -> dict[str, Tensor]:
    """Return for each weight that was used the sums of its squared inputs, float64 ``(groups, columns)``."""
    energies: dict[str, Tensor] = {}

    def visit(name: str, rows: WeightInputs) -> None:
        energies[name] = energies.get(name, 0) + rows.x.double().square().sum(1)

    visit_inputs(module, weights, data, visit)
    return energies


def check_used(weights: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Raise `PruningError` if the forward pass used a weight without a figure."""
    for name in weights:
        if name not in figures:
            raise PruningError(f"{name}: expected a layer that the forward pass uses, found it unused")


def _inputs(part: nn.Module, given: Mapping[str, Any]) -> Iterator[tuple[str, WeightInputs]]:
    """Yield the parameters of a part that was called, and their inputs."""
    if isinstance(part, nn.MultiheadAttention):
        yield from _attention_inputs(part, given)
    elif isinstance(part, nn.LSTM | nn.GRU | nn.RNN):
        yield from ((name, _rows(x)) for name, x in recurrent_inputs(part, *given.values()))
    elif isinstance(part, _CELLS):
        yield from ((name, _rows(x)) for name, x in cell_inputs(part, *given.values()))
    elif isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
        x = patches(part, next(iter(given.values()))).flatten(0, 1).transpose(0, 1)
        yield "weight", WeightInputs(x, torch.full((len(x), 1), x.shape[1], device=x.device))


def _rows(*inputs: Tensor) -> WeightInputs:
    """Return the inputs of groups, each ``(..., columns)``, as one matrix for each group."""
    flat = [x.reshape(-1, x.shape[-1]) for x in inputs]
    count = torch.tensor([[len(x)] for x in flat], device=flat[0].device)
    return WeightInputs(nn.utils.rnn.pad_sequence(flat, batch_first=True), count)


def _attention_inputs(part: nn.MultiheadAttention, given: Mapping[str, Any]) -> Iterator[tuple[str, WeightInputs]]:
    inputs = [given[name] for name in ("query", "key", "value")]
    if part.in_proj_weight is not None:
        yield "in_proj_weight", _rows(*inputs)
    else:
        for name, x in zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), inputs, strict=True):
            yield name, _rows(x)
    # With an identity in its place, attention returns the operand of the last projection.
    last = part.out_proj
    identity = nn.Linear(part.embed_dim, part.embed_dim, bias=False, device="meta")
    identity.weight = nn.Parameter(torch.eye(part.embed_dim, dtype=last.weight.dtype, device=last.weight.device))
    part.out_proj = identity  # type: ignore[assignment]
    try:
        yield "out_proj.weight", _rows(part.forward(**given)[0])
    finally:
        part.out_proj = last
