"""Linux's description of the processor in /proc/cpuinfo, parsed once in a process."""

from __future__ import annotations

import os
from functools import cache

#: The file to read. Tests, and emulations of other machines, name another file before anything is read.
PATH = "/proc/cpuinfo"
#: The first processor's lines fit in this many bytes.
_FIRST_BYTES = 1 << 14
#: The lines that describe a processor's capabilities, on x86-64 and on AArch64.
_IDENTITY = (
    "vendor_id", "cpu family", "model", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
)  # fmt: skip


@cache
def first_processor() -> dict[str, str]:
    """Return the first processor's properties by name; empty if the file cannot be read."""
    try:
        with open(PATH, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib costs milliseconds at start
            text = file.read(_FIRST_BYTES).decode("ascii", "replace")
    except OSError:
        return {}
    lines = text.partition("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@cache
def features() -> frozenset[str]:
    """Return the processor's feature flags; empty if they cannot be read."""
    known = first_processor()
    return frozenset(known.get("flags", known.get("Features", "")).split())


@cache
def identity() -> str | None:
    """Return a text that identifies this machine's processor and instruction sets, or None if it is unknown."""
    known = first_processor()
    found = [f"{name}={known[name]}" for name in known if name in _IDENTITY]
    return f"{os.uname().machine} {' '.join(found)}" if found else None
