"""The tensors of an open file as a mapping from names to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from dcformat.reader import DcfFile

Array = npt.NDArray[Any]


class StateDict(Mapping[str, Array]):
    """A mapping from the names of a file's tensors to dense arrays, which are read on demand and not kept.

    An array has the dtype ``dcformat.model.STORAGE[dtype]``: bfloat16 tensors are bit patterns in uint16, floats of
    eight bits are bit patterns in uint8, and scaled int8 tensors are the integers without their scale.
    """

    def __init__(self, file: DcfFile) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Array:
        return self._file.dense(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.names)

    def __len__(self) -> int:
        return len(self._file.names)

    def __contains__(self, name: object) -> bool:
        return name in self._file.names

    def __repr__(self) -> str:
        return f"StateDict({self._file!r})"
