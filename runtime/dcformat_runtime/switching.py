"""Moves sessions with ``backend="auto"`` from NumPy to compiled kernels once another process has compiled them."""

from __future__ import annotations

import os
from _thread import allocate_lock  # `threading` takes a millisecond to import
from time import monotonic

from dcformat import jit
from dcformat.jit import background

#: Seconds that the calls of all sessions take in NumPy before the kernels are compiled: nothing is compiled for less.
PATIENCE = 0.5
#: Seconds between two looks at the other process.
_PAUSE = 0.02

_lock = allocate_lock()
_spent = 0.0
_looked = 0.0
#: The process that started the compilation, the compilation, and whether it has ended, for better or worse.
_owner = 0
_compilation: background.BackgroundCompilation | None = None
_ended = False


def _renew_lock() -> None:
    """Give a forked child its own lock: the thread that holds the parent's lock does not exist in it."""
    global _lock
    _lock = allocate_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def needed() -> tuple[jit.Kernel, ...]:
    """Return the kernels without which a network runs in NumPy."""
    from dcformat_runtime.kernels import integer_kernel, interpreter, map_kernel, quad_layout, row_kernel, row_layout

    return (
        interpreter.run, interpreter.wait, row_layout.lay_out, quad_layout.lay_out_quads, map_kernel.run_map,
        row_kernel.run_rows, integer_kernel.run_integers,
    )  # fmt: skip


def possible() -> bool:
    """Return whether kernels that are missing can be compiled in the background."""
    return not _ended and background.BackgroundCompilation.possible()


def spend(seconds: float) -> bool:
    """Count the time of a call in NumPy; return whether no session has to wait for kernels any longer."""
    global _spent
    if not _lock.acquire(blocking=False):
        return False
    try:
        _spent += seconds
        return _ended or (_spent >= PATIENCE and _look())
    finally:
        _lock.release()


def _look() -> bool:
    """Start the compilation, or check whether it has ended."""
    global _looked, _owner, _compilation, _ended
    if _owner != os.getpid():  # a forked process has no part in its parent's compilation
        _owner, _compilation = os.getpid(), background.BackgroundCompilation(needed())
        _ended = not _compilation.start()
    elif _compilation is not None and monotonic() - _looked > _PAUSE:
        _looked = monotonic()
        _ended = _compilation.ended()
    return _ended
