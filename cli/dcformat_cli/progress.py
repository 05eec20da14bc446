"""Shows the progress of a training run on stderr: two changing lines on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dcformat_cli.terminal import is_quiet, printable, shows_progress

if TYPE_CHECKING:
    from dcformat_pruning.meter import Report, StageProgress
    from rich.live import Live

#: A callback that takes the number of finished steps, that of all steps, and the name of the next one.
Count = Callable[[int, int, str], None]

#: Seconds between two lines within a stage, without a terminal.
_QUIET = 10.0

#: Share of the work, or number of seconds, after which the remaining time is estimated; before, too little is known.
_ESTIMATE_FROM, _ESTIMATE_AFTER = 0.005, 30.0

#: Number of columns of the bar, which fits in 60 columns together with the times beside it.
_BAR = 14


@contextmanager
def reporting() -> Iterator[Report]:
    """Yield a callback that shows progress until the block ends."""
    if not shows_progress():
        yield (lambda step: None) if is_quiet() else ProgressLines()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True, highlight=False)) as live:
        yield ProgressBar(live)


@contextmanager
def counting(what: str) -> Iterator[Count]:
    """Yield a callback that shows finished and all steps, and the next one, on a terminal, until the block ends."""
    if not shows_progress():
        yield lambda done, total, item: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True, highlight=False), transient=True) as live:
        yield lambda done, total, item: live.update(Text(f"{what} {printable(item)} ({done + 1:,} of {total:,})"))


class ProgressLines:
    """A line at the start and the end of a stage, and every ten seconds within one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = self._last = clock()
        self._stage = 0

    def __call__(self, step: StageProgress) -> None:
        """Print a line if one is due."""
        now = self._clock()
        ended = step.total and step.done == step.total
        if step.number == self._stage and not ended and now - self._last < _QUIET:
            return
        self._last, self._stage = now, step.number
        click.echo(f"{_doing(step)}, {_times(step, now - self._start)}", err=True)


class ProgressBar:
    """Two lines that change in place: a bar for the whole run, and its current stage. Finished stages stay above."""

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._clock = clock
        self._start = clock()
        self._last: StageProgress | None = None

    def __call__(self, step: StageProgress) -> None:
        """Show the progress of the run."""
        from rich.text import Text

        elapsed = self._clock() - self._start
        if self._last is not None and self._last.number != step.number:
            self._live.console.print(f"{_doing(self._last)}, {_minutes(elapsed)} elapsed", markup=False)
        self._last = step
        filled = int(_BAR * step.share)
        bar = "#" * filled + "." * (_BAR - filled)
        self._live.update(Text(f"[{bar}] {100 * step.share:.0f} %, {_times(step, elapsed)}\n{_doing(step)}"))


def _doing(step: StageProgress) -> str:
    """Return the current stage and its figures."""
    parts = []
    if step.unit == "epochs":
        whole = min(int(step.done), step.total - 1)
        within = step.done - whole
        parts.append(f"epoch {whole + 1} of {step.total}" + (f" at {100 * within:.0f} %" if within < 1 else ""))
    elif step.total:
        parts.append(f"{step.done:,.0f} of {step.total:,} {step.unit}")
    parts += [f"{name} {value:.4g}" for name, value in step.figures.items()]
    place = f"{step.stage} (stage {step.number} of {step.stages})"
    return f"{place}: {', '.join(parts)}" if parts else place


def _times(step: StageProgress, elapsed: float) -> str:
    """Return the elapsed time, and an estimate of the remaining time of the whole run."""
    text = f"{_minutes(elapsed)} elapsed"
    if 0 < step.share < 1 and (step.share > _ESTIMATE_FROM or elapsed > _ESTIMATE_AFTER):
        text += f", about {_minutes(elapsed * (1 - step.share) / step.share)} left"
    return text


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
