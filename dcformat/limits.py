"""The two budgets of a caller: bytes of memory and steps of work (docs/limits.md); and NumPy's own bound on a shape.

All are compared with what arithmetic predicts, before anything is allocated or computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

from dcformat.errors import MemoryLimitError, WorkLimitError


def require_memory(field: str, need: int, most: int | None) -> None:
    """Raise `MemoryLimitError` if `need` bytes are more than `most` (None: no bound)."""
    if most is not None and need > most:
        raise MemoryLimitError(field, got=f"{need} bytes", expected=f"at most {most} (max_memory)")


def require_work(field: str, steps: int, most: int | None) -> None:
    """Raise `WorkLimitError` if `steps` are more than `most` (None: no bound)."""
    if most is not None and steps > most:
        raise WorkLimitError(field, got=f"{steps} steps", expected=f"at most {most} (max_work)")


def is_array_shape(shape: Sequence[int], itemsize: int) -> bool:
    """Return whether NumPy has arrays of this shape: beside a zero, the other dimensions count all the same."""
    return prod(size for size in shape if size) * itemsize <= sys.maxsize


@contextmanager
def memory_counts(field: str, most: int | None) -> Iterator[None]:
    """Turn a `MemoryError` that leaves the block into a `MemoryLimitError`: the machine has less than was allowed."""
    try:
        yield
    except MemoryError:
        raise MemoryLimitError(field, got="no more memory", expected=f"at most {most} bytes (max_memory)") from None
