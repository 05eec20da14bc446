"""Compares the first call of a network, which lays out its tables, with later ones.

    python benchmarks/runtime/first_call.py [resnet-50/0.1 mobilenet-v1/0.1 FILE.dcf ...]

Each round loads the network anew. Times are CPU time of the thread, medians of all rounds but the first, in which
kernels are loaded.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from pathlib import Path
from time import thread_time_ns

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parents[1] / folder) for folder in ("runtime", "", "benchmarks"))]

import dcformat_runtime  # noqa: E402
from machine import describe  # noqa: E402
from networks import inputs, load  # noqa: E402

import dcformat  # noqa: E402
from dcformat import Model  # noqa: E402

NETWORKS = ("resnet-50/0.05", "resnet-50/0.1", "resnet-50/0.5", "mobilenet-v1/0.1", "vgg-16/0.1")


def measure(model: Model, rounds: int) -> tuple[float, float]:
    """Return the milliseconds of the first call, and of a later one."""
    data, x = dcformat.dumps(model, mode="fast"), inputs(model, 1)[0]
    first, later = [], []
    for _ in range(rounds + 1):
        session = dcformat_runtime.load(data, threads=1, backend="numba")
        gc.collect()
        times = []
        for _ in range(12):
            start = thread_time_ns()
            session(x)
            times.append((thread_time_ns() - start) / 1e6)
        first.append(times[0])
        later.append(statistics.median(times[1:]))
    return statistics.median(first[1:]), statistics.median(later[1:])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(describe())
    print("\n| network | first call, ms | later calls, ms | ratio |\n|---|---|---|---|")
    for name in options.networks:
        first, later = measure(load(name), options.rounds)
        print(f"| {name} | {first:.1f} | {later:.2f} | {first / later:.2f} |", flush=True)


if __name__ == "__main__":
    main()
