"""Progress of packing on stderr, in bytes: one changing line on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from dcformat_cli.terminal import is_quiet, shows_progress

if TYPE_CHECKING:
    from dcformat_interop.packing.checkpoint_packing import PackingProgress

#: Seconds until the first line, and between lines, on a terminal and elsewhere.
_TERMINAL, _ELSEWHERE = (1.0, 0.2), (10.0, 10.0)

#: Share of the work that must be done in this run before the remaining time is estimated.
_ESTIMATE_FROM = 0.005


class ByteProgress:
    """A callback for `Packing.run`.

    The remaining time is that of the bytes that are left, at the speed of this run: the work of an earlier run does not
    count towards it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, terminal: bool | None = None) -> None:
        self._terminal = shows_progress() if terminal is None else terminal
        self._quiet = is_quiet()
        self._clock, self._start = clock, clock()
        first, self._each = _TERMINAL if self._terminal else _ELSEWHERE
        self._due = self._start + first
        self._shown = False

    def __call__(self, progress: PackingProgress) -> None:
        """Show the progress if it is time."""
        now = self._clock()
        if self._quiet or now < self._due:
            return
        self._due = now + self._each
        text = describe(progress, now - self._start)
        if self._terminal:
            self._shown = True
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        else:
            click.echo(text, err=True)

    def end(self) -> None:
        """Remove the line from a terminal."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def describe(progress: PackingProgress, elapsed: float) -> str:
    """Return a line: the bytes done, the speed, and the time that has passed and that is left, in seconds."""
    done, total = progress.done, progress.total
    parts = [f"packed {_bytes(done)} of {_bytes(total)} ({100 * done / max(total, 1):.0f} %)"]
    new = done - progress.kept
    if new > _ESTIMATE_FROM * (total - progress.kept) and elapsed > 0:
        parts.append(f"{_bytes(new / elapsed)}/s")
        parts.append(f"{_minutes(elapsed)} elapsed, about {_minutes(elapsed * (total - done) / new)} left")
    else:
        parts.append(f"{_minutes(elapsed)} elapsed")
    return ", ".join(parts)


def _bytes(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.3g} {unit}" if count < 100 else f"{count:,.0f} {unit}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
