"""The cells of the treemap: a cell for each tensor, with a strip for each part of its payload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dcformat_cli.report.treemap import Box, cut, squarify

if TYPE_CHECKING:
    from dcformat_cli.report.facts import Facts

#: Number of tensors that have their own cell.
_CELLS = 40
#: CSS pixels of the map on a wide screen and on a phone, and of the smallest cell that has room for its name.
WIDE, NARROW = Box(0, 0, 920, 420), Box(0, 0, 330, 460)
_LABEL = (64, 34)


class Strip(NamedTuple):
    """A part of a cell, in percent of it."""

    part: str
    bytes: float
    wide: Box
    narrow: Box


class Cell(NamedTuple):
    """A rectangle of the map, in percent of it; `labelled` states where it has space for its name."""

    name: str
    bytes: float
    strips: Sequence[Strip]
    wide: Box
    narrow: Box
    labelled: tuple[bool, bool]


def cells(facts: Facts) -> list[Cell]:
    """Return the cells, the largest first."""
    groups = [(tensor.info.name, tensor.parts) for tensor in facts.tensors if tensor.info.payload_bytes]
    groups.sort(key=lambda group: -sum(group[1].values()))
    rest: dict[str, float] = {}
    for _, parts in groups[_CELLS:]:
        for part, size in parts.items():
            rest[part] = rest.get(part, 0.0) + size
    found = groups[:_CELLS] + ([(f"{len(groups) - _CELLS:,} others", rest)] if rest else [])
    found += [(part, {part: facts.parts[part]}) for part in ("contents", "checks")]
    found.sort(key=lambda group: -sum(group[1].values()))
    sizes = [sum(parts.values()) for _, parts in found]
    places = [squarify(sizes, whole) for whole in (WIDE, NARROW)]
    return [
        Cell(
            name, size, _strips(parts, wide, narrow), _share(wide, WIDE), _share(narrow, NARROW),
            (_has_room(wide), _has_room(narrow)),
        )
        for (name, parts), size, wide, narrow in zip(found, sizes, *places, strict=True)
    ]  # fmt: skip


def _strips(parts: Mapping[str, float], wide: Box, narrow: Box) -> list[Strip]:
    boxes = [[_share(strip, cell) for strip in cut(list(parts.values()), cell)] for cell in (wide, narrow)]
    return [Strip(*each) for each in zip(parts, parts.values(), *boxes, strict=True)]


def _share(box: Box, whole: Box) -> Box:
    """Return a box in percent of another."""
    width, height = 100 / (whole.width or 1), 100 / (whole.height or 1)
    return Box((box.x - whole.x) * width, (box.y - whole.y) * height, box.width * width, box.height * height)


def _has_room(box: Box) -> bool:
    return box.width >= _LABEL[0] and box.height >= _LABEL[1]
