"""Engines that do units of work on this machine: in this process, or in several others."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, process, resource_tracker
from typing import Protocol

from dcformat_interop.packing.units import Unit, UnitResult, run


class WorkerError(RuntimeError):
    """A worker ended before its work was done."""


class Executor(Protocol):
    """Does units of work, several at a time, in any order."""

    @property
    def slots(self) -> int:
        """Number of units that may be in progress."""

    @property
    def jobs(self) -> int:
        """Number of units for which this machine needs memory at the same time."""

    def submit(self, unit: Unit) -> None:
        """Begin a unit. At most `slots` are in progress."""

    def wait(self) -> tuple[Unit, UnitResult]:
        """Return a finished unit and its result, or raise its error."""

    def close(self) -> None:
        """Stop all work."""


class ThisProcess:
    """Does one unit at a time when its result is waited for."""

    slots = jobs = 1

    def __init__(self) -> None:
        self._units: list[Unit] = []

    def submit(self, unit: Unit) -> None:
        """Keep a unit until `wait` is called."""
        self._units.append(unit)

    def wait(self) -> tuple[Unit, UnitResult]:
        """Do the unit."""
        unit = self._units.pop(0)
        return unit, run(unit)

    def close(self) -> None:
        """Drop the unit that has not begun."""
        self._units.clear()


class Processes:
    """Does units in other processes, which are started afresh: compiled kernels do not survive a fork.

    Parameters
    ----------
    jobs : int
        Number of processes.
    work : callable
        The function that does a unit; tests use another one.
    """

    def __init__(self, jobs: int, work: Callable[[Unit], UnitResult] = run) -> None:
        context = multiprocessing.get_context("spawn")
        self.jobs = self.slots = jobs
        self._idle: list[connection.Connection] = []
        self._busy: dict[connection.Connection, Unit] = {}
        self._processes: dict[connection.Connection, process.BaseProcess] = {}
        try:
            with _later_interrupts():
                for _ in range(jobs):
                    ours, theirs = context.Pipe()
                    worker = context.Process(target=_serve, args=(theirs, work), daemon=True)
                    worker.start()
                    theirs.close()  # so that reading fails when the worker ends
                    self._processes[ours] = worker
                    self._idle.append(ours)
        except BaseException:
            self.close()
            raise

    def submit(self, unit: Unit) -> None:
        """Send a unit to an idle process."""
        pipe = self._idle.pop()
        self._busy[pipe] = unit
        try:
            pipe.send(unit)
        except OSError:
            raise self._ended(pipe) from None

    def wait(self) -> tuple[Unit, UnitResult]:
        """Return the next result.

        Raises
        ------
        WorkerError
            A process was killed.
        Exception
            The error of the unit.
        """
        pipe = connection.wait(list(self._busy))[0]
        assert isinstance(pipe, connection.Connection)  # for the type checker
        try:
            result = pipe.recv()
        except (EOFError, OSError):
            raise self._ended(pipe) from None
        unit = self._busy.pop(pipe)
        self._idle.append(pipe)
        if isinstance(result, Exception):
            raise result
        return unit, result

    def close(self) -> None:
        """Stop all processes."""
        for pipe, worker in self._processes.items():
            pipe.close()
            worker.terminate()
        for worker in self._processes.values():
            worker.join()
        self._processes.clear()

    def _ended(self, pipe: connection.Connection) -> WorkerError:
        worker = self._processes[pipe]
        worker.join()
        code = worker.exitcode or 0
        how = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        return WorkerError(f"a worker process was {how}, perhaps because memory ran out: use fewer --jobs")


@contextmanager
def _later_interrupts() -> Iterator[None]:
    """Handle Ctrl-C after the block. Processes started in it never do so: the one that started them decides."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # Otherwise it starts with the first process, and unblocks signals then.
    held: list[int] = []
    # Processes inherit the mask, but other threads of this one may get the signal too.
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


def _serve(pipe: connection.Connection, work: Callable[[Unit], UnitResult]) -> None:
    """Do units until the other end is closed."""
    while True:
        try:
            unit = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result: UnitResult | Exception = work(unit)
        except Exception as error:
            error.__traceback__ = None
            result = error
        try:
            pipe.send(result)
        except OSError:  # The process that wanted the result was killed.
            return
