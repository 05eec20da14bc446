"""`dcformat bench`: time a file's network on this runtime and on other installed runtimes, side by side."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import click

from dcformat.wording import counted
from dcformat_cli.array_files import read_arrays
from dcformat_cli.bench.other_runtimes import RUNTIMES
from dcformat_cli.bench.timing import environment, is_plain
from dcformat_cli.failures import UnfitError, misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import opened, spooled
from dcformat_cli.shared_options import FileName, as_json, file_argument, max_memory
from dcformat_cli.terminal import TextTable, emit_json, note, say, warn

#: Largest tolerated difference of outputs, relative to the largest output; a greater one is shown with the runtime.
TOLERANCE = 1e-4


def counts(text: str) -> tuple[int, ...]:
    """Parse comma-separated positive integers; the type of an option."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"expected positive integers separated by commas, found {text!r}")
    return tuple(int(part) for part in parts)


#: All runtimes except this package's own.
OTHERS = tuple(name for name in RUNTIMES if name != "dcformat")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The options of the command line; their help texts explain them."""

    file: str
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    rounds: int
    runtimes: tuple[str, ...]
    array: str | None
    max_memory: int | None
    as_json: bool


@click.command("bench")
@file_argument()
@click.option(
    "--batch", "batches", type=counts, default="1,8,64,1024", show_default=True, metavar="N,...", help="Batch sizes."
)
@click.option("--threads", type=counts, default="1", show_default=True, metavar="N,...", help="Numbers of threads.")
@click.option("--rounds", type=click.IntRange(min=1), default=11, show_default=True, help="Turns per runtime.")
@click.option(
    "--peer", "runtimes", multiple=True, type=Choice(OTHERS), help="Compare only with this runtime; may be repeated."
)
@click.option(
    "--input", "array", type=FileName(), metavar="X.npy", help="Take inputs from this array instead of random ones."
)
@max_memory()
@as_json()
def bench_command(**options: Any) -> None:
    """Time the network of FILE (- for stdin) on this runtime and on the other installed runtimes.

    The figures are medians over many calls; the runtimes take short turns. A ratio is the other runtime's time divided
    by this one's. The outputs are compared first: a runtime whose results differ, because it computes in bfloat16 for
    example, is shown with its error. Other programs on the machine disturb the figures.

    A network with several inputs or outputs, or of dtypes other than float32, is timed on this runtime alone, with
    random floats and with whole numbers 0 and 1. One that takes no batch is timed at batch 1.
    """
    _bench(BenchOptions(**options))


def _bench(options: BenchOptions) -> None:
    import dcformat_runtime

    file, array = options.file, options.array
    if file == "-" == array:
        raise misuse("expected FILE or --input from stdin, found both")
    chosen = options.runtimes
    limits: dict[str, Any] = {} if options.max_memory is None else {"max_memory": options.max_memory}
    request: dict[str, Any] = {
        "runtimes": ["dcformat", *(name for name in OTHERS if name in chosen or not chosen)],
        "batches": options.batches,
        "rounds": options.rounds,
        "options": limits,
    }
    with ExitStack() as stack:
        path = stack.enter_context(spooled(file))
        with opened(str(path), options.max_memory) as content:
            graph = content.graph
        if graph is None:
            raise UnfitError(path, "a network", "only tensors")
        # A file that cannot run is refused here, since errors of the workers lose their class.
        dcformat_runtime.load(str(path), **limits)
        if array is not None and not is_plain(graph):
            raise UnfitError(path, "one input and one output, both float32 (batch, ...), for --input", repr(graph))
        if all(port.batch_axis is None for port in graph.inputs):
            request["batches"] = [1]
        request["input"] = None if array is None else str(_checked(stack.enter_context(spooled(array)), options))
        answers = _answers(str(path), request, options.threads)
    if options.as_json:
        rows = (row for answer in answers for result in answer["results"] for row in result["runtimes"].values())
        for row in rows:
            row["error"] = row["error"] if isfinite(row["error"]) else "inf"
        emit_json({"file": file, "machine": machine(), "rounds": options.rounds, "threads": answers})
        return
    for answer in answers:
        _show(file, answer)
    missing: dict[str, str] = {name: why for answer in answers for name, why in answer["missing"].items()}
    for reason in dict.fromkeys(missing.values()):
        names = [name for name, why in missing.items() if why == reason]
        note(f"{', '.join(names)}: {reason}")


def _checked(path: Path, options: BenchOptions) -> Path:
    """Return a file of inputs; raise `UnfitError` unless it is one array."""
    if isinstance(read_arrays(str(path), options.max_memory), dict):
        raise UnfitError(path, "a NumPy .npy array", "an .npz archive")
    return path


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    from dcformat_runtime import cpu as here

    return {
        "processor": _processor(),
        "cores": here.cores(),
        "vectors": here.level(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or "unknown"


def _answers(file: str, request: Mapping[str, Any], threads: Sequence[int]) -> list[dict[str, Any]]:
    """Return the answer of one worker process for each number of threads."""
    answers = []
    for count in threads:
        text = json.dumps({**request, "file": file, "threads": count})
        done = subprocess.run(
            [sys.executable, "-m", "dcformat_cli.bench.timing"], input=text, capture_output=True, text=True,
            env={**environment(count), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=False,
        )  # fmt: skip
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it was killed"]
            raise UnfitError(file, "a worker that finishes", last[0], f"bench with {counted(count, 'thread')}")
        answers.append({"threads": count, **json.loads(done.stdout)})
    return answers


def _show(file: str, answer: Mapping[str, Any]) -> None:
    for result in answer["results"]:
        runtimes = result["runtimes"]
        ours = runtimes["dcformat"]["median_us"]
        rows = []
        for name, row in sorted(runtimes.items(), key=lambda item: item[1]["median_us"]):
            ratio = "" if name == "dcformat" else f"{row['median_us'] / ours:.2f}"
            differs = f"{row['error']:.0e}" if row["error"] > TOLERANCE else ""
            rows.append((name, f"{row['median_us']:,.1f}", f"{row['p99_us']:,.1f}", ratio, differs))
        title = f"{file}: batch {result['batch']}, {counted(answer['threads'], 'thread')}"
        TextTable(title, ("runtime", "median us", "p99 us", "peer / ours", "error"), rows).show()
        say("")
        if runtimes["dcformat"]["error"] > TOLERANCE:
            warn(f"dcformat: its outputs differ from the reference's by {runtimes['dcformat']['error']:.0e}")
