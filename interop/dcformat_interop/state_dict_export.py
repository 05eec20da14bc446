"""The writer of PyTorch's state_dicts, which ``torch.load(..., weights_only=True)`` reads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.limits import require_memory
from dcformat.model import STORAGE, Model, Tensor

if TYPE_CHECKING:
    import torch

#: Copies of a tensor in memory: the dense array, and the file.
_COPIES = 2


def write_state_dict(model: Model, out: BinaryIO, max_memory: int | None = DEFAULT_MAX_MEMORY) -> None:
    """Write all tensors as a dict of PyTorch tensors by name, in their order.

    They have the tensors' own dtypes and bits. Scaled int8 tensors become float32, since a module multiplies with the
    numbers that the integers stand for.

    Raises
    ------
    MemoryLimitError
        The tensors take more than `max_memory` bytes.
    ImportError
        PyTorch is not installed.
    """
    import torch

    total = sum(tensor.nbytes * (4 if tensor.scale != 1.0 else 1) for tensor in model.tensors.values())
    require_memory("tensors of the state_dict", _COPIES * total, max_memory)
    file = io.BytesIO()
    torch.save({name: _torch(tensor) for name, tensor in model.tensors.items()}, file)
    out.write(file.getbuffer())


def _torch(tensor: Tensor) -> torch.Tensor:
    import torch

    values = np.array(tensor.to_dense(max_memory=None))  # PyTorch wants an array that may be written
    if tensor.scale != 1.0:
        return torch.from_numpy(values * np.float32(tensor.scale))
    if tensor.dtype == STORAGE[tensor.dtype].name:
        return torch.from_numpy(values)
    bits: Any = {1: np.uint8, 2: np.int16}[values.itemsize]
    return torch.from_numpy(values.view(bits)).view(getattr(torch, tensor.dtype))
