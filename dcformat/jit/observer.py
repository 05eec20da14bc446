"""Telling the program that kernels are compiled, and that they cannot be saved: by a log, and by one observer."""

from __future__ import annotations

import sys


class Observer:
    """Is told when a kernel is compiled. This one logs failures; `observe` replaces it."""

    def compiling(self, kernel: str, number: int, saved: bool) -> None:
        """Take note that the process's `number`-th kernel is about to be compiled, and whether it will be saved."""

    def compiled(self) -> None:
        """Take note that the kernel is compiled, or that it failed to compile."""

    def unsaved(self, reason: str) -> None:
        """Take note, once in a process, why no machine code can be saved."""
        log("compiled kernels cannot be saved (%s)", reason, level="warning")


_observer = Observer()
_told_unsaved = False


def observer() -> Observer:
    """Return the observer."""
    return _observer


def observe(observer: Observer) -> None:
    """Tell `observer`, instead of the one before it, about kernels compiled from now on."""
    global _observer
    _observer = observer


def log(message: str, *args: object, level: str = "info") -> None:
    """Log a message, but only if the program has imported logging: that takes milliseconds."""
    logging = sys.modules.get("logging")
    if logging is not None:
        getattr(logging.getLogger("dcformat.jit"), level)(message, *args)


def can_save() -> bool:
    """Whether machine code that is made now can be saved; if not, the observer is told why, once."""
    from dcformat.jit import cpuinfo
    from dcformat.jit.machine_code import keys, store

    try:
        if cpuinfo.identity() is None or keys.compiler() is None:
            raise OSError("the processor, or Numba's version, is unknown")
        store.check()
    except Exception as error:  # in any case, kernels also run unsaved
        tell_unsaved(error)
        return False
    return True


def tell_unsaved(reason: Exception) -> None:
    """Tell the observer why machine code cannot be saved, unless it was told before."""
    global _told_unsaved
    if not _told_unsaved:
        _told_unsaved = True
        _observer.unsaved(str(reason))
