"""A caller's two budgets, bytes of memory and steps of work (docs/limits.md), and NumPy's own bound on a shape.

Each is compared with the predicted need before anything is allocated or computed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod

from dcformat.errors import MemoryLimitError, WorkLimitError
from dcformat.wording import counted


def require_memory(field: str, need: int, max_memory: int | None) -> None:
    """Raise `MemoryLimitError` if `need` bytes exceed `max_memory` (None for no bound)."""
    if max_memory is not None and need > max_memory:
        raise MemoryLimitError(field, got=counted(need, "byte"), expected=f"at most {max_memory:,} (max_memory)")


def require_work(field: str, steps: int, max_work: int | None) -> None:
    """Raise `WorkLimitError` if `steps` exceeds `max_work` (None for no bound)."""
    if max_work is not None and steps > max_work:
        raise WorkLimitError(field, got=counted(steps, "step"), expected=f"at most {max_work:,} (max_work)")


def is_array_shape(shape: Sequence[int], itemsize: int) -> bool:
    """Return whether NumPy supports arrays of this shape; the other dimensions count even if one of them is zero."""
    return prod(size for size in shape if size) * itemsize <= sys.maxsize


class memory_counts:
    """Turn a `MemoryError` in a block into a `MemoryLimitError`: the machine lacks memory that the caller allows.

    This is a class because a generator takes longer, and every tensor needs it.
    """

    __slots__ = ("_field", "_max_memory")

    def __init__(self, field: str, max_memory: int | None) -> None:
        self._field, self._max_memory = field, max_memory

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is not None and issubclass(kind, MemoryError):
            limit = self._max_memory
            bound = "less" if limit is None else f"at most {counted(limit, 'byte')} (max_memory)"
            raise MemoryLimitError(self._field, got="no more memory", expected=bound) from None
