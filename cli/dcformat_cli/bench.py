"""`dcformat bench`: a file's network on this runtime and on the others that are installed, side by side."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from dcformat_cli.failures import InputError, misuse
from dcformat_cli.group import Choice
from dcformat_cli.inputs import opened, spooled
from dcformat_cli.options import as_json, file_argument, max_memory
from dcformat_cli.peers import PEERS
from dcformat_cli.terminal import Table, emit_json, note, say, warn
from dcformat_cli.timing import environment

#: Outputs that differ by more than this, relative to the largest, are another computation: shown, but as what it is.
TOLERANCE = 1e-4


def counts(text: str) -> tuple[int, ...]:
    """Return positive integers with commas between them. An option's type."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"expected positive integers with commas between them, found {text!r}")
    return tuple(int(part) for part in parts)


@click.command("bench")
@file_argument()
@click.option("--batch", "batches", type=counts, default="1,8,64,1024", show_default=True, metavar="N,...")
@click.option("--threads", type=counts, default="1", show_default=True, metavar="N,...")
@click.option("--rounds", type=click.IntRange(min=1), default=11, show_default=True, help="Turns of each runtime.")
@click.option(
    "--peer", "peers", multiple=True, type=Choice([name for name in PEERS if name != "dcformat"]),
    help="Compare with this one only; may be repeated.",
)  # fmt: skip
@click.option(
    "--input", "array", type=click.Path(), metavar="X.npy", help="Take inputs from this array, not random ones."
)
@max_memory()
@as_json()
def bench_command(
    file: str,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    rounds: int,
    peers: tuple[str, ...],
    array: str | None,
    max_memory: int | None,
    as_json: bool,
) -> None:
    """Time the network of FILE (- for stdin) on this runtime and on the installed peers: medians of interleaved calls.

    A ratio above 1 says how many times longer the peer takes. Outputs are compared first; a peer that computes
    something else, as in bfloat16, is marked with its error. Runs of other programs on the machine disturb all.
    """
    if file == "-" == array:
        raise misuse("expected FILE or --input from stdin, found both")
    names = ["dcformat", *(name for name in PEERS if name in peers or (not peers and name != "dcformat"))]
    options = {} if max_memory is None else {"max_memory": max_memory}
    request = {"peers": names, "batches": batches, "rounds": rounds, "options": options}
    with ExitStack() as stack:
        path = stack.enter_context(spooled(file))
        with opened(str(path), max_memory) as content:
            if content.graph is None:
                raise InputError(path, "a network", "tensors alone")
        request["input"] = None if array is None else str(stack.enter_context(spooled(array)))
        answers = _answers(str(path), request, threads)
    if as_json:
        emit_json({"file": file, "machine": machine(), "rounds": rounds, "threads": answers})
        return
    for answer in answers:
        _show(file, answer)
    missing: dict[str, str] = {name: why for answer in answers for name, why in answer["missing"].items()}
    for name, why in missing.items():
        note(f"{name}: {why}")


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    from dcformat_runtime import machine as here

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
    """Ask one worker process for each number of threads."""
    answers = []
    for count in threads:
        text = json.dumps({**request, "file": file, "threads": count})
        done = subprocess.run(
            [sys.executable, "-m", "dcformat_cli.timing"], input=text, capture_output=True, text=True,
            env={**environment(count), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=False,
        )  # fmt: skip
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it was stopped"]
            raise InputError(file, "a worker that finishes", last[0], f"bench with {count} thread(s)")
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
        title = f"{file}: batch {result['batch']}, {answer['threads']} thread(s)"
        Table(title, ("runtime", "median us", "p99 us", "peer / ours", "error"), rows).show()
        say("")
        if runtimes["dcformat"]["error"] > TOLERANCE:
            warn(f"dcformat: its outputs differ from the reference's by {runtimes['dcformat']['error']:.0e}")
