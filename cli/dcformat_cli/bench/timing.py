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
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Graph, Output, Port

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

Floats = npt.NDArray[np.float32]
#: The inputs or outputs of a runtime: an array, or arrays by name if the network has several inputs or outputs.
Arrays = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]
TimedCall = Callable[[Any], Any]

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


def relative_error(found: Arrays, expected: Arrays) -> float:
    """Return the largest difference divided by the largest expected magnitude, or infinity if the shapes differ.

    If there are several outputs, the one that differs most counts.
    """
    if isinstance(found, dict) and isinstance(expected, dict):
        return max(relative_error(found[name], output) for name, output in expected.items())
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return float("inf")
    differs = (found != expected) & ~(np.isnan(found) & np.isnan(expected))
    if not differs.any():
        return 0.0
    difference = float(np.abs(found[differs] - expected[differs]).max())
    scale = float(np.abs(expected).max())
    return difference / (scale or 1.0) if isfinite(difference) and isfinite(scale) else float("inf")


def interleave(
    runs: Mapping[str, TimedCall], inputs: Sequence[Arrays], expected: Arrays, rounds: int
) -> dict[str, Measured]:
    """Check each runtime on the first input, then time all of them in turn.

    Parameters
    ----------
    runs : mapping
    inputs : sequence of ndarray, or of dict of str to ndarray
        Inputs of the same shapes; calls take them in turn, so that no runtime can reuse an output.
    expected : ndarray, or dict of str to ndarray
        The correct outputs for the first input.
    rounds : int
    """
    out = {name: Measured(relative_error(run(inputs[0]), expected)) for name, run in runs.items()}
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            out[name].calls += one_turn(runs[name], inputs)
    return out


def one_turn(run: TimedCall, inputs: Sequence[Arrays]) -> list[int]:
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
    count, random = _count(batch), np.random.default_rng(batch)
    if source is None:
        return [random.standard_normal((batch, *shape), np.float32) for _ in range(count)]
    picked = random.integers(0, len(source), (count, batch))
    return [np.ascontiguousarray(source[rows]).reshape(batch, *shape) for rows in picked]


def named_batches(graph: Graph, batch: int) -> list[dict[str, npt.NDArray[Any]]]:
    """Return inputs by name: normally distributed floats, and whole numbers 0 and 1, which most tables have."""
    random = np.random.default_rng(batch)

    def one(port: Port) -> npt.NDArray[Any]:
        shape = [batch if size is None else size for size in port.full_shape]
        if port.dtype.startswith("float"):
            return random.standard_normal(shape, np.float32).astype(port.dtype)
        return random.integers(0, 2, shape).astype(port.dtype)

    return [{port.name: one(port) for port in graph.inputs} for _ in range(_count(batch))]


def is_plain(graph: Graph) -> bool:
    """Return whether the network has one input and one output, both float32 with the batch first."""
    ports: tuple[Port | Output, ...] = (*graph.inputs, *graph.outputs)
    return len(ports) == 2 and all(port.dtype == "float32" and port.batch_axis == 0 for port in ports)


def _count(batch: int) -> int:
    return 16 if batch == 1 else 4


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
    graph = model.graph
    assert graph is not None
    plain = is_plain(graph)
    source = None if request["input"] is None else np.load(request["input"], allow_pickle=False)

    def inputs_of(batch: int) -> Sequence[Arrays]:
        return batches(source, graph.input_shape, batch) if plain else named_batches(graph, batch)

    runs: dict[str, TimedCall] = {}
    missing: dict[str, str] = {}
    for name in request["runtimes"]:
        if name != "dcformat" and not plain:
            missing[name] = "cannot run this network (bench gives it only one float32 input and output)"
            continue
        try:
            runs[name] = RUNTIMES[name](model, request["threads"])
            runs[name](inputs_of(1)[0])
        except ImportError as error:
            missing[name] = f"not installed ({error})"
        except Exception as error:
            # Other runtimes raise errors of any class for a network that they cannot run. Ours must run it.
            if runs.pop(name, None) is not None and name == "dcformat":
                raise
            missing[name] = f"cannot run this network ({error})"
    results = []
    for batch in request["batches"]:
        inputs = inputs_of(batch)
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
