"""Describes the conditions of a measurement in one line: processor, cores, versions and date."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe(*packages: str) -> str:
    """Return the machine, the versions of Python, dcformat, NumPy, Numba and `packages`, and the date."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = (line.partition(":") for line in info.read_text().splitlines())
        known = {name.strip(): value.strip() for name, _, value in fields}
        cpu = f"{known.get('model name', cpu)} ({'AVX-512' if 'avx512f' in known.get('flags', '') else 'no AVX-512'})"
    import dcformat

    versions = [f"dcformat {dcformat.__version__}"]
    for name in ("numpy", "numba", *packages):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} not installed")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{cpu}, {cores} cores, Python {platform.python_version()}, {', '.join(versions)}, {date}"
