"""Threads that help a caller with its pieces of work. They sleep on a lock, and are woken by releasing it.

A caller depends on no helper: pieces are claimed one by one (see `kernels.run`), so whoever wakes late only helps less.
Where calls follow each other closely, helpers look out for the next one a moment longer before they go to sleep: to
wake a thread takes tens of microseconds.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from time import perf_counter, thread_time

import numpy as np

from dcformat_runtime import ops
from dcformat_runtime.kernels import wait
from dcformat_runtime.network import Ints

#: Seconds between two calls up to which helpers stay awake, and how often anyone looks for another: about as long.
_CLOSE, _LOOKS = 30e-6, 100_000
#: When help won nothing for so many calls in a row, it is done without for some calls; at most for so many. Calls of
#: more seconds than the last number ask again: to ask in vain costs them next to nothing.
_ROW, _SKIP, _LONG = 3, 16, 150e-6

#: Takes part in a turn, as `kernels.run` does: -t to offer turn t, t to help with it. Returns the pieces it did.
Work = Callable[[int], int]
#: A turn's number, the helpers that are wanted, the work.
Offer = tuple[int, int, Work]


class _Bell:
    """A thread sleeps until others ring."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._asleep: list[None] = []

    def sleep(self, still: Callable[[], bool]) -> None:
        """Sleep if that is `still` right now that whoever changes it would ring. May also return for no reason."""
        self._asleep.append(None)
        if not still():
            self.ring()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the thread, if it sleeps."""
        try:
            self._asleep.pop()
        except IndexError:
            return
        self._lock.release()


class Crew:
    """Helpers of one caller at a time."""

    def __init__(self) -> None:
        self._free = threading.Lock()
        self.control: Ints = np.zeros(ops.CONTROL_WIDTH, np.int64)
        self.offer: Offer | None = None
        self.error: BaseException | None = None
        self.bell = _Bell()  # for the caller
        self._helpers: list[_Helper] = []
        self._turn, self._ended = 0, 0.0
        self._skip = self._losses = 0

    def take(self) -> bool:
        """Whether the caller may use the crew; then it must `give` it back.

        Not while it helps another, and not for some calls after help won nothing: where other processes keep the cores
        busy, a helper may have to share the caller's own.
        """
        if self._skip:
            self._skip -= 1
            return False
        return self._free.acquire(False)

    def give(self) -> None:
        """Let others use the crew."""
        self._free.release()

    def share(self, work: Work, pieces: int, helpers: int) -> None:
        """Do the pieces of `work` here and on so many helpers. What `control` says beside turns must be set."""
        control = self.control
        while len(self._helpers) < helpers:
            self._helpers.append(_Helper(self, len(self._helpers)))
        self._turn += 1
        control[ops.PIECES], control[ops.DONE], control[ops.PATIENCE] = pieces, 0, _LOOKS
        control[ops.LOOKS] = _LOOKS if perf_counter() - self._ended < _CLOSE else 0
        self.offer = self._turn, helpers, work
        start, used = perf_counter(), thread_time()
        for helper in self._helpers[:helpers]:
            helper.bell.ring()
        try:
            mine = work(-self._turn)
            used = thread_time() - used
            if self._is_open() and not wait(control):
                while self._is_open():
                    self.bell.sleep(self._is_open)
            if self.error is not None:
                raise self.error
        except BaseException:
            _replace(self)  # helpers may still be at work on this turn
            raise
        finally:
            self.offer = None
        self._ended = perf_counter()
        alone = used / max(mine, 1) * pieces
        self._losses = self._losses + 1 if self._ended - start > 0.95 * alone else 0
        if self._losses:
            self._lost(alone, helpers)

    def _lost(self, alone: float, helpers: int) -> None:
        """Do something about a call that would have taken no longer, `alone` seconds, without help."""
        if self._losses & (self._losses - 1) == 0:  # ever less often
            here = _processor()
            for helper in self._helpers[:helpers]:
                helper.avoid = here
        if alone < _LONG and self._losses % _ROW == 0:
            self._skip = min(4 ** (self._losses // _ROW), _SKIP)

    def _is_open(self) -> bool:
        """Whether some pieces are not done yet."""
        return self.error is None and bool(self.control[ops.DONE] < self.control[ops.PIECES])

    def close(self) -> None:
        """End the helpers."""
        for helper in self._helpers:
            helper.end()


class _Helper:
    def __init__(self, crew: Crew, number: int) -> None:
        self._crew, self._number, self._turn, self._ends = crew, number, 0, False
        self.avoid: int | None = None  # a processor to leave
        self.bell = _Bell()
        self._thread = threading.Thread(target=self._run, name="dcformat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ends = True
        self.bell.ring()

    def _run(self) -> None:
        while not self._ends:
            offer = self._news()
            if offer is None:
                self.bell.sleep(self._is_idle)
                continue
            self._turn, _, work = offer
            if self.avoid is not None:
                _leave(self.avoid)
                self.avoid = None
            try:
                work(self._turn)
            except BaseException as error:
                self._crew.error = error
            self._crew.bell.ring()
            del offer, work  # and with them the caller's arrays

    def _news(self) -> Offer | None:
        """Return a turn that this helper has not seen and is wanted for."""
        offer = self._crew.offer
        return None if offer is None or offer[0] == self._turn or self._number >= offer[1] else offer

    def _is_idle(self) -> bool:
        return not self._ends and self._news() is None


def _processor() -> int | None:
    """Return the number of the processor that this thread runs on; None where the system does not tell."""
    try:
        with open("/proc/thread-self/stat", "rb", buffering=0) as file:  # noqa: PTH123 - see `jit.machine_code.store` on pathlib
            return int(file.read(1024).rpartition(b")")[2].split()[36])
    except OSError:
        return None


def _leave(processor: int) -> None:
    """Go on with this thread on another processor, if there is one; it may come back later.

    Linux wakes a thread where it ran last, and may let two share a processor for seconds while another is idle.
    """
    allowed = os.sched_getaffinity(0)
    if processor in allowed and len(allowed) > 1:
        os.sched_setaffinity(0, allowed - {processor})
        os.sched_setaffinity(0, allowed)


_crew = Crew()


def current() -> Crew:
    """Return this process's crew."""
    return _crew


def _replace(crew: Crew) -> None:
    """Let a crew go whose turn has not come to its end."""
    global _crew
    if _crew is crew:
        _crew = Crew()
    crew.close()


def _after_fork() -> None:
    """Begin anew in a child: a parent's threads do not survive a fork."""
    global _crew
    _crew = Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _crew.close())
