"""Reports to the user that kernels are being compiled, or cannot be saved."""

from __future__ import annotations

import sys

import click

from dcformat import jit
from dcformat_cli.terminal import is_quiet, warn

_CLEAR = "\r\033[K"


class Notices(jit.Observer):
    """Prints one line on stderr; on a terminal, the line changes with each kernel and disappears afterwards."""

    def __init__(self) -> None:
        self._damaged = False

    def compiling(self, kernel: str, number: int, saved: bool) -> None:
        """Announce that a kernel is about to be compiled."""
        if is_quiet():
            return
        if sys.stderr.isatty():
            name, scope = (
                kernel.rpartition(".")[2].lstrip("_"),
                "once for this machine" if saved else "for this run only",
            )
            click.echo(f"{_CLEAR}compiling kernel {number} ({name}), {scope} ...", nl=False, err=True)
        elif number == 1:
            scope = "once for this machine (saved for later runs)" if saved else "for this run only (not saved)"
            click.echo(f"compiling kernels {scope}", err=True)

    def compiled(self) -> None:
        """Remove the line."""
        if sys.stderr.isatty():
            click.echo(_CLEAR, nl=False, err=True)

    def background(self, saved: bool) -> None:
        """Say that slower code answers until the kernels are compiled."""
        if is_quiet():
            return
        scope = "once for this machine" if saved else "for this run only"
        click.echo(f"compiling kernels in the background, {scope}; NumPy runs the network meanwhile", err=True)

    def damaged(self, kernel: str) -> None:
        """Warn, once, that saved machine code is damaged."""
        if not self._damaged:
            self._damaged = True
            warn(
                f"the saved machine code of kernel {kernel} is damaged, and is not used (`dcformat warmup --clear` "
                "removes all saved code; reinstall dcformat if the code came with it)"
            )

    def unsaved(self, reason: str) -> None:
        """Warn that kernels cannot be saved, and say how to change that."""
        warn(
            f"compiled kernels cannot be saved, so each run compiles them again: {reason} (set DCFORMAT_CACHE_DIR to a "
            "folder that only you can write to)"
        )
