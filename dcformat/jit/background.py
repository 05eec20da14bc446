"""Compiles kernels in another process, for programs that prefer slower code to waiting."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from dcformat.jit.observer import can_save, log, observer
from dcformat.jit.registry import Kernel
from dcformat.jit.settings import cache, can_compile, mode

#: The program of the other process. It gives way to all others, and only one of them compiles at a time.
_PROGRAM = """
import importlib, os, sys
from dcformat import jit
from dcformat.jit.machine_code import store
os.nice(10)
with store.lock():
    modules = [importlib.import_module(name.rpartition(".")[0]) for name in sys.argv[1:]]
    jit.warm(kernel for kernel in jit.kernels() if kernel.name in sys.argv[1:])
"""


class BackgroundCompilation:
    """The compilation of some kernels by another process, which saves their machine code.

    The process continues if this one ends first: later processes find the code that it saves.

    Parameters
    ----------
    kernels : iterable of Kernel
    """

    def __init__(self, kernels: Iterable[Kernel]) -> None:
        self.kernels = tuple(kernels)
        self._process = 0

    @staticmethod
    def possible() -> bool:
        """Return whether another process could make code for this one."""
        return can_compile() and mode() == "native" and cache() == "auto" and bool(sys.executable)

    def start(self) -> bool:
        """Start the process; return False if that is impossible. Where nothing can be saved, say why, once."""
        from dcformat.jit.machine_code import store

        place, kept = store.folder(), can_save()
        try:
            if not kept or place is None:
                place = store.make_temporary()
            paths = os.pathsep.join(map(os.path.abspath, sys.path))  # "" stands for the current directory
            self._process = os.posix_spawn(
                sys.executable,
                # -P: the process must not import from the current directory where this one does not.
                [sys.executable, "-P", "-c", _PROGRAM, *(kernel.name for kernel in self.kernels)],
                os.environ | {"DCFORMAT_CACHE_DIR": os.path.dirname(place), "PYTHONPATH": paths},  # noqa: PTH120
                file_actions=[(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)],
                setpgroup=0,  # an interrupt at the terminal is not meant for it
            )
        except OSError as error:
            log("the kernels cannot be compiled in the background (%s)", error)
            return False
        observer().background(kept)
        return True

    def ended(self) -> bool:
        """Return whether the process has ended. Its kernels are then looked up again."""
        try:
            if os.waitpid(self._process, os.WNOHANG)[0] == 0:
                return False
        except ChildProcessError:  # another part of the program has waited for every child
            pass
        for kernel in self.kernels:
            kernel.look_again()
        return True
