"""Who is told that kernels are compiled, and that they cannot be saved: a log, and one observer."""

from __future__ import annotations

import sys


class Observer:
    """Is told when a kernel is compiled. This one logs what goes wrong; `observe` puts another in its place."""

    def compiling(self, kernel: str, number: int, saved: bool) -> None:
        """Learn that a kernel is about to be compiled, the `number`-th of this process, and whether it is saved."""

    def compiled(self) -> None:
        """Learn that the kernel is compiled, or that it failed to compile."""

    def unsaved(self, reason: str) -> None:
        """Learn, once in a process, why no machine code can be saved."""
        log("compiled kernels cannot be saved (%s)", reason, level="warning")


_observer = Observer()
_told_unsaved = False


def observer() -> Observer:
    """Return who is told."""
    return _observer


def observe(observer: Observer) -> None:
    """Tell `observer`, and nobody else, of what is compiled from now on."""
    global _observer
    _observer = observer


def log(message: str, *args: object, level: str = "info") -> None:
    """Log, if the program uses logging at all: to import it takes milliseconds."""
    logging = sys.modules.get("logging")
    if logging is not None:
        getattr(logging.getLogger("dcformat.jit"), level)(message, *args)


def can_save() -> bool:
    """Whether machine code that is made now can be saved; says once why not."""
    from dcformat.native import keys, store

    try:
        if keys.machine() is None or keys.compiler() is None:
            raise OSError("the processor, or Numba's version, is unknown")
        store.check()
    except Exception as error:  # whatever it is, kernels run as well unsaved
        tell_unsaved(error)
        return False
    return True


def tell_unsaved(reason: Exception) -> None:
    """Say why machine code cannot be saved, unless it was said before."""
    global _told_unsaved
    if not _told_unsaved:
        _told_unsaved = True
        _observer.unsaved(str(reason))
