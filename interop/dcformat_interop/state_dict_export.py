"""Makes PyTorch state_dicts from ``.dcf`` files: in memory, and as files for ``torch.load(..., weights_only=True)``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

import dcformat
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.limits import require_memory
from dcformat.model import STORAGE, Model, Tensor, require_no_delta
from dcformat.source import Source

if TYPE_CHECKING:
    import torch

#: Copies of a tensor in memory: the dense array, and the file.
_COPIES = 2


def load_state_dict(
    source: Source,
    *,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
    max_work: int | None = DEFAULT_MAX_WORK,
) -> dict[str, torch.Tensor]:
    """Return a file's tensors for `torch.nn.Module.load_state_dict`, as `torch.load` does for its own files.

    They have the tensors' names, order, dtypes and bits, but scaled int8 becomes float32. Nothing in the file is
    executed.

    Parameters
    ----------
    source : path, URL, bytes-like or binary file object
    max_memory : int or None
        Maximum number of bytes of all tensors and of decoding one; None for no bound.
    max_work : int or None
        As in `dcformat.load`.

    Raises
    ------
    FormatError
        The file is not valid, is a delta, or needs more memory or work than allowed.
    OSError
        The file cannot be read.
    ImportError
        PyTorch is not installed.
    """
    with dcformat.open(source, max_memory=max_memory, max_work=max_work) as file:
        require_no_delta(file.delta, file.path)
        infos = map(file.info, file.names)
        total = sum(info.size * STORAGE[info.dtype].itemsize * (4 if info.scale != 1.0 else 1) for info in infos)
        require_memory("tensors of the state_dict", total, max_memory)
        return {name: _torch(file.tensor(name)) for name in file.names}


def write_state_dict(model: Model, out: BinaryIO, max_memory: int | None = DEFAULT_MAX_MEMORY) -> None:
    """Write all tensors as a dict of PyTorch tensors by name, in their order.

    They have the tensors' own dtypes and bits. Scaled int8 tensors become float32, because a module computes with the
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

    values = np.array(tensor.to_dense(max_memory=None))  # PyTorch requires a writable array
    if tensor.scale != 1.0:
        return torch.from_numpy(values * np.float32(tensor.scale))
    if tensor.dtype == STORAGE[tensor.dtype].name:
        return torch.from_numpy(values)
    bits: Any = {1: np.uint8, 2: np.int16}[values.itemsize]
    return torch.from_numpy(values.view(bits)).view(getattr(torch, tensor.dtype))
