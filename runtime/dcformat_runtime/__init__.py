"""Runs the network of a ``.dcf`` file on the CPU: NumPy arrays in, NumPy arrays out, no training framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcformat_runtime.input_rows import InputError
from dcformat_runtime.session import LayerTime, Session, load, predict_memory

if TYPE_CHECKING:
    from dcformat_runtime.preparing import prepare

__all__ = ["InputError", "LayerTime", "Session", "load", "predict_memory", "prepare"]


def __getattr__(name: str) -> Any:
    """Import `prepare` on first use: processes that only run a network do not need it."""
    if name == "prepare":
        from dcformat_runtime.preparing import prepare

        globals()[name] = prepare
        return prepare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all functions, also before they are imported, but not what only this module needs."""
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations"})
