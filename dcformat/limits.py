"""A caller's two budgets, bytes of memory and steps of work (docs/limits.md), and NumPy's own bound on a shape.

Each is compared with the predicted need before anything is allocated or computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def memory_counts(field: str, max_memory: int | None) -> Iterator[None]:
    """Turn a `MemoryError` in the block into a `MemoryLimitError`: the machine lacks memory that the caller allows."""
    try:
        yield
    except MemoryError:
        bound = "less" if max_memory is None else f"at most {counted(max_memory, 'byte')} (max_memory)"
        raise MemoryLimitError(field, got="no more memory", expected=bound) from None
