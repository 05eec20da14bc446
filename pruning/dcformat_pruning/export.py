"""From a trained module to a `Model`: exact values, zeros left out, codebooks where values repeat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor as TorchTensor
from torch import nn

from dcformat.architectures import ARCHITECTURES
from dcformat.dense import from_dense
from dcformat.graph import Preprocessing
from dcformat.model import Model


def architecture_model(
    module: nn.Module,
    architecture: str,
    preprocessing: Preprocessing | None,
    metadata: Mapping[str, str] | None = None,
) -> Model:
    """Make a `Model` of a module whose tensors are those of a named architecture.

    Parameters
    ----------
    module : nn.Module
        As built by `dcformat_pruning.networks.build`.
    architecture : str
        A key of `dcformat.architectures.ARCHITECTURES`.
    """
    known = ARCHITECTURES[architecture]
    names = list(known.shapes)
    state = module.state_dict()
    tensors = {name: from_dense(name, to_numpy(state[name])) for name in names}
    labels = tuple(str(digit) for digit in range(10))
    return Model(tensors, known.build(names, preprocessing), labels, dict(metadata or {}))


def to_numpy(tensor: TorchTensor) -> npt.NDArray[np.float32]:
    """Return a float32 copy on the CPU."""
    values: npt.NDArray[np.float32] = tensor.detach().cpu().resolve_neg().float().numpy().copy()
    return values


def negative_zeros(module: nn.Module) -> int:
    """Count the negative zeros among a module's parameters, which an export that is not exact makes positive."""
    return sum(int((p.detach().signbit() & (p.detach() == 0)).sum()) for p in module.parameters())
