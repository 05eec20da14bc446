"""Measures `dcformat pack` and `unpack` of a large sharded checkpoint: seconds, and the memory of all processes.

Memory is sampled ten times a second: the sum of the memory that each process holds for itself (the proportional set
size, which divides shared pages among processes), without the files that the system caches.

    python benchmarks/scale/checkpoint.py /data/in --gigabytes 20
    python benchmarks/scale/large.py /data/in /data/out --jobs 1,2
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("work", type=Path, help="directory for the outputs, which are removed")
    parser.add_argument("--jobs", default="1")
    parser.add_argument("--mode", default="fast")
    parser.add_argument("--unpack", action="store_true", help="restore the shards too, and compare them")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print(describe())
    given = sum(path.stat().st_size for path in options.checkpoint.iterdir())
    packed = options.work / "packed.dcf"
    print(
        "| what | jobs | bytes in | bytes out | seconds | CPU seconds | in the first process | peak memory, MB | load |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for jobs in options.jobs.split(","):
        load = os.getloadavg()[0]
        command = ["pack", str(options.checkpoint), "-o", str(packed), "-f", "--mode", options.mode, "--jobs", jobs]
        figures = measured(command)
        out = packed.stat().st_size
        print(f"| pack | {jobs} | {given:,} | {out:,} | {figures} | {load:.1f} |", flush=True)
    if options.unpack:
        load, back = os.getloadavg()[0], options.work / "back"
        command = ["unpack", str(packed), "-o", str(back), "--format", "shards", "--max-work", "none"]
        print(f"| unpack | 1 | {out:,} | {given:,} | {measured(command)} | {load:.1f} |")
        for path in sorted(options.checkpoint.iterdir()):
            subprocess.run(["cmp", str(path), str(back / path.name)], check=True)
        print("the shards are the same, byte for byte")
        shutil.rmtree(back)
    packed.unlink()


def measured(command: list[str]) -> str:
    """Run the command; return the cells of a row: seconds, CPU seconds, those of the first process, and peak memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started, peak, own = time.monotonic(), 0, 0.0
    process = subprocess.Popen([sys.executable, "-m", "dcformat", *command], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(held, tree(process.pid))))
        own = max(own, cpu_seconds(process.pid))
        time.sleep(0.1)
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{seconds:.1f} | {cpu:.1f} | {own:.1f} | {peak / 1e6:,.0f}"


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in tree(int(child)))]


def held(pid: int) -> int:
    """Return the bytes that a process holds."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
