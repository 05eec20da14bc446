"""Fuzzes every entry point of the package: ``python fuzz/main.py --seconds 600 --jobs 2``.

Execution `index` of seed `seed` is the same wherever it runs: the door, the input, and the door's actions.
An input that breaks a promise is saved in a file named after the door and the reason, with a line in a log beside it;
``python fuzz/main.py --replay FILE --door DOOR`` runs it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("", "runtime", "cli", "pruning", "interop")]

#: The ways in which kernels run: the environment, and the factor for the allowed processor time.
VARIANTS: dict[str, tuple[dict[str, str], float]] = {
    "compiled": ({}, 1.0),
    "bounds": ({"NUMBA_BOUNDSCHECK": "1"}, 4.0),
    "python": ({"NUMBA_DISABLE_JIT": "1"}, 60.0),
}
#: One in `MEASURED` executions has its exact peak of memory measured.
MEASURED = 32
#: Seconds of clock time after which an execution is ended from outside.
HANGS = 120.0
#: Number of files that are kept for one cause: the smallest ones.
KEPT = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code, 1 if there are findings."""
    options = _options(arguments)
    environment, slowness = VARIANTS[options.variant]
    # Malloc's arenas for threads would take address space, which is limited.
    os.environ.update(environment, MALLOC_ARENA_MAX="1", COLUMNS="100")
    if options.replay is not None:
        return _replay(options, slowness)
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as folder:
        os.environ["TMPDIR"] = folder  # for all jobs, including those that are killed
        return _run(options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz every entry point of the package.")
    parser.add_argument("--seconds", type=float, default=600, help="seconds to run, by the clock [600]")
    parser.add_argument("--jobs", type=int, default=2, help="processes [2]")
    parser.add_argument("--doors", default="", help="names separated by commas [all]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs [0]")
    parser.add_argument("--first", type=int, default=0, help="number of the first execution [0]")
    parser.add_argument("--count", type=int, default=1 << 62, help="maximum number of executions")
    parser.add_argument("--variant", choices=VARIANTS, default="compiled", help="how kernels run [compiled]")
    parser.add_argument("--seeds", type=Path, help="folder of additional .dcf files to start from")
    parser.add_argument("--out", type=Path, default=ROOT / "fuzz" / "work", help="where findings go [fuzz/work]")
    parser.add_argument("--replay", type=Path, help="run one file through --door, and show what happens")
    parser.add_argument("--door", help="the door for --replay")
    return parser.parse_args(arguments)


def _replay(options: argparse.Namespace, slowness: float) -> int:
    from fuzz.doors import all_doors
    from fuzz.guard import Guard

    door, data = all_doors()[options.door], options.replay.read_bytes()
    warnings.simplefilter("error")
    guard = Guard(slowness)
    guard.run(door, data[:4])
    for measure in (False, True):
        outcome, finding = guard.run(door, data, measure=measure)
        print(f"{outcome}: {finding.kind}: {finding.reason}" if finding else f"{outcome}: nothing found")
        if finding is not None:
            return 1
    return 0


# --- the worker -----------------------------------------------------------------------------------------------------


class Inputs:
    """Makes the input of every execution from its number.

    Parameters
    ----------
    names : sequence of str
        The doors; all of them if empty.
    more : Path or None
        A folder of further seeds.
    """

    def __init__(self, names: Sequence[str], more: Path | None) -> None:
        from dcformat import layout
        from fuzz.doors import all_doors
        from fuzz.seeds import seeds

        known = all_doors()
        self.doors = [known[name] for name in names or known]
        self._weights = list(accumulate(door.weight for door in self.doors))
        self._raw, self._files = seeds(more)
        self._networks = [file for file in self._files if file.section(layout.SECTION_GRAPH) is not None]

    def make(self, seed: int, index: int) -> tuple[int, bytes]:
        """Return the number of the door, and the input."""
        from fuzz import delta_doors, foreign, mutators, packing_doors, primitives, seeds

        random = Random(seed << 44 | index)
        at = random.choices(range(len(self.doors)), cum_weights=self._weights)[0]
        source = self.doors[at].source
        makers = {
            **foreign.MAKERS, **packing_doors.MAKERS, "delta": delta_doors.delta, "difference": delta_doors.difference,
        }  # fmt: skip
        if source in makers:
            return at, makers[source](random)
        what = random.randrange(400)
        if what == 0:
            return at, seeds.model_file(random)
        if what < 20:
            return at, random.choice(self._raw)
        if what < 40:
            return at, primitives.change_bytes(random, random.choice(self._raw))
        begin = self._networks if source == "network" else self._files
        return at, mutators.mutate(random, random.choice(begin), self._files)


def _work(job: int, options: argparse.Namespace, numbers: Any) -> None:
    """Run every `jobs`-th execution from the job's number on; `numbers` is shared (see `_Board`)."""
    from fuzz.guard import Guard, hottest

    board = _Board(numbers, job)
    inputs = Inputs(options.doors.split(",") if options.doors else (), options.seeds)
    warnings.simplefilter("error")
    guard = Guard(VARIANTS[options.variant][1])
    _warm_up(inputs, guard, options.variant)
    guard.limit_memory((1 if options.variant == "compiled" else 8) * 256 << 20)
    collected = Collected(options.out)
    index = board.next or options.first + job
    until = board.deadline(options.seconds)
    while time.time() < until and index < options.first + options.count:
        board.begin(index)
        at, data = inputs.make(options.seed, index)
        outcome, finding = guard.run(inputs.doors[at], data, measure=index // options.jobs % MEASURED == 0)
        board.end(at, outcome in ("ok", "exit 0"))
        if finding is not None:
            where = hottest(inputs.doors[at], data) if finding.kind == "slow" else ""
            collected.add(finding, data, index, where)
        index += options.jobs
    board.begin(-1)


def _warm_up(inputs: Inputs, guard: Any, variant: str) -> None:
    """Load or compile kernels and import modules before anything is measured."""
    from dcformat_cli.compiling import all_kernels

    from dcformat import jit

    if variant == "compiled":
        jit.warm(all_kernels())
    for index in range((100 if variant == "compiled" else 5) * len(inputs.doors)):
        at, data = inputs.make(-1 & 0xFFFF, index)
        guard.run(inputs.doors[at], data)


class Collected:
    """The findings of a run on disk: for each cause, the few smallest files, and a log with a line for each finding."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, finding: Any, data: bytes, index: int, where: str = "") -> None:
        """Save an input if its cause is new or it is smaller than a kept one."""
        label = finding.label + ("-" + where.replace(":", "-") if where else "")
        kept = sorted(self._folder.glob(f"{label}.*.bin"), key=lambda path: path.stat().st_size)
        with (self._folder / f"{label}.log").open("a") as log:
            log.write(f"{index}\t{len(data)}\t{finding.door}\t{finding.kind}\t{finding.reason!r}\n")
        if len(kept) >= KEPT:
            if kept[-1].stat().st_size <= len(data):
                return
            kept[-1].unlink()
        (self._folder / f"{label}.{index}.bin").write_bytes(data)


class _Board:
    """Numbers that a job shares with the process that watches it: its execution, when that began, and all counts."""

    FIELDS = 4

    def __init__(self, numbers: Any, job: int) -> None:
        self._numbers, self._start = numbers, job * (self.FIELDS + 2 * 64)

    @property
    def next(self) -> int:
        """The execution to continue with after one that ended the process; 0 at first."""
        return int(self._numbers[self._start + 2])

    @next.setter
    def next(self, index: int) -> None:
        self._numbers[self._start + 2] = index

    def deadline(self, seconds: float) -> float:
        """Return the time to stop: `seconds` after the job first asked, even if its process has been restarted."""
        self._numbers[self._start + 3] = self._numbers[self._start + 3] or time.time() + seconds
        return float(self._numbers[self._start + 3])

    def begin(self, index: int) -> None:
        """Record that an execution begins now."""
        self._numbers[self._start + 1] = time.time()
        self._numbers[self._start] = index

    def end(self, door: int, good: bool) -> None:
        """Count an execution."""
        at = self._start + self.FIELDS + 2 * door
        self._numbers[at] += 1
        self._numbers[at + 1] += good

    @property
    def index(self) -> int:
        """The execution that is running, or -1."""
        return int(self._numbers[self._start])

    @property
    def since(self) -> float:
        """The time when it began."""
        return float(self._numbers[self._start + 1])

    def counts(self, door: int) -> tuple[int, int]:
        """Return the number of a door's executions, and how many of them were accepted."""
        at = self._start + self.FIELDS + 2 * door
        return int(self._numbers[at]), int(self._numbers[at + 1])


# --- the watcher ----------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    context = multiprocessing.get_context("spawn")
    numbers = context.RawArray("d", options.jobs * (_Board.FIELDS + 2 * 64))
    boards = [_Board(numbers, job) for job in range(options.jobs)]
    start = time.time()

    def begin(job: int) -> Any:
        boards[job].begin(-1)
        process = context.Process(target=_work, args=(job, options, numbers), daemon=True)
        process.start()
        return process

    processes = [begin(job) for job in range(options.jobs)]
    deaths: list[tuple[int, str]] = []
    while any(process.is_alive() for process in processes):
        time.sleep(0.5)
        for job, process in enumerate(processes):
            index, since = boards[job].index, boards[job].since
            hangs = process.is_alive() and index >= 0 and time.time() - since > HANGS
            if hangs:
                process.kill()
                process.join()
            if not process.is_alive() and index >= 0:
                deaths.append((index, "hangs" if hangs else f"ends the process ({process.exitcode})"))
                boards[job].next = index + options.jobs
                processes[job] = begin(job)
    if any(process.exitcode for process in processes):
        return 2  # it said why
    return _report(options, boards, deaths, time.time() - start)


def _report(options: argparse.Namespace, boards: list[_Board], deaths: list[tuple[int, str]], seconds: float) -> int:
    """Save the inputs that ended a process, and print the executions and findings as Markdown."""
    from fuzz.doors import all_doors
    from fuzz.guard import Finding

    known = all_doors()
    doors = [known[name] for name in options.doors.split(",")] if options.doors else list(known.values())
    collected = Collected(options.out)
    if deaths:
        inputs = Inputs([door.name for door in doors], options.seeds)
    for index, how in deaths:
        at, data = inputs.make(options.seed, index)
        collected.add(Finding(doors[at].name, "death", how, how), data, index)
    print(f"variant {options.variant}, seed {options.seed}, {options.jobs} jobs, {seconds:,.0f} s\n")
    print("| door | executions | accepted | findings |\n|---|---|---|---|")
    rows, logs = [], sorted(options.out.glob("*.log"))
    found = {log.stem: log.read_text().splitlines() for log in logs}
    for at, door in enumerate(doors):
        done, good = (sum(pair) for pair in zip(*(board.counts(at) for board in boards), strict=True))
        causes = sum(any(line.split("\t")[2] == door.name for line in lines) for lines in found.values())
        rows.append({"door": door.name, "executions": done, "accepted": good, "causes": causes})
        print(f"| {door.name} | {done:,} | {100 * good / max(done, 1):.0f} % | {causes or 'none'} |")
    print(f"| together | {sum(row['executions'] for row in rows):,} | | {len(found) or 'none'} |")
    for label, lines in found.items():
        print(f"\n{label}: {len(lines)} times; {lines[-1].split(chr(9), 4)[-1][:200]}")
    (options.out / f"summary-{options.variant}-{options.seed}.json").write_text(json.dumps(rows, indent=1))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
