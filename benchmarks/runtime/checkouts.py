"""Compares the runtimes of two checkouts, call by call: did a change make the small networks slower?

    git worktree add ../before COMMIT
    python benchmarks/runtime/checkouts.py ../before .

Each checkout has its own process and reads its own copy of the models. Slices of calls are interleaved in random
order, and the ratio is the median over all rounds, so that a disturbance affects both.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns

#: Network, batch, and the number of calls in a slice.
CASES = (("lenet-300-100", 1, 3000), ("lenet-300-100", 64, 1000), ("lenet-5", 1, 3000), ("lenet-5", 64, 150))


def serve(checkout: Path) -> None:
    """Answer each line on stdin, the number of a case, with the nanoseconds of a call."""
    import dcformat_runtime
    import numpy as np

    assert Path(dcformat_runtime.__file__).is_relative_to(checkout)
    cases = []
    for name, batch, calls in CASES:
        session = dcformat_runtime.load(checkout / "models" / f"{name}.dcf", threads=1, backend="numba")
        x = np.random.default_rng(0).random((batch, *session.input_shape), np.float32)
        session(x)
        cases.append((session, x, calls))
    gc.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        session, x, calls = cases[int(line)]
        for _ in range(calls // 20 + 20):
            session(x)
        start = perf_counter_ns()
        for _ in range(calls):
            session(x)
        print((perf_counter_ns() - start) / calls, flush=True)


def start(checkout: Path) -> subprocess.Popen[str]:
    """Start the process of a checkout, and wait until its kernels are compiled."""
    path = os.pathsep.join(str(checkout / folder) for folder in ("", "runtime"))
    process = subprocess.Popen(
        [sys.executable, __file__, str(checkout), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{checkout}: the process failed")
    return process


def ask(process: subprocess.Popen[str], case: int) -> float:
    """Return the nanoseconds of a call."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{case}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def compare(before: Path, after: Path, rounds: int) -> None:
    """Print a table of both times and their ratio."""
    processes = start(before), start(after)
    times: list[list[tuple[float, float]]] = [[] for _ in CASES]
    for _ in range(rounds):
        for case, found in enumerate(times):
            pair = {which: ask(processes[which], case) for which in random.sample((0, 1), 2)}
            found.append((pair[0], pair[1]))
    for process in processes:
        process.communicate()
    print("| network | batch | before, us | after, us | after / before |\n|---|---|---|---|---|")
    for (name, batch, _), found in zip(CASES, times, strict=True):
        medians = [statistics.median(each) / 1e3 for each in zip(*found, strict=True)]
        ratio = statistics.median(b / a for a, b in found)
        print(f"| {name} | {batch} | {medians[0]:.2f} | {medians[1]:.2f} | {ratio:.3f} |")


def main() -> None:
    """Compare two checkouts, or serve one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.before.resolve())
    elif options.after is None:
        parser.error("expected two checkouts, found one")
    else:
        compare(options.before.resolve(), options.after.resolve(), options.rounds)


if __name__ == "__main__":
    main()
