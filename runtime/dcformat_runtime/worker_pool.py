"""Threads that share a caller's pieces of work. They sleep on a lock; releasing it wakes them.

A caller never depends on a worker: threads claim pieces one by one (see `kernels.interpreter.run`), so a worker that
wakes late only helps less. If calls follow one another closely, workers watch for the next one a little longer before
they sleep, because waking a thread takes tens of microseconds.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import NamedTuple

import numpy as np

from dcformat_runtime import placement
from dcformat_runtime.kernels import control as words
from dcformat_runtime.kernels.interpreter import wait
from dcformat_runtime.weight_matrices import Ints

#: Workers stay awake if two calls are at most `_CLOSE` seconds apart. Reading a word `_LOOKS` times takes about as
#: long.
_CLOSE, _LOOKS = 30e-6, 100_000
#: After `LOSSES` calls in a row that gained nothing from workers, up to `MAX_SKIPPED` calls run alone. Calls of `_LONG`
#: seconds and more never cause this, because useless workers cost them next to nothing.
LOSSES, MAX_SKIPPED, _LONG = 3, 16, 150e-6

#: Takes part in a generation as `kernels.interpreter.run` does: -g publishes generation g, and g helps with it. It
#: returns the number of pieces that it did.
Work = Callable[[int], int]


class Job(NamedTuple):
    """The task of the workers in a generation, how many of them take part, and the processors where they may run."""

    generation: int
    workers: int
    work: Work
    processors: set[int]


class Parker:
    """Lets one thread sleep until others wake it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._asleep: list[None] = []

    def park(self, still: Callable[[], bool]) -> None:
        """Sleep while `still` is true; a thread that makes it false calls `unpark`. This may also return early."""
        self._asleep.append(None)
        if not still():
            self.unpark()
        self._lock.acquire()

    def is_parked(self) -> bool:
        """Return whether the thread sleeps, or is about to."""
        return bool(self._asleep)

    def unpark(self) -> None:
        """Wake the thread, if it sleeps."""
        try:
            self._asleep.pop()
        except IndexError:
            return
        self._lock.release()


class WorkerPool:
    """Workers that serve one caller at a time.

    Attributes
    ----------
    control : int64 array
        The words with which the kernel shares a call.
    job : Job or None
        The job of the current generation.
    error : BaseException or None
        The exception that a worker raised.
    caller : Parker
        The parker of the caller.
    """

    def __init__(self) -> None:
        self._free = threading.Lock()
        self.control: Ints = np.zeros(words.WIDTH, np.int64)
        self.job: Job | None = None
        self.error: BaseException | None = None
        self.caller = Parker()
        self._workers: list[_Worker] = []
        self._generation, self._ended = 0, 0.0
        self._skip = self._losses = 0

    def take(self) -> bool:
        """Return whether the caller may use the pool; if so, it must `give` it back.

        It may not while another caller uses the pool, nor for some calls after workers gained nothing: if other
        processes keep the cores busy, a worker may have to share the caller's own core.
        """
        if self._skip:
            self._skip -= 1
            return False
        return self._free.acquire(False)

    def give(self) -> None:
        """Let others use the pool."""
        self._free.release()

    def share(self, work: Work, pieces: int, workers: int) -> None:
        """Do the pieces of `work` on this thread and on up to `workers` other threads.

        The caller sets the words of `control` that say what to run.
        """
        control = self.control
        while len(self._workers) < workers:
            self._workers.append(_Worker(self, len(self._workers)))
        self._generation += 1
        control[words.PIECES], control[words.DONE], control[words.PATIENCE] = pieces, 0, _LOOKS
        control[words.LOOKS] = _LOOKS if perf_counter() - self._ended < _CLOSE else 0
        helpers = self._workers[:workers]
        processors = placement.send_away([worker.native_id for worker in helpers if worker.parker.is_parked()])
        self.job = Job(self._generation, workers, work, processors)
        start, used = perf_counter(), thread_time()
        for worker in helpers:
            worker.parker.unpark()
        try:
            mine = work(-self._generation)
            used = thread_time() - used
            if self._is_open() and not wait(control):
                while self._is_open():
                    self.caller.park(self._is_open)
            if self.error is not None:
                raise self.error
        except BaseException:
            _replace(self)  # workers may still be busy with this generation
            raise
        finally:
            self.job = None
            # A worker that comes late must not take the next generation's pieces for further pieces of this one.
            control[words.CLAIM] = (self._generation + 1) * words.MAX_PIECES - 1
        self._ended = perf_counter()
        alone = used / max(mine, 1) * pieces
        self._losses = self._losses + 1 if self._ended - start > 0.95 * alone else 0
        if self._losses and alone < _LONG and self._losses % LOSSES == 0:
            self._skip = min(4 ** (self._losses // LOSSES), MAX_SKIPPED)

    def _is_open(self) -> bool:
        """Return whether some pieces remain and no worker has failed."""
        return self.error is None and bool(self.control[words.DONE] < self.control[words.PIECES])

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.end()


class _Worker:
    def __init__(self, pool: WorkerPool, number: int) -> None:
        self._pool, self._number, self._generation, self._ends = pool, number, 0, False
        self.parker = Parker()
        self._thread = threading.Thread(target=self._run, name="dcformat", daemon=True)
        self._thread.start()
        assert self._thread.native_id is not None  # it has started
        self.native_id: int = self._thread.native_id

    def end(self) -> None:
        self._ends = True
        self.parker.unpark()

    def _run(self) -> None:
        while not self._ends:
            job = self._next_job()
            if job is None:
                self.parker.park(self._is_idle)
                continue
            self._generation = job.generation
            placement.stay(job.processors)
            try:
                job.work(self._generation)
            except BaseException as error:
                self._pool.error = error
            self._pool.caller.unpark()
            del job  # and the caller's arrays with it

    def _next_job(self) -> Job | None:
        """Return a job that is new to this worker and asks for it."""
        job = self._pool.job
        if job is None or job.generation == self._generation or self._number >= job.workers:
            return None
        return job

    def _is_idle(self) -> bool:
        return not self._ends and self._next_job() is None


_pool = WorkerPool()


def current() -> WorkerPool:
    """Return this process's pool."""
    return _pool


def renew() -> None:
    """Begin with a new pool, and end the workers of the current one."""
    global _pool
    old, _pool = _pool, WorkerPool()
    old.close()


def _replace(pool: WorkerPool) -> None:
    """Drop a pool whose generation did not end."""
    if _pool is pool:
        renew()
    else:
        pool.close()


def _after_fork() -> None:
    """Begin with a new pool in a child process, because its parent's threads do not survive a fork."""
    global _pool
    _pool = WorkerPool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _pool.close())
