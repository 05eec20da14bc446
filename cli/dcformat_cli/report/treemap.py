"""Squarified treemaps (Bruls, Huizing and van Wijk, 2000): rectangles with given areas, as square as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle; `y` grows downwards."""

    x: float
    y: float
    width: float
    height: float


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """Divide a box among sizes.

    Parameters
    ----------
    sizes : sequence of float
        Positive, in descending order.
    box : Box

    Returns
    -------
    list of Box
        One for each size, with areas in proportion.
    """
    scale = box.width * box.height / sum(sizes) if sizes else 0.0
    areas = [size * scale for size in sizes]
    out: list[Box] = []
    start = 0
    while start < len(areas):
        side, stop = min(box.width, box.height), start + 1
        while stop < len(areas) and _worst(areas[start : stop + 1], side) <= _worst(areas[start:stop], side):
            stop += 1
        row, box = _row(areas[start:stop], box)
        out += row
        start = stop
    return out


def _worst(areas: Sequence[float], side: float) -> float:
    """Return the largest ratio of the sides of rectangles that share a row along `side`."""
    depth = sum(areas) / side if side else 0.0
    if not depth:
        return 1.0
    return max(max(depth * depth / area, area / (depth * depth)) for area in areas)


def _row(areas: Sequence[float], box: Box) -> tuple[list[Box], Box]:
    """Lay out a row along the shorter side of a box, and return it and the rest of the box."""
    total = sum(areas)
    if box.width >= box.height:
        depth = min(total / box.height if box.height else 0.0, box.width)
        out, y = [], box.y
        for area in areas:
            height = box.height * area / total
            out.append(Box(box.x, y, depth, height))
            y += height
        return out, Box(box.x + depth, box.y, box.width - depth, box.height)
    depth = min(total / box.width if box.width else 0.0, box.height)
    out, x = [], box.x
    for area in areas:
        width = box.width * area / total
        out.append(Box(x, box.y, width, depth))
        x += width
    return out, Box(box.x, box.y + depth, box.width, box.height - depth)


def cut(sizes: Sequence[float], box: Box) -> list[Box]:
    """Cut a box into strips across its longer side, in the order of the sizes."""
    total, out, done = sum(sizes), [], 0.0
    for size in sizes:
        share = size / total
        if box.width >= box.height:
            out.append(Box(box.x + done * box.width, box.y, share * box.width, box.height))
        else:
            out.append(Box(box.x, box.y + done * box.height, box.width, share * box.height))
        done += share
    return out
