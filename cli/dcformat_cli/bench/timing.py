"""Time runtimes against each other in short turns, so that other work on the machine disturbs them all equally.

`python -m dcformat_cli.bench.timing` is the worker of `dcformat bench`. It is a separate process because most libraries
read the number of threads from the environment when they are loaded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

Floats = npt.NDArray[np.float32]
Run = Callable[[Floats], Floats]

#: Variables that set a library's number of threads, and variables that keep waiting threads from spinning.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}

#: One turn of a runtime: its minimum duration in seconds, and its minimum and maximum number of calls.
TURN_SECONDS, MIN_CALLS, MAX_CALLS = 0.02, 3, 2000


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process that may use `threads` threads."""
    return {**os.environ, **QUIET, **dict.fromkeys(THREADS, str(threads))}


@dataclass
class Measured:
    """The nanoseconds of every call, and the error of the outputs relative to the reference's largest output."""

    error: float
    calls: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return medians and the 99th percentile in microseconds."""
        times = np.array(self.calls, np.float64) / 1000
        return {
            "median_us": round(float(np.median(times)), 3),
            "p99_us": round(float(np.percentile(times, 99)), 3),
            "calls": len(self.calls),
            "error": self.error,
        }


def relative_error(found: Floats, expected: Floats) -> float:
    """Return the largest difference divided by the largest expected magnitude; infinity if the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected).max()) if expected.size else 0.0
    return float(np.abs(found - expected).max()) / (scale or 1.0) if expected.size else 0.0


def interleave(runs: Mapping[str, Run], inputs: Sequence[Floats], expected: Floats, rounds: int) -> dict[str, Measured]:
    """Check each runtime on the first input, then time all of them in turn.

    Parameters
    ----------
    runs : mapping
    inputs : sequence of ndarray
        Inputs of the same shape; calls take them in turn, so that no runtime can reuse an output.
    expected : ndarray
        The correct outputs for the first input.
    rounds : int
    """
    out = {name: Measured(relative_error(np.array(run(inputs[0])), expected)) for name, run in runs.items()}
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            out[name].calls += one_turn(runs[name], inputs)
    return out


def one_turn(run: Run, inputs: Sequence[Floats]) -> list[int]:
    """Return the nanoseconds of each call of a turn except the first.

    If the system gave the processor to another program during a call, the call's own CPU time counts.
    """
    clock, used = time.perf_counter_ns, time.process_time_ns
    run(inputs[-1])
    calls: list[int] = []
    limit = clock() + int(TURN_SECONDS * 1e9)
    while len(calls) < MAX_CALLS:
        x = inputs[len(calls) % len(inputs)]
        before, used_before = _interruptions(), used()
        start = clock()
        run(x)
        end = clock()
        interrupted = _interruptions() != before
        calls.append(min(end - start, used() - used_before) if interrupted else end - start)
        if end > limit and len(calls) >= MIN_CALLS:
            break
    return calls


def _interruptions() -> int:
    """Return how often this process has lost the processor; 0 if the system does not count this."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource is not None else 0


def batches(source: Floats | None, shape: Sequence[int], batch: int) -> list[Floats]:
    """Return inputs of one batch size, taken from an array, or normally distributed from a fixed seed."""
    count = 16 if batch == 1 else 4
    random = np.random.default_rng(batch)
    if source is None:
        return [random.standard_normal((batch, *shape), np.float32) for _ in range(count)]
    picked = random.integers(0, len(source), (count, batch))
    return [np.ascontiguousarray(source[rows]).reshape(batch, *shape) for rows in picked]


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request of `dcformat bench` for one number of threads.

    Returns
    -------
    dict
        ``missing`` maps names to reasons; ``results`` is a list with ``batch`` and each runtime's `Measured.summary`.
    """
    import dcformat
    from dcformat_cli.bench.other_runtimes import RUNTIMES, reference

    model = dcformat.load(request["file"], **request["options"])
    assert model.graph is not None
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name in request["runtimes"]:
        try:
            runs[name] = RUNTIMES[name](model, request["threads"])
            runs[name](batches(None, model.graph.input_shape, 1)[0])
        except ImportError as error:
            missing[name] = f"not installed ({error})"
        except Exception as error:
            # Other runtimes raise errors of any class for a network that they cannot run. Ours must run it.
            if runs.pop(name, None) is not None and name == "dcformat":
                raise
            missing[name] = f"cannot run this network ({error})"
    source = None if request["input"] is None else np.load(request["input"], allow_pickle=False)
    results = []
    for batch in request["batches"]:
        inputs = batches(source, model.graph.input_shape, batch)
        measured = interleave(runs, inputs, reference(model, inputs[0]), request["rounds"])
        results.append({"batch": batch, "runtimes": {name: m.summary() for name, m in measured.items()}})
    return {"missing": missing, "results": results}


def main() -> None:
    """Read a request from stdin and print the answer; the libraries' own output to stdout goes to stderr."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(measure(json.load(sys.stdin)), answer)
    answer.close()


if __name__ == "__main__":
    main()
