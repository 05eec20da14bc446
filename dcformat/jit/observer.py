"""Reports to the program that kernels are compiled or cannot be saved: to the log, and to one observer."""

from __future__ import annotations

import sys


class Observer:
    """Receives a report of each compiled kernel. This class logs failures; `observe` replaces the observer."""

    def compiling(self, kernel: str, number: int, saved: bool) -> None:
        """Note that the process's `number`-th kernel is about to be compiled, and whether it will be saved."""

    def compiled(self) -> None:
        """Note that the kernel has been compiled, or has failed to compile."""

    def background(self, saved: bool) -> None:
        """Note that another process has begun to compile kernels, and whether later processes will find them."""
        log("kernels are being compiled in the background")

    def damaged(self, kernel: str) -> None:
        """Note that a kernel's saved machine code is damaged, and is not used."""
        log("kernel %s: its saved machine code is damaged, and is not used", kernel, level="warning")

    def missing(self, kernel: str) -> None:
        """Note, once in a process, that a kernel has no usable machine code although nothing can compile it."""
        log("kernel %s: there is no machine code for this machine, and Numba is not installed", kernel, level="warning")

    def unsaved(self, reason: str) -> None:
        """Note, once in a process, why no machine code can be saved."""
        log("compiled kernels cannot be saved (%s)", reason, level="warning")


_observer = Observer()
_told_unsaved = _told_missing = False


def observer() -> Observer:
    """Return the observer."""
    return _observer


def observe(observer: Observer) -> None:
    """Report kernels compiled from now on to `observer`, instead of the previous one."""
    global _observer
    _observer = observer


def log(message: str, *args: object, level: str = "info") -> None:
    """Log a message, but only if the program has imported logging: the import takes milliseconds."""
    logging = sys.modules.get("logging")
    if logging is not None:
        getattr(logging.getLogger("dcformat.jit"), level)(message, *args)


def can_save() -> bool:
    """Return whether machine code can be saved now; if not, tell the observer why, once."""
    from dcformat.jit import cpuinfo
    from dcformat.jit.machine_code import keys, store

    try:
        if cpuinfo.identity() is None or keys.compiler() is None:
            raise OSError("the processor, or Numba's version, is unknown")
        store.check()
    except Exception as error:  # Kernels also run unsaved, after any error.
        tell_unsaved(error)
        return False
    return True


def tell_missing(kernel: str) -> None:
    """Tell the observer that a kernel runs without machine code, unless it already knows of one."""
    global _told_missing
    if not _told_missing:
        _told_missing = True
        _observer.missing(kernel)


def tell_unsaved(reason: Exception) -> None:
    """Tell the observer why machine code cannot be saved, unless it already knows."""
    global _told_unsaved
    if not _told_unsaved:
        _told_unsaved = True
        _observer.unsaved(str(reason))
