"""Tensors of foreign files whose names or shapes a ``.dcf`` file cannot hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from dcformat.layout import MAX_ELEMENTS, MAX_NAME_BYTES, MAX_RANK
from dcformat.wording import counted
from dcformat_interop.refusals import UnfitError


class Misfit(NamedTuple):
    """What of a tensor a ``.dcf`` file cannot hold, the name or the shape, and what was expected and found."""

    what: str
    expected: str
    found: str


def misfit(name: str, shape: Sequence[int]) -> Misfit | None:
    """Return why a ``.dcf`` file cannot hold a tensor of this name and shape; None if it can."""
    length = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= length <= MAX_NAME_BYTES:
        return Misfit("name", f"a name of 1 to {MAX_NAME_BYTES} bytes", counted(length, "byte"))
    if len(shape) > MAX_RANK:
        return Misfit("shape", f"at most {MAX_RANK} dimensions", f"{len(shape)}")
    if (size := prod(each for each in shape if each)) > MAX_ELEMENTS:
        return Misfit("shape", f"at most {MAX_ELEMENTS:,} elements", f"{size:,}")
    return None


def require_fit(path: object, shapes: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Raise `UnfitError` for a tensor whose name or shape a ``.dcf`` file cannot hold."""
    for name, shape in shapes:
        found = misfit(name, shape)
        if found is not None:
            shown = repr(name[:40]) if found.what == "name" else name
            raise UnfitError(path, found.expected, f"{found.found} (--skip leaves the tensor out)", shown)
