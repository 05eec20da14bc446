"""Packing a model: written, read back and compared before it takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dcformat.files import replacing
from dcformat.model import Model

if TYPE_CHECKING:
    from dcformat.codecs.choose import Mode, RelativeIndex


class ReadBackError(RuntimeError):
    """A file that does not read back as what was written: our fault or the machine's, never the user's."""


def write_model(model: Model, path: Path, mode: Mode, relative_index: RelativeIndex = "escape") -> int:
    """Pack `model` at `path` and return the size; whatever fails, a file that was there stays.

    Raises
    ------
    ReadBackError
        The packed bytes do not decode to the model.
    FormatError
        The model breaks a limit of the format.
    OSError
        The file cannot be written.
    """
    import dcformat

    packed = dcformat.dumps(model, mode=mode, relative_index=relative_index)
    _compare(model, packed, path)
    with replacing(path) as out:
        out.write(packed)
    return len(packed)


def _compare(model: Model, packed: bytes, path: Path) -> None:
    import dcformat

    with dcformat.open(packed) as content:
        content.verify()
        if content.names != tuple(model.tensors) or content.graph != model.graph:
            raise ReadBackError(f"{path}: expected the model's names and network when read back, found others")
        for name, tensor in model.tensors.items():
            found = content.tensor(name)
            same = found.dtype == tensor.dtype and found.shape == tensor.shape and found.scale == tensor.scale
            if not same or not np.array_equal(_bits(found.to_dense()), _bits(tensor.to_dense())):
                raise ReadBackError(f"{path}: {name}: expected the model's values when read back, found others")


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
