"""Wording that messages share."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count and its noun, such as ``1 tensor``, ``2 tensors`` or ``1,000 entries``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shaped(shape: tuple[int | None, ...]) -> str:
    """Return a shape in words, such as ``(batch, 3, 8)``; None stands for the batch."""
    inner = ", ".join("batch" if size is None else str(size) for size in shape)
    return f"({inner}{',' if len(shape) == 1 else ''})"
