"""Reports to the user that kernels are being compiled, or cannot be saved."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType

import click

from dcformat import jit
from dcformat.jit.machine_code import store
from dcformat_cli.terminal import is_quiet, warn

_CLEAR = "\r\033[K"


class Notices(jit.Observer):
    """Prints one line on stderr; on a terminal, the line changes with each kernel and disappears afterwards.

    The line counts the kernels that are saved for this machine. Only those that a command needs are compiled, so it may
    take several commands until all are.
    """

    def __init__(self) -> None:
        self._damaged = False
        self._saved, self._all = 0, 0

    def compiling(self, kernel: str, number: int, saved: bool) -> None:
        """Announce that a kernel is about to be compiled."""
        on_terminal = sys.stderr.isatty()
        if is_quiet() or not (on_terminal or number == 1):
            return
        if saved and not self._all:
            self._saved, self._all = count_kernels()
        if on_terminal:
            count = f"{self._saved + number} of {self._all}, once for this machine"
            text = count if saved else f"{number}, for this run only"
            name = kernel.rpartition(".")[2].lstrip("_")
            click.echo(f"{_CLEAR}compiling kernel {text} ({name}) ...", nl=False, err=True)
        elif saved:
            text = f"{self._saved} of {self._all} are saved, and a command compiles those that it needs"
            click.echo(f"compiling kernels once for this machine: {text}", err=True)
        else:
            click.echo("compiling kernels for this run only (not saved)", err=True)

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

    def missing(self, kernel: str) -> None:
        """Warn that slower code does a kernel's work, unless the package came without any machine code."""
        if store.ships_code():
            warn(
                f"no machine code of this installation fits kernel {kernel} on this machine, and Numba is not "
                "installed, so NumPy and Python do the work (`dcformat doctor` shows more; install Numba or another "
                "wheel)"
            )

    def unsaved(self, reason: str) -> None:
        """Warn that kernels cannot be saved, and say how to change that."""
        warn(
            f"compiled kernels cannot be saved, so every run is slow: {reason} (set DCFORMAT_CACHE_DIR to a folder "
            "that only you can write to)"
        )


def count_kernels() -> tuple[int, int]:
    """Return how many kernels have saved code, and how many there are."""
    kernels = all_kernels()
    return sum(kernel.path() is not None for kernel in kernels), len(kernels)


def all_kernels() -> tuple[jit.Kernel, ...]:
    """Import every module that has kernels, and return the kernels."""
    import dcformat_runtime.kernels

    import dcformat.codecs

    for package in (dcformat.codecs, dcformat_runtime.kernels):
        _import_modules_below(package)
    return jit.kernels()


def _import_modules_below(package: ModuleType) -> None:
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        try:
            imported = importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            # Modules that only the compiler uses import Numba, and have no kernels.
            if (error.name or "").partition(".")[0] not in ("numba", "llvmlite"):
                raise
        else:
            if module.ispkg:
                _import_modules_below(imported)
