"""Runs programs: arenas and threads around `kernels.interpreter.run`."""

from __future__ import annotations

import os
from _thread import LockType, allocate_lock
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from time import perf_counter, sleep
from typing import TYPE_CHECKING

import numpy as np

from dcformat_runtime.kernels import control as words
from dcformat_runtime.program_record import Program, TilePlan, aligned_zeros

if TYPE_CHECKING:
    from dcformat_runtime.sharing_gain import SharingGain
    from dcformat_runtime.weight_matrices import Floats, Ints
    from dcformat_runtime.worker_pool import WorkerPool

#: Estimated nanoseconds until a worker of the pool begins.
HAND_OVER = 10_000.0
#: Estimated nanoseconds that each further piece of shared work adds.
_PIECE = 500.0

_WHOLE: Ints = np.zeros(words.WIDTH, np.int64)
_FLOAT32 = np.dtype(np.float32)
_empty = np.empty


class _Runner:
    """A program and its idle arenas. Each call takes its own arena, so concurrent calls do not interfere."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.mem = program.mem
        self.idle: list[Floats] = []
        self.gain: SharingGain | None = None

    def take(self) -> Floats:
        try:
            return self.idle.pop()
        except IndexError:
            return aligned_zeros(self.program.arena)

    def give(self, arena: Floats) -> None:
        self.idle.append(arena)


class ProgramEngine:
    """Runs the programs of a network, with one thread or several. It asks for each program on first use.

    Parameters
    ----------
    make : callable
        Returns the program for one image if it is given True, and that for many if it is given False; the latter is
        not asked for if `alike`.
    kernel : callable
        `kernels.interpreter.run`.
    outputs : int
        The number of floats in the results of one image.
    threads : int
        Maximum number of threads that share a call, the caller included.
    alike : bool
        Whether the program for one image serves batches too.
    hand_over : float
        Estimated nanoseconds until a worker begins; work is shared only if that saves time.

    Attributes
    ----------
    threads, alike
        The parameters of these names.
    """

    name = "numba"

    def __init__(
        self,
        make: Callable[[bool], Program],
        kernel: Callable[..., int],
        outputs: int,
        threads: int,
        *,
        alike: bool,
        hand_over: float = HAND_OVER,
    ) -> None:
        self._make, self._kernel, self._outputs, self.threads = make, kernel, outputs, threads
        self.alike, self._hand_over = alike, hand_over
        self._locks: dict[int, LockType] = {}
        self._runners: dict[bool, _Runner] = {}
        self.cut = lru_cache(64)(self._find_cut)
        self._one_shape = 1, outputs
        self._one: tuple[list[Floats], Floats] | None = None

    def __getstate__(self) -> None:
        raise TypeError("an engine cannot be pickled; its session can")

    def run(self, x: Floats) -> Floats:
        """Return the results ``(batch, outputs)`` of float32 ``(batch, features)``; `x` is not changed."""
        n = len(x)
        if n == 1 and self._one is not None:  # the fast path: every line counts here
            idle, mem = self._one
            y = _empty(self._one_shape, _FLOAT32)
            try:
                arena = idle.pop()
            except IndexError:
                arena = aligned_zeros(self._runners[True].program.arena)
            self._kernel(x, y, arena, mem, _WHOLE, 0)
            idle.append(arena)
            return y
        y = _empty((n, self._outputs), _FLOAT32)
        if n == 1:
            runner = self._runners.get(True) or self._runner(True)
            if runner.gain is None:
                self._part(runner, x, y, _WHOLE, 0)
            else:
                self._one_image(runner, runner.gain, x, y)
        elif n:
            self._many(x, y)
        return y

    def program(self, single: bool) -> Program:
        """Return the program for one image (`single`), or for many."""
        return self._runner(single).program

    def _is_shared(self, program: Program) -> bool:
        """Return whether one image is enough work to be shared, operator by operator."""
        pieces = len(program.choices[1].names[0]) * self.threads
        return self.threads > 1 and pieces < words.MAX_PIECES and program.costs[1] > 20 * self._hand_over

    def _runner(self, single: bool) -> _Runner:
        # Each process has a lock of its own: a child must not wait for a thread that its fork left behind.
        with self._locks.setdefault(os.getpid(), allocate_lock()):
            if single not in self._runners:
                program = self._make(single or self.alike)
                made = _Runner(program)
                self._runners.update(dict.fromkeys((True, False) if self.alike else (single,), made))
                if self._is_shared(program):
                    made.gain = _sharing_gain()
                elif single or self.alike:
                    self._one = self._runners[True].idle, program.mem
            return self._runners[single]

    def _one_image(self, runner: _Runner, gain: SharingGain, x: Floats, y: Floats) -> None:
        """Run one image, with other threads if that pays and they are free."""
        pool = _worker_pool() if gain.is_next_shared() else None
        start = perf_counter()
        if pool is not None and pool.take():
            try:
                self._together(pool, runner, x, y)
            finally:
                pool.give()
            gain.add_shared(perf_counter() - start)
        else:
            self._part(runner, x, y, _WHOLE, 0)
            gain.add_alone(perf_counter() - start)

    def _many(self, x: Floats, y: Floats) -> None:
        runner = self._runners.get(False) or self._runner(False)
        size, threads = self.cut(len(x)) if self.threads > 1 else (0, 1)
        if threads == 1:
            self._part(runner, x, y, _WHOLE, 0)
            return
        # The pieces are the same with and without workers, so the same call gives the same bits.
        pieces, pool = -(-len(x) // size), _worker_pool()
        shared = pool.take()
        control = pool.control if shared else np.zeros(words.WIDTH, np.int64)
        control[words.MODE], control[words.SIZE], control[words.PIECES] = words.EVERYTHING, size, pieces
        work = partial(self._part, runner, x, y, control)
        if not shared:
            work(-1)
            return
        try:
            pool.share(work, pieces, threads - 1)
        finally:
            pool.give()

    def _find_cut(self, n: int) -> tuple[int, int]:
        """Return how to cut a batch: the images in a piece, and the number of threads."""
        costs = self._runner(False).program.costs
        all_images = len(costs) - 1
        best, cut = 0.9 * (n // all_images * costs[all_images] + costs[n % all_images]), (n, 1)
        for size in (1, 2, 4, 8, 16, 32, 48, 64):
            pieces = -(-n // size)
            threads = min(self.threads, pieces)
            each = costs[size] + _PIECE
            cost = max(-(-pieces // threads) * each, self._hand_over + pieces // threads * each)
            if cost < best and threads > 1 and pieces < words.MAX_PIECES:
                best, cut = cost, (size, threads)
        return cut

    def _together(self, pool: WorkerPool, runner: _Runner, x: Floats, y: Floats) -> None:
        """Run one image; every operator runs in parts, which threads claim one after another."""
        plan, control = runner.program.choices[1], pool.control
        control[words.MODE], control[words.PLAN], control[words.PARTS] = words.TOGETHER, plan.address, self.threads
        pieces = len(plan.names[0]) * self.threads
        arena = runner.take()
        pool.share(partial(self._parts, runner, x, y, arena, control), pieces, self.threads - 1)
        runner.give(arena)

    def _parts(self, runner: _Runner, x: Floats, y: Floats, arena: Floats, control: Ints, generation: int) -> int:
        """Run parts of operators until all are claimed.

        The kernel returns early if the thread that has the last parts of an operator does not run; this gives it time
        to.
        """
        done: int = self._kernel(x, y, arena, runner.mem, control, generation)
        first = abs(generation) * words.MAX_PIECES
        while first <= control[words.CLAIM] < first + control[words.PIECES]:
            sleep(0)
            done += self._kernel(x, y, arena, runner.mem, control, abs(generation))
        return done

    def _part(self, runner: _Runner, x: Floats, y: Floats, control: Ints, generation: int) -> int:
        arena = runner.take()
        pieces: int = self._kernel(x, y, arena, runner.mem, control, generation)
        runner.give(arena)
        return pieces

    def profile(self, x: Floats) -> list[tuple[str, float]]:
        """Return each layer's name and seconds, in order of execution; the copies in and out count as layers."""
        runner = self._runner(len(x) == 1)
        y = np.empty((len(x), self._outputs), np.float32)
        arena = runner.take()
        seconds: dict[str, float] = {}
        for name, _, control in walk(runner.program, len(x)):
            start = perf_counter()
            self._kernel(x, y, arena, runner.mem, control, 0)
            seconds[name] = seconds.get(name, 0.0) + perf_counter() - start
        runner.give(arena)
        return list(seconds.items())


def _worker_pool() -> WorkerPool:
    """Return the process's worker pool; its module is imported on first use."""
    from dcformat_runtime import worker_pool

    return worker_pool.current()


def _sharing_gain() -> SharingGain:
    """Return a new object for a program; its module is imported on first use."""
    from dcformat_runtime.sharing_gain import SharingGain

    return SharingGain()


def walk(program: Program, images: int) -> Iterator[tuple[str, float, Ints]]:
    """Yield the layer's name, the estimated cost and the `control` words of every operator of a call."""
    done = 0
    while done < images:
        plan: TilePlan = program.choices[min(images - done, len(program.choices) - 1)]
        count = min(plan.tile, images - done)
        for stage, groups in enumerate((-(-count // plan.lanes), 1)):
            for g in range(groups):
                for o, (name, cost) in enumerate(zip(plan.names[stage], plan.costs[stage], strict=True)):
                    yield name, cost, np.array([words.ONE, plan.address, done, stage, g, o, 1], np.int64)
        done += count
