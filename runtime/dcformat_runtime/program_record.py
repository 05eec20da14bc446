"""Programs: what `kernels.interpreter.run` executes, and how many images go into each tile of it.

A process that runs a prepared network (`prepared`) imports this module without those that make programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dcformat.records import record

if TYPE_CHECKING:
    from dcformat_runtime.weight_matrices import Floats

#: The number of floats in a cache line.
ALIGN = 16


def aligned_zeros(n: int) -> Floats:
    """Return `n` zeros that start on a cache line."""
    raw = np.zeros(n + ALIGN, np.float32)
    start = -raw.ctypes.data % (4 * ALIGN) // 4
    return raw[start : start + n]


class TilePlan:
    """A way to run a tile of `tile` images, in groups of `lanes` images.

    `names` and `costs` (estimated nanoseconds) describe each stage's operators, in order.
    """

    __slots__ = ("address", "costs", "lanes", "names", "tile")

    def __init__(self, tile: int, lanes: int) -> None:
        self.tile, self.lanes, self.address = tile, lanes, 0
        self.names: tuple[list[str], list[str]] = ([], [])
        self.costs: tuple[list[float], list[float]] = ([], [])

    def cost(self, images: int) -> float:
        """Return the estimated nanoseconds for `images` images, at most one tile."""
        return -(-images // self.lanes) * sum(self.costs[0]) + sum(self.costs[1])


@record
class Program:
    """The inputs of a kernel: the array `mem`, and the size of its arena in floats.

    `choices[r]` is the plan when r images are left, and `costs[r]` the estimated nanoseconds for them.
    """

    mem: Floats
    arena: int
    choices: tuple[TilePlan, ...]
    costs: tuple[float, ...]
