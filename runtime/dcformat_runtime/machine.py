"""What this machine's CPU can do, as far as the programs depend on it: a matter of speed, never of results."""

from __future__ import annotations

import os
import platform

from dcformat.jit import cpuinfo


def level() -> str:
    """Return the widest vectors: ``avx512``, ``avx2``, ``neon`` or ``other``."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "neon"
    flags = cpuinfo.features()
    return "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "other"


def blocks_in_registers() -> int:
    """Return how many blocks of 16 sums fit in the vector registers, with some to spare."""
    return {"avx512": 12, "avx2": 6, "neon": 6}.get(level(), 3)


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def permutes() -> bool:
    """Return whether one instruction permutes a block of 16 floats."""
    return level() == "avx512"


def halves() -> bool:
    """Return whether two multiply-adds of half a block, operands from memory, take no longer than one of a block.

    So it is wherever registers hold no whole block, and on AMD's Zen 4, which does 512 bits in two steps.
    """
    return level() != "avx512" or _is_zen4()


def _is_zen4() -> bool:
    known = cpuinfo.first_processor()
    return known.get("vendor_id") == "AuthenticAMD" and known.get("cpu family") == "25"
