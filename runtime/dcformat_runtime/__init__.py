"""Runs the network of a ``.dcf`` file on the CPU: NumPy arrays in, NumPy arrays out, no training framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcformat_runtime.input_rows import InputError
from dcformat_runtime.session import LayerTime, Session, load

if TYPE_CHECKING:
    from dcformat_runtime.plans import predict_memory
    from dcformat_runtime.preparing import prepare

__all__ = ["InputError", "LayerTime", "Session", "load", "predict_memory", "prepare"]

#: Where the names are that a process does not need to run a network.
_HOMES = {"predict_memory": "plans", "prepare": "preparing"}


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f"dcformat_runtime.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all functions, also before they are imported, but not what only this module needs."""
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations"})
