"""Watches an execution of a door: its exceptions, the processor time that it takes, and the memory that it requests.

It watches memory in three ways. A limit on the address space makes a bomb fail with `MemoryError`; the growth of the
resident set is checked after each execution; and now and then `tracemalloc` measures the exact peak.
"""

from __future__ import annotations

import contextlib
import io
import re
import resource
import sys
import time
import traceback
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

from fuzz.doors import Door, Fault, most_memory

ROOT = Path(__file__).resolve().parent.parent
#: Address space that an execution may take in addition to that of the warmed-up process.
ROOM = 256 << 20
#: The largest rise of the peak of the resident set in one execution, in KiB.
_GROWTH = 48 << 10
#: The message of a refusal that stems from a `MemoryError`, so the allocation had not been counted.
_UNCOUNTED = "no more memory"


@dataclass(frozen=True)
class Finding:
    """A promise that an execution broke; findings with the same cause have the same `key`."""

    door: str
    kind: str
    reason: str
    key: str

    @property
    def label(self) -> str:
        """The kind and the key, as part of a file's name."""
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.kind}-{self.key}").strip("-")[:120]


class Guard:
    """Runs doors under limits.

    Parameters
    ----------
    slowness : float
        The factor by which the allowed seconds grow if kernels run as Python.
    """

    def __init__(self, slowness: float = 1.0) -> None:
        self._slowness = slowness
        self._most_resident = _resident()

    def limit_memory(self, room: int = ROOM) -> None:
        """Bound the address space from now on."""
        with open("/proc/self/statm") as file:  # noqa: PTH123
            pages = int(file.read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, resource.RLIM_INFINITY))
        self._most_resident = _resident()

    def run(self, door: Door, data: bytes, *, measure: bool = False) -> tuple[str, Finding | None]:
        """Run a door; return its outcome, and the finding if there is one.

        Time or memory is a finding only if it recurs in a second execution: the first may have imported a module.
        """
        outcome, finding = self._once(door, data, measure)
        if finding is not None and finding.kind in ("slow", "memory"):
            outcome, again = self._once(door, data, measure)
            return outcome, again if again is not None and again.kind == finding.kind else None
        return outcome, finding

    def _once(self, door: Door, data: bytes, measure: bool) -> tuple[str, Finding | None]:
        finding = None
        if measure:
            tracemalloc.start()
        start = time.process_time()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                outcome = door.run(data)
        except door.refusals as error:
            outcome = getattr(error, "code", type(error).__name__)
            if _UNCOUNTED in str(error):
                finding = Finding(
                    door.name, "memory", f"asked for more than allowed: {error}", "uncounted " + _site(error)
                )
        except Fault as error:
            outcome, finding = "fault", Finding(door.name, "fault", str(error), f"{door.name} {_plain(str(error))}")
        except MemoryError as error:
            outcome = "MemoryError"
            finding = Finding(door.name, "memory", "MemoryError", _site(error))
        except Exception as error:
            outcome, where = type(error).__name__, _site(error)
            finding = Finding(door.name, "exception", f"{outcome}: {error} ({where})", f"{outcome} {where}")
        seconds = time.process_time() - start
        if measure:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            allowed = most_memory(data) + door.slack + 64 * len(data)
            if finding is None and peak > allowed:
                reason = f"{peak:,} bytes at most at a time, {allowed:,} allowed"
                finding = Finding(door.name, "memory", reason, f"{door.name} peak {outcome}")
        elif finding is None and seconds > door.seconds * self._slowness:
            finding = Finding(door.name, "slow", f"{seconds:.2f} s of processor time", f"{door.name} {outcome}")
        grown = self._growth(door, outcome)
        return outcome, finding or grown

    def _growth(self, door: Door, outcome: str) -> Finding | None:
        resident = _resident()
        grown, self._most_resident = resident - self._most_resident, max(resident, self._most_resident)
        if grown <= _GROWTH:
            return None
        with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 - 5: forget the peak
            file.write("5")
        self._most_resident = _resident()
        return Finding(door.name, "memory", f"{grown >> 10} MiB more resident", f"{door.name} resident {outcome}")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _plain(text: str) -> str:
    """Return a message without its numbers and quoted parts."""
    return re.sub(r"\d+|'[^']*'", "#", text)[:80]


def _site(error: BaseException) -> str:
    """Return the last place in the package that an exception passed, and the last place of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(ROOT) and "/fuzz/" not in f.filename]
    last = [f"{Path(f.filename).name}:{f.name}" for f in (*own[-2:], *([] if own[-1:] == frames[-1:] else frames[-1:]))]
    return " > ".join(last)


def hottest(door: Door, data: bytes) -> str:
    """Return the function in which a slow execution spends the most time."""
    import cProfile
    import pstats

    profile = cProfile.Profile()
    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        profile.runcall(door.run, data)
    rows = pstats.Stats(profile, stream=sys.stdout).stats.items()  # type: ignore[attr-defined]
    (file, _, name), _ = max(rows, key=lambda row: row[1][2])
    return f"{Path(file).name}:{name}"
