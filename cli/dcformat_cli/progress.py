"""Progress of a training run on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dcformat_cli.terminal import is_dumb

if TYPE_CHECKING:
    from dcformat_pruning.meter import Report, Step
    from rich.progress import Progress, TaskID

#: Seconds between two lines within one stage where there is no terminal.
_QUIET = 10.0

#: Share of the work after which the time that remains is estimated: less says nothing of the machine's speed.
_TELLING = 0.005


@contextmanager
def reporting() -> Iterator[Report]:
    """Return what shows progress until the block is left."""
    if not sys.stderr.isatty() or is_dumb():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars)


class _Lines:
    """A line at the start and the end of a stage, and every ten seconds within one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = self._last = clock()
        self._stage = 0

    def __call__(self, step: Step) -> None:
        now = self._clock()
        ended = step.total and step.done == step.total
        if step.number == self._stage and not ended and now - self._last < _QUIET:
            return
        self._last, self._stage = now, step.number
        click.echo(f"{_place(step)}: {_text(step, now - self._start)}", err=True)


class _Bars:
    """A bar for each stage."""

    def __init__(self, bars: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._bars = bars
        self._clock = clock
        self._start = clock()
        self._tasks: dict[int, TaskID] = {}

    def __call__(self, step: Step) -> None:
        if step.number not in self._tasks:
            self._tasks[step.number] = self._bars.add_task(_place(step), total=None, text="")
        text = _text(step, self._clock() - self._start)
        self._bars.update(self._tasks[step.number], completed=step.done, total=step.total or None, text=text)


def _place(step: Step) -> str:
    return f"{step.stage} (stage {step.number} of {step.stages})"


def _text(step: Step, elapsed: float) -> str:
    """Return how far the stage is, its figures, the time that has passed and that of the whole run that remains."""
    parts = []
    if step.unit == "epochs":
        whole = min(int(step.done), step.total - 1)
        within = step.done - whole
        parts.append(f"epoch {whole + 1} of {step.total}" + (f" at {100 * within:.0f} %" if within < 1 else ""))
    elif step.total:
        parts.append(f"{step.done:,.0f} of {step.total:,} {step.unit}")
    parts += [f"{name} {value:.4g}" for name, value in step.figures.items()]
    parts.append(f"{_minutes(elapsed)} elapsed")
    if _TELLING < step.share < 1:
        parts.append(f"about {_minutes(elapsed * (1 - step.share) / step.share)} left")
    return ", ".join(parts)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
