"""The backend of compiled kernels: programs, arenas and threads around `kernels.run`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from dcformat.errors import MemoryLimitError
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat_runtime import kernels, machine
from dcformat_runtime.network import Floats, Ints, Network
from dcformat_runtime.program import Plan, Program, build
from dcformat_runtime.storage import aligned_zeros

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

#: Estimated nanoseconds of work for each thread, below which another thread costs more than it brings.
_WORTH_A_THREAD = 60_000.0

_WHOLE: Ints = np.zeros(8, np.int64)
_FLOAT32 = np.dtype(np.float32)
_empty = np.empty


class _Runner:
    """A program and its idle arenas. Each call takes one, so calls from several threads do not meet."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.mem = program.mem
        self.idle: list[Floats] = []

    def take(self) -> Floats:
        try:
            return self.idle.pop()
        except IndexError:
            return aligned_zeros(self.program.arena)

    def give(self, arena: Floats) -> None:
        self.idle.append(arena)


class KernelEngine:
    """Runs a network by compiled kernels. One image and many have a program each, made when it is first needed."""

    name = "numba"

    def __init__(
        self,
        network: Network,
        threads: int,
        exact: bool,
        *,
        most: int | None = None,
        permutes: bool | None = None,
        limit: int = DEFAULT_MAX_MEMORY,
    ) -> None:
        self._most = most or machine.blocks_in_registers()
        self._permutes = machine.permutes() if permutes is None else permutes
        self._network, self.threads, self._exact, self._limit = network, threads, exact, limit
        self._lock = threading.Lock()
        self._runners: dict[bool, _Runner] = {}
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._outputs = network.outputs
        self._one_shape = 1, network.outputs
        self._one: tuple[list[Floats], Floats] | None = None
        self._kernel = kernels.run.resolve()

    def __getstate__(self) -> None:
        raise TypeError("an engine cannot be pickled; its session can")

    def run(self, x: Floats) -> Floats:
        """Return the results ``(batch, outputs)`` of float32 ``(batch, features)``; `x` is not changed."""
        n = len(x)
        if n == 1 and self._one is not None:  # where every line counts
            idle, mem = self._one
            y = _empty(self._one_shape, _FLOAT32)
            try:
                arena = idle.pop()
            except IndexError:
                arena = aligned_zeros(self._runners[True].program.arena)
            self._kernel(x, y, arena, mem, _WHOLE)
            idle.append(arena)
            return y
        y = _empty((n, self._outputs), _FLOAT32)
        if n == 1:
            runner = self._runners.get(True) or self._runner(True)
            if self._is_shared(runner.program):
                self._together(runner, x, y)
            else:
                self._part(runner, x, y)
        elif n:
            self._many(x, y)
        return y

    def _is_shared(self, program: Program) -> bool:
        """Whether one image is work enough to share it, operator by operator."""
        return self.threads > 1 and program.choices[1].cost(1) > 4 * _WORTH_A_THREAD

    def _runner(self, single: bool) -> _Runner:
        with self._lock:
            if single not in self._runners:
                program = build(
                    self._network, single=single, exact=self._exact, most=self._most, permutes=self._permutes
                )
                need = program.mem.nbytes + 4 * program.arena
                if need > self._limit:
                    raise MemoryLimitError(
                        "kernel tables and arena", got=f"{need} bytes", expected=f"at most {self._limit}"
                    )
                self._runners[single] = _Runner(program)
                if single and not self._is_shared(program):
                    self._one = self._runners[True].idle, program.mem
            return self._runners[single]

    def _many(self, x: Floats, y: Floats) -> None:
        runner = self._runners.get(False) or self._runner(False)
        n = len(x)
        whole = runner.program.choices[-1]
        work = n * whole.cost(whole.tile) / whole.tile
        step = 1 if whole.lanes == 1 else 16
        parts = min(self.threads, int(work / _WORTH_A_THREAD), -(-n // step))
        if parts <= 1:
            self._part(runner, x, y)
            return
        size = -(-n // parts)
        step = 64 if size >= 128 else step
        size = -(-size // step) * step
        cuts = list(range(size, n, size))
        tasks = [
            self._executor().submit(self._part, runner, x[start : start + size], y[start : start + size])
            for start in cuts
        ]
        self._part(runner, x[:size], y[:size])
        for task in tasks:
            task.result()

    def _together(self, runner: _Runner, x: Floats, y: Floats) -> None:
        """Run one image, each long operator on all threads."""
        arena = runner.take()
        for _, cost, control in walk(runner.program, 1):
            parts = self.threads if cost > _WORTH_A_THREAD else 1
            tasks = []
            for part in range(parts - 1, -1, -1):
                mine = control.copy()
                mine[6:] = part, parts
                if part:
                    tasks.append(self._executor().submit(self._kernel, x, y, arena, runner.mem, mine))
                else:
                    self._kernel(x, y, arena, runner.mem, mine)
            for task in tasks:
                task.result()
        runner.give(arena)

    def _part(self, runner: _Runner, x: Floats, y: Floats) -> None:
        arena = runner.take()
        self._kernel(x, y, arena, runner.mem, _WHOLE)
        runner.give(arena)

    def _executor(self) -> ThreadPoolExecutor:
        """Return this process's threads: those of a parent do not survive a fork."""
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = os.getpid(), ThreadPoolExecutor(self.threads, "dcformat")
            return self._pool[1]

    def profile(self, x: Floats) -> list[tuple[str, float]]:
        """Return each layer's name and seconds, in order of execution; copies in and out are layers too."""
        runner = self._runner(len(x) == 1)
        y = np.empty((len(x), self._outputs), np.float32)
        arena = runner.take()
        seconds: dict[str, float] = {}
        for name, _, control in walk(runner.program, len(x)):
            start = perf_counter()
            self._kernel(x, y, arena, runner.mem, control)
            seconds[name] = seconds.get(name, 0.0) + perf_counter() - start
        runner.give(arena)
        return list(seconds.items())


def walk(program: Program, images: int) -> Iterator[tuple[str, float, Ints]]:
    """Yield every operator of a call by itself: its layer's name, its estimated cost, the `control` that runs it."""
    done = 0
    while done < images:
        plan: Plan = program.choices[min(images - done, len(program.choices) - 1)]
        count = min(plan.tile, images - done)
        for stage, groups in enumerate((-(-count // plan.lanes), 1)):
            for g in range(groups):
                for o, (name, cost) in enumerate(zip(plan.names[stage], plan.costs[stage], strict=True)):
                    yield name, cost, np.array([1, plan.address, done, stage, g, o, 0, 1], np.int64)
        done += count
