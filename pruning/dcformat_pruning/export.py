"""From a trained module to a `Model`: exact values, zeros left out, codebooks where values repeat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor as TorchTensor
from torch import nn

from dcformat.architectures import ARCHITECTURES
from dcformat.graph import Preprocessing
from dcformat.model import Model, Tensor

#: A tensor with more distinct values than this is stored as plain floats: a codebook would not pay.
MAX_CODEBOOK = 1024


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
    tensors = {name: tensor_from_dense(name, to_numpy(state[name])) for name in names}
    labels = tuple(str(digit) for digit in range(10))
    return Model(tensors, known.build(names, preprocessing), labels, dict(metadata or {}))


def to_numpy(tensor: TorchTensor) -> npt.NDArray[np.float32]:
    """Return a float32 copy on the CPU."""
    return tensor.detach().cpu().float().numpy().copy()


def tensor_from_dense(name: str, values: npt.NDArray[np.float32]) -> Tensor:
    """Store a float32 array: sparse if at least a quarter is zero, with a codebook if values repeat."""
    shape = values.shape
    flat = np.ascontiguousarray(values, "<f4").reshape(-1)
    alive = flat.view("<u4") != 0
    if 4 * int(alive.sum()) > 3 * flat.size or len(shape) < 2:
        codes, book = _codes(flat)
        return Tensor(name, shape, "float32", flat if book is None else codes, codebook=book)
    matrix = flat.reshape(shape[0], -1)
    rows, columns = np.nonzero(matrix.view("<u4"))
    indptr = np.zeros(shape[0] + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=shape[0]), out=indptr[1:])
    stored = matrix[rows, columns]
    codes, book = _codes(stored)
    data = stored if book is None else codes
    return Tensor(name, shape, "float32", data, book, indptr, columns.astype(np.int32))


def _codes(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32] | None]:
    """Return codes and an ascending codebook, or no codebook when values do not repeat enough."""
    book, codes = np.unique(values, return_inverse=True)
    if not values.size or len(book) > MAX_CODEBOOK or 2 * len(book) > values.size:
        return codes.astype(np.uint16), None
    return codes.astype(np.uint16), book
