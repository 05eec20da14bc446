"""Wakes threads on other processors than the caller's.

A system may wake a thread beside its waker, above all some virtual machines, which pack threads that seldom run onto
one processor. There it would take turns with the caller instead of running beside it, until the system spreads them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence


def _getcpu() -> Callable[[], int] | None:
    """Return a function that returns the number of the processor on which it runs, if the system has one."""
    try:
        found: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return None
    return found if hasattr(os, "sched_setaffinity") else None


_processor = _getcpu()


def send_away(threads: Sequence[int]) -> set[int]:
    """Let sleeping threads wake only on other processors than the caller's, if there is one for each.

    Parameters
    ----------
    threads : sequence of int
        The native ids of the threads.

    Returns
    -------
    set of int
        The processors on which each of them should `stay` once it is awake; empty if nothing has changed.
    """
    if _processor is None or not threads:
        return set()
    allowed = os.sched_getaffinity(0)
    others = allowed - {_processor()}
    if len(threads) > len(others):
        return set()
    for thread in threads:
        _allow(thread, others)
    return allowed


def stay(processors: set[int]) -> None:
    """Let the calling thread run on any of `processors`, so that the system may move it."""
    if processors:
        _allow(0, processors)


def _allow(thread: int, processors: set[int]) -> None:
    try:
        os.sched_setaffinity(thread, processors)
    except OSError:  # the system forbids it, or the thread has ended
        return
