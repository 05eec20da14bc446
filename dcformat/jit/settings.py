"""How kernels should run: the settings in the environment, and whether a compiler is available."""

from __future__ import annotations

import os

from dcformat.jit.observer import log

_can_import: bool | None = None


def can_compile() -> bool:
    """Return whether Numba is installed and not known to be broken, without importing it."""
    global _can_import
    if mode() == "python":
        return False
    if _can_import is None:
        from importlib.util import find_spec

        try:
            _can_import = find_spec("numba") is not None and find_spec("llvmlite") is not None
        except (ImportError, ValueError):  # An import hook or a broken package refuses.
            _can_import = False
    return _can_import


def import_compiler() -> bool:
    """Import Numba; if that fails, log why and compile nothing in this process."""
    try:
        import numba  # noqa: F401
    except Exception as error:
        log("Numba cannot be imported, so kernels run in Python (%s: %s)", type(error).__name__, error)
        forgo_compiler()
        return False
    return True


def forgo_compiler() -> None:
    """Compile nothing in this process from now on, as if Numba were not installed."""
    global _can_import
    _can_import = False


def mode() -> str:
    """Return how kernels should run: "python", "numba", "checked" (by Numba, with bounds checks) or "native"."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "python"
    if os.environ.get("NUMBA_BOUNDSCHECK", "0") not in ("", "0"):
        return "checked"
    from dcformat.jit.abi import layout_known

    return "native" if layout_known() else "numba"


def cache() -> str:
    """Return how kernels use the cache: "auto", "off" or "only"."""
    value = _chosen()
    return "auto" if value == "kernels" else value


def saves_networks() -> bool:
    """Return whether networks are saved unasked."""
    return _chosen() in ("auto", "only")


def _chosen() -> str:
    value = os.environ.get("DCFORMAT_CACHE", "") or "auto"
    if value not in ("auto", "kernels", "off", "only"):
        raise ValueError(f"DCFORMAT_CACHE: expected auto, kernels, off or only, found {value!r}")
    return value
