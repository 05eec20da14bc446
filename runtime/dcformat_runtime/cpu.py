"""Reports what this machine's CPU can do, as far as programs depend on it. This changes speed, never results."""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

from dcformat.jit import cpuinfo


def level() -> str:
    """Return the widest vectors: ``avx512``, ``avx2``, ``neon`` or ``other``."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "neon"
    flags = cpuinfo.features()
    return "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "other"


class Vectors(NamedTuple):
    """The properties of the vector units on which programs depend.

    Attributes
    ----------
    max_blocks : int
        The number of blocks of 16 sums that fit in the registers, with some to spare.
    permutes : bool
        Whether one instruction permutes a block of 16 floats.
    half_vectors : bool
        Whether two multiply-adds of half a block with operands from memory take no longer than one of a block.
    """

    max_blocks: int
    permutes: bool
    half_vectors: bool


def vectors() -> Vectors:
    """Return what this CPU's vector units can do."""
    max_blocks = {"avx512": 12, "avx2": 6, "neon": 6}.get(level(), 3)
    return Vectors(max_blocks, level() == "avx512", prefers_half_vectors())


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def threads_in(left: int | None, each: int) -> int:
    """Return how many threads with `each` bytes fit in `left` (None: no bound): from one to the number of cores."""
    return cores() if left is None or not each else max(1, min(cores(), left // each))


def prefers_half_vectors() -> bool:
    """Return whether half vectors are as fast as whole ones, in the sense of `Vectors.half_vectors`.

    This holds wherever registers hold no whole block, and on AMD's Zen 4, which does 512 bits in two steps.
    """
    return level() != "avx512" or _is_zen4()


def _is_zen4() -> bool:
    known = cpuinfo.first_processor()
    return known.get("vendor_id") == "AuthenticAMD" and known.get("cpu family") == "25"
