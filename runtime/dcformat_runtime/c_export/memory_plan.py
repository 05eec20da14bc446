"""Places the values of a program in one array; values that are never needed together share memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dcformat_runtime.c_export.steps import FusedStep

#: Places are multiples of this many elements.
_ALIGNMENT = 4


class MemoryPlan(NamedTuple):
    """The places of values.

    `root` names the value in whose memory a value lies: one that it renames or overwrites. `places` has the
    element of the arena at which each root begins; the caller's input and output have none.
    """

    root: dict[int, int]
    places: dict[int, int]
    elements: int


def plan_memory(
    steps: Sequence[FusedStep], sizes: Sequence[int], output: int, in_place: frozenset[int], outside: Mapping[int, bool]
) -> MemoryPlan:
    """Place all values.

    Parameters
    ----------
    steps : sequence of FusedStep
    sizes : sequence of int
        The number of elements of every value.
    output : int
        The value that is the result.
    in_place : frozenset of int
        The numbers of steps that may overwrite their first operand.
    outside : mapping of int to bool
        The values in the caller's memory (the input, the output), and whether a step may overwrite them.
    """
    last = {value: place for place, step in enumerate(steps) for value in step.sources}
    last[output] = len(steps)
    root = {0: 0}
    first = {0: -1}
    for place, step in enumerate(steps):
        source, target = step.sources[0], step.target
        held = root[source]
        until = max(last.get(value, -1) for value, found in root.items() if found == held)
        free = until == place and outside.get(held, True)
        named = step.kind == "alias" and not (target == output and held == 0 and 0 in outside)
        shares = named or (step.number in in_place and free and sizes[source] == sizes[target])
        root[target] = held if shares else target
        first.setdefault(root[target], place)
    ends: dict[int, int] = {}
    for value, found in root.items():
        ends[found] = max(ends.get(found, -1), last.get(value, first[found]))
    kept = {root[value] for value in outside}
    inside = [found for found in first if found not in kept]
    places: dict[int, int] = {}
    # The largest first, each as low as possible.
    for value in sorted(inside, key=lambda found: (-sizes[found], found)):
        others = sorted(
            (places[other], places[other] + sizes[other])
            for other in places
            if first[other] <= ends[value] and first[value] <= ends[other]
        )
        at = 0
        for begin, end in others:
            if at + sizes[value] <= begin:
                break
            at = max(at, -(-end // _ALIGNMENT) * _ALIGNMENT)
        places[value] = at
    return MemoryPlan(root, places, max((places[value] + sizes[value] for value in places), default=0))
