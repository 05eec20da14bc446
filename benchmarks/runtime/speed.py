"""Compares inference time with other runtimes; each has its own process, stopped while another is timed.

    python benchmarks/runtime/speed.py --out docs/results/runtime-speed.md
    python benchmarks/runtime/speed.py --network models/lenet.dcf --batches 1,64 --rounds 5

Processes alternate in slices of 20 ms over many rounds, so that all see the same disturbances. Cells show the median of
all calls in microseconds, and its ratio to dcformat's. benchmarks/runtime/constraints.txt lists the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parents[1] / folder) for folder in ("cli", "runtime", "", "benchmarks"))]

from dcformat_cli.bench import timing  # noqa: E402
from runtimes import FLOAT32, PACKAGES, RUNTIMES  # noqa: E402

from dcformat.wording import counted  # noqa: E402

NETWORKS = ("lenet-300-100/han", "lenet-300-100/vs", "lenet-5/han", "lenet-5/vs")
#: The seconds that a worker may take for one answer.
PATIENCE = 300.0


class Worker:
    """A runtime's process, which is stopped except while it answers."""

    def __init__(self, name: str, network: str, threads: int) -> None:
        self.name, self.failed = name, ""
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), name, network, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=timing.environment(threads),
        )  # fmt: skip
        self._take()

    def ask(self, batch: int) -> dict[str, Any]:
        """Let the process run one slice, and return its answer."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"batch": batch}) + "\n")
        self.process.stdin.flush()
        return self._take()

    def _take(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        answer: dict[str, Any] = json.loads(line) if line else {"failed": "no answer"}
        self.failed = answer.get("failed", "")
        if self.failed:
            self.close()
        else:
            self.process.send_signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.send_signal(signal.SIGCONT)
        self.process.wait()


def measure(network: str, threads: int, batches: list[int], rounds: int, names: list[str]) -> dict[str, Any]:
    """Return ``{"failed": {name: why}, "batches": {batch: {name: summary}}}``."""
    workers = [Worker(name, network, threads) for name in names]
    failed = {worker.name: worker.failed for worker in workers if worker.failed}
    results: dict[str, Any] = {}
    try:
        for batch in batches:
            alive = [worker for worker in workers if not worker.failed]
            calls: dict[str, list[int]] = {worker.name: [] for worker in alive}
            errors = {worker.name: worker.ask(batch).get("error", 0.0) for worker in alive}
            for number in range(rounds):
                turn = number % len(alive)
                for worker in alive[turn:] + alive[:turn]:
                    if not worker.failed:
                        calls[worker.name] += worker.ask(batch).get("calls", [])
            failed |= {worker.name: worker.failed for worker in alive if worker.failed}
            results[str(batch)] = {
                name: timing.Measured(errors[name], found).summary() for name, found in calls.items() if found
            }
    finally:
        for worker in workers:
            if not worker.failed:
                worker.close()
    return {"failed": failed, "batches": results}


def table(network: str, threads: int, found: dict[str, Any]) -> list[str]:
    """Return a network's figures for one number of threads as a Markdown table."""
    batches = list(found["batches"])
    lines = [
        f"### {network}, {counted(threads, 'thread')}",
        "",
        "| | " + " | ".join(f"batch {b}" for b in batches) + " |",
    ]
    lines.append("|---" * (len(batches) + 1) + "|")
    for name in RUNTIMES:
        rows = [found["batches"][b].get(name) for b in batches]
        if any(rows):
            ours = [found["batches"][b]["dcformat"]["median_us"] for b in batches]
            cells = [cell(row, base, name) for row, base in zip(rows, ours, strict=True)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    best = []
    for b in batches:
        row = found["batches"][b]
        peers = [row[name]["median_us"] for name in FLOAT32 if name in row]
        best.append(f"{min(peers) / row['dcformat']['median_us']:.1f}" if peers else "")
    lines.append("| best float32 peer / dcformat | " + " | ".join(best) + " |")
    spread = [row["dcformat"] for row in found["batches"].values()]
    lines.append(
        "| dcformat, p99 / median | " + " | ".join(f"{r['p99_us'] / r['median_us']:.1f}" for r in spread) + " |"
    )
    return [*lines, ""]


def cell(row: dict[str, float] | None, ours: float, name: str) -> str:
    """Return a median, its ratio to ours, and the error if that shows a precision below float32."""
    if row is None:
        return "-"
    time = row["median_us"]
    text = f"{time:.1f}" if time < 100 else f"{time:.0f}"
    if name != "dcformat":
        text += f" ({time / ours:.1f})"
    return text + (f", error {row['error']:.0e}" if row["error"] > 1e-4 else "")


def main() -> None:
    """Measure, and print and write Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", help=f"a .dcf, or one of {', '.join(NETWORKS)} (default: these)")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batches", default="1,8,64,1024")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--out", type=Path, help="write the tables here, and the figures beside it as .json")
    options = parser.parse_args()
    from machine import describe

    batches, names = [int(b) for b in options.batches.split(",")], options.runtimes.split(",")
    packages = sorted({PACKAGES[name] for name in names if name in PACKAGES} - {"numpy"})
    lines = [
        "# Inference time against other runtimes", "",
        "Median microseconds of a call from Python, NumPy arrays in and out; in brackets, the ratio to dcformat's.",
        f"Made by `python benchmarks/runtime/speed.py` on {describe(*packages)}.", "",
    ]  # fmt: skip
    figures: list[dict[str, Any]] = []
    load = os.getloadavg()[0]
    for network in options.network or NETWORKS:
        for threads in map(int, options.threads.split(",")):
            found = measure(network, threads, batches, options.rounds, names)
            figures.append({"network": network, "threads": threads, **found})
            part = table(network, threads, found)
            part += [f"- {name}: not timed ({why})" for name, why in found["failed"].items()]
            print("\n".join(part), flush=True)
            lines += [*part, ""] if found["failed"] else part
    lines.append(f"Load of the machine before and after: {load:.2f}, {os.getloadavg()[0]:.2f}.")
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")
        options.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    ratios = [
        row["onnxruntime"]["median_us"] / row["dcformat"]["median_us"]
        for item in figures for row in item["batches"].values() if "onnxruntime" in row
    ]  # fmt: skip
    if ratios:
        print(f"onnxruntime / dcformat: {min(ratios):.1f} to {max(ratios):.1f}, median {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
