"""Validation of tensors in memory: the writer refuses tensors that no reader could reproduce."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.contents import check_size
from dcformat.errors import CodebookError, EncodingError, IndexRangeError, LimitError, ShapeError
from dcformat.floats import finite, ranks
from dcformat.graph import Graph
from dcformat.model import STORAGE, Model, Tensor

Array = npt.NDArray[Any]


def check_tensor(name: str, tensor: Tensor) -> None:
    """Raise unless `tensor` is consistent and within the format's limits, and is called `name`."""
    if tensor.name != name:
        raise EncodingError("tensor name", got=repr(tensor.name), expected=repr(name))
    if tensor.dtype not in layout.DTYPES:
        raise EncodingError(f"dtype of {name!r}", got=repr(tensor.dtype), expected=", ".join(layout.DTYPES))
    if len(tensor.shape) > layout.MAX_RANK:
        raise LimitError(f"rank of {name!r}", got=len(tensor.shape), expected=f"at most {layout.MAX_RANK}")
    if any(d < 0 for d in tensor.shape):
        raise ShapeError(f"shape of {name!r}", got=tensor.shape, expected="no negative dimension")
    check_size(tensor.shape)
    if tensor.data.ndim != 1:
        raise ShapeError(f"data of {name!r}", got=tensor.data.shape, expected="one dimension")
    if tensor.dtype == "int8":
        with np.errstate(over="ignore"):
            scale = np.float32(tensor.scale)
        if not (np.isfinite(scale) and scale > 0 and float(scale) == tensor.scale):
            raise EncodingError(f"scale of {name!r}", got=tensor.scale, expected="a positive float32")
    elif tensor.scale != 1.0:
        raise EncodingError(f"scale of {name!r}", got=tensor.scale, expected=f"1.0 for {tensor.dtype}")
    _check_values(name, tensor)
    if tensor.is_constant and tensor.size < 2:
        raise ShapeError(f"data of {name!r}", got=1, expected=tensor.size)
    if tensor.is_sparse:
        _check_positions(name, tensor)
    elif not tensor.is_constant and len(tensor.data) != tensor.size:
        raise ShapeError(f"data of {name!r}", got=len(tensor.data), expected=tensor.size)


def check_weights(model: Model) -> None:
    """Raise unless a network's weights and biases have dtypes that it can compute with, and are finite."""
    if model.graph is None:
        return
    model.graph.check_dtypes({name: tensor.dtype for name, tensor in model.tensors.items()})
    for name in weight_names(model.graph):
        check_weight(name, model.tensors[name])


def weight_names(graph: Graph) -> dict[str, None]:
    """Return the names of a network's weights and biases, in the order of its nodes."""
    return {name: None for node in graph.nodes for name in node.tensors if name not in node.inputs}


def check_weight(name: str, tensor: Tensor) -> None:
    """Raise unless a weight or bias of a network is finite."""
    stored = np.ascontiguousarray(tensor.data if tensor.codebook is None else tensor.codebook)
    if not finite(stored, tensor.dtype):
        raise EncodingError(f"values of {name!r}", got="NaN or infinity", expected="finite numbers in a network")


def _check_values(name: str, tensor: Tensor) -> None:
    storage, codebook = STORAGE[tensor.dtype], tensor.codebook
    values = tensor.data if codebook is None else codebook
    if values.dtype != storage:
        raise EncodingError(f"values of {name!r}", got=values.dtype, expected=storage)
    if codebook is None:
        return
    if layout.DTYPES.index(tensor.dtype) >= layout.KERNEL_DTYPES:
        expected = f"none for {tensor.dtype}"
        raise CodebookError(f"codebook of {name!r}", got=f"{len(codebook)} values", expected=expected)
    if not 1 <= len(codebook) <= layout.MAX_CODEBOOK or codebook.ndim != 1:
        raise CodebookError(f"codebook of {name!r}", got=codebook.shape, expected=f"1 to {layout.MAX_CODEBOOK} values")
    if (np.diff(ranks(np.ascontiguousarray(codebook), tensor.dtype)) <= 0).any():
        raise CodebookError(f"codebook of {name!r}", got="values out of order", expected="ascending ones")
    if tensor.is_sparse and not codebook.view(f"<u{storage.itemsize}").all():
        raise CodebookError(f"codebook of {name!r}", got="a zero", expected="none in a sparse tensor's")
    if tensor.data.dtype.kind != "u":
        raise EncodingError(f"codes of {name!r}", got=tensor.data.dtype, expected="unsigned integers")
    if len(tensor.data) and int(tensor.data.max()) >= len(codebook):
        raise IndexRangeError(f"codes of {name!r}", got=int(tensor.data.max()), expected=f"below {len(codebook)}")


def _check_positions(name: str, tensor: Tensor) -> None:
    indptr, indices = tensor.indptr, tensor.indices
    field = f"positions of {name!r}"
    if indptr is None or indices is None or indptr.ndim != 1 or indices.ndim != 1:
        raise ShapeError(field, got="none", expected="indptr and indices")
    if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        raise EncodingError(field, got=(indptr.dtype, indices.dtype), expected="integers")
    if len(indptr) != tensor.rows + 1 or len(indices) != len(tensor.data):
        raise ShapeError(field, got=(len(indptr), len(indices)), expected=(tensor.rows + 1, len(tensor.data)))
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr.astype(np.int64)) < 0).any():
        raise IndexRangeError(field, got="indptr out of order", expected=f"0 to {len(indices)}, ascending")
    if not len(indices):
        return
    if int(indices.min()) < 0 or int(indices.max()) >= tensor.columns:
        raise IndexRangeError(field, got=f"{indices.min()} to {indices.max()}", expected=f"0 to {tensor.columns - 1}")
    starts = np.zeros(len(indices), bool)
    inner = indptr[:-1][indptr[:-1] < len(indices)]
    starts[inner] = True
    if (~starts[1:] & (np.diff(indices.astype(np.int64)) <= 0)).any():
        raise IndexRangeError(field, got="columns out of order", expected="ascending in each row")
    if tensor.codebook is None and not tensor.data.view(f"<u{tensor.data.dtype.itemsize}").all():
        raise EncodingError(f"values of {name!r}", got="a stored zero", expected="none in a sparse tensor")
