"""The types that all checkpoint readers share: a tensor, the content of a file, and a memory budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.wording import counted
from dcformat_interop.refusals import UnfitError

Array = npt.NDArray[Any]

#: A function that returns whether the caller wants the entry of this name left out.
Skip = Callable[[str], bool]

SKIPPED = "skipped as asked"

#: Number of elements that are checked at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A tensor of a checkpoint.

    Attributes
    ----------
    dtype : str
        The name of its dtype, such as ``float32``, ``bfloat16`` or ``int64``.
    values : ndarray
        The values in the tensor's shape; bfloat16 and floats of eight bits as bit patterns (uint16, uint8), because
        NumPy has no such dtypes.
    scale : float
        For int8 only: an element's value is ``scale * integer``.
    """

    dtype: str
    values: Array
    scale: float = 1.0


@dataclass(slots=True)
class Raw:
    """The content of a file before anything is folded, converted or refused.

    Attributes
    ----------
    entries : dict of str to Dense
        Tensors of any dtype that NumPy or `Dense` can express.
    left_out : dict of str to str
        The reason for each other entry.
    metadata : dict of str to str
    notes : list of str
    """

    entries: dict[str, Dense] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


#: Bytes of memory that parsed JSON takes at most for each byte of its text, the text included. Nested lists take 46.
JSON_BYTES = 48


class Budget:
    """Counts bytes before they are allocated.

    Parameters
    ----------
    path : str
        The file, for the error.
    max_bytes : int or None
        Maximum number of bytes; None for no limit.
    what : str
        The content of the file, for the error.
    """

    def __init__(self, path: str, max_bytes: int | None, what: str = "a checkpoint") -> None:
        self._path, self._max_bytes, self._what, self._taken = path, max_bytes, what, 0

    def take(self, count: int, what: str = "") -> None:
        """Count `count` more bytes for the entry `what`.

        Raises
        ------
        UnfitError
            The total exceeds the budget.
        """
        self._taken += count
        if self._max_bytes is not None and self._taken > self._max_bytes:
            expected = f"{self._what} that takes at most {counted(self._max_bytes, 'byte')} of memory (max_memory)"
            raise UnfitError(self._path, expected, f"one that takes {self._taken:,} or more", what)


def read_whole(path: str, file: Path, max_bytes: int | None) -> bytes:
    """Return a file's bytes.

    Parameters
    ----------
    path : str
        The name of the file in errors.
    file : Path
    max_bytes : int or None
        Maximum number of bytes; None for no limit.

    Raises
    ------
    UnfitError
        The file is larger; nothing of it was read.
    OSError
        The file cannot be read.
    """
    size = file.stat().st_size
    if max_bytes is not None and size > max_bytes:
        raise UnfitError(path, f"a file of at most {counted(max_bytes, 'byte')} (max_memory)", f"{size:,}")
    return file.read_bytes()


def is_single(values: Array) -> bool:
    """Return whether float32 holds all float64 values exactly."""
    flat = values.reshape(-1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return all(
            np.array_equal(part.astype(np.float32), part, equal_nan=True)
            for part in (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
        )


def count_not_finite(values: Array, dtype: str) -> int:
    """Return how many elements are NaN or infinite."""
    flat = values.ravel("K")
    parts = (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
    return sum(part.size - int(np.count_nonzero(_is_finite(part, dtype))) for part in parts)


def _is_finite(values: Array, dtype: str) -> npt.NDArray[np.bool_]:
    if dtype.startswith("float8"):
        return np.ones(values.shape, bool)  # They are kept unchecked.
    return (values & 0x7F80) != 0x7F80 if dtype == "bfloat16" else np.isfinite(values)


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict, for `json.loads`. Raises `ValueError` for a name twice."""
    out: dict[str, Any] = {}
    for name, value in pairs:
        if name in out:
            raise ValueError(f"{name!r} twice")
        out[name] = value
    return out
