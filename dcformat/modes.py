"""The mode ``auto``: the smallest file that decodes in time.

Times are counts of steps (docs/limits.md) at a billion a second, so every machine makes the same choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from dcformat.codecs import MODES, Mode
from dcformat.opening import open_file
from dcformat.source import Source

#: A mode, or the choice of one.
AnyMode = Mode | Literal["auto"]

#: The time that a file may take to decode, and the number of steps in a second.
DECODE_SECONDS, STEPS_PER_SECOND = 0.1, 10**9

#: The largest networks for which a mode is tried, in elements; more in proportion for a longer time than
#: `DECODE_SECONDS`. Larger ones hardly ever decode in time, and coding them several times would take minutes.
MAX_ELEMENTS: Mapping[Mode, int] = {"small": 5_000_000, "tiny": 1_000_000}


class ModeTrial(NamedTuple):
    """A file made in a mode: its size in bytes, and the maximum number of seconds that it takes to decode."""

    mode: Mode
    bytes: int
    seconds: float


class SmallestFile(NamedTuple):
    """The bytes of a file, the mode in which it was made, and the trials among which it was chosen."""

    data: bytes
    mode: Mode
    trials: tuple[ModeTrial, ...]


def modes_to_try(mode: AnyMode, elements: int, seconds: float = DECODE_SECONDS) -> tuple[Mode, ...]:
    """Return the modes to try for tensors with this many elements together.

    For ``auto``, 'fast' is the first of them; any other mode is the only one.
    """
    if mode != "auto":
        return (mode,)
    scale = max(seconds / DECODE_SECONDS, 1.0)
    return tuple(each for each in MODES if each not in MAX_ELEMENTS or elements <= MAX_ELEMENTS[each] * scale)


def best(trials: Sequence[ModeTrial], seconds: float = DECODE_SECONDS) -> ModeTrial:
    """Return the smallest file that decodes in time, or else the one that decodes fastest; ties go to the first."""
    in_time = [trial for trial in trials if trial.seconds <= seconds]
    return min(in_time, key=lambda trial: trial.bytes) if in_time else min(trials, key=lambda trial: trial.seconds)


def trial(mode: Mode, file: Source) -> ModeTrial:
    """Return the trial of a file."""
    with open_file(file, max_memory=None, max_work=None) as content:
        return ModeTrial(mode, content.size, content.work() / STEPS_PER_SECOND)


def smallest_file(
    make: Callable[[Mode], bytes], modes: Sequence[Mode], seconds: float = DECODE_SECONDS
) -> SmallestFile:
    """Make a file in each mode with `make`, and return the best one."""
    files = {mode: make(mode) for mode in modes}
    trials = tuple(trial(mode, data) for mode, data in files.items())
    kept = best(trials, seconds).mode
    return SmallestFile(files[kept], kept, trials)
