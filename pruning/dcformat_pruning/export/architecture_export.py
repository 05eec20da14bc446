"""Makes a `Model` from a network that this package trained."""

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
    """Make a `Model` from a module with a named architecture.

    Values are exact; zeros are left out, and repeated values are put into a codebook.

    Parameters
    ----------
    module : nn.Module
        Built by `dcformat_pruning.lenets.build`.
    architecture : str
        A key of `dcformat.architectures.ARCHITECTURES`.
    preprocessing : Preprocessing or None
        How pixels are normalised before the first layer.
    metadata : mapping of str to str, optional
        Metadata of the file.
    """
    known = ARCHITECTURES[architecture]
    names = list(known.shapes)
    state = module.state_dict()
    tensors = {name: from_dense(name, to_numpy(state[name])) for name in names}
    labels = tuple(str(digit) for digit in range(10))
    return Model(tensors, known.build(names, preprocessing), labels, dict(metadata or {}))


def to_numpy(tensor: TorchTensor) -> npt.NDArray[np.float32]:
    """Return a copy as a float32 array of the same shape."""
    values: npt.NDArray[np.float32] = tensor.detach().cpu().resolve_neg().float().numpy().copy()
    return values
