"""The options of a session, and the backend that suits them and the machine."""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from dcformat_runtime.network import Network
    from dcformat_runtime.weight_matrices import Floats

Backend = Literal["auto", "numba", "numpy"]
_BACKENDS = ("auto", "numba", "numpy")


class LoadOptions(NamedTuple):
    """The options with which a session is made: those of `load`."""

    threads: int | None
    deterministic: bool
    backend: Backend
    max_memory: int | None
    max_work: int | None


class Engine(Protocol):
    """A backend that runs a network. It keeps no state between calls, and several threads may call it at once."""

    name: str

    def run(self, x: Floats) -> Floats:
        """Return float32 ``(batch, outputs)`` for C-contiguous float32 ``(batch, features)``."""

    def profile(self, x: Floats) -> list[tuple[str, float]]:
        """Return each layer's name and seconds."""


def checked_options(
    threads: int | None, deterministic: bool, backend: Backend, max_memory: int | None, max_work: int | None
) -> LoadOptions:
    """Check the caller's options."""
    if not isinstance(deterministic, bool):
        raise TypeError(f"deterministic: expected True or False, found {deterministic!r}")
    if backend not in _BACKENDS:
        raise ValueError(f"backend: expected auto, numba or numpy, found {backend!r}")
    return LoadOptions(
        _whole("threads", threads, 1),
        deterministic,
        backend,
        _whole("max_memory", max_memory, 0),
        _whole("max_work", max_work, 0),
    )


def _whole(name: str, value: object, least: int) -> int | None:
    """Return an option that must be None or a whole number of at least `least`."""
    if value is None:
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer or None, found {value!r}")
    if number < least:
        raise ValueError(f"{name}: expected {least} or more, found {number}")
    return number


def make_engine(network: Network, options: LoadOptions, threads: int) -> Engine:
    """Make the backend, and log the choice and its reason."""
    backend, why = choose_backend(options.backend)
    if backend == "numpy":
        from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

        _log("backend numpy: %s", why)
        return NumpyEngine(network, options.deterministic)
    from dcformat_runtime import cpu
    from dcformat_runtime.network_engine import KernelEngine

    engine = KernelEngine(network, threads, options.deterministic)
    _log("backend numba: %s; %s vectors, up to %d threads", why, cpu.level(), engine.threads)
    return engine


def choose_backend(backend: str) -> tuple[str, str]:
    """Return the backend to use, and the reason."""
    if backend != "auto":
        return backend, "asked for"
    from dcformat import jit
    from dcformat_runtime.kernels import interpreter

    if interpreter.run.ready():
        return "numba", "the kernels are compiled"
    return "numpy", _REASONS[jit.can_compile()]


_REASONS = {
    True: "the kernels are not compiled yet (`dcformat warmup` compiles them beforehand)",
    False: "the kernels are not compiled for this machine, and Numba is not installed",
}


def _log(message: str, *args: object) -> None:
    logging = sys.modules.get("logging")  # importing it takes milliseconds; a caller that logs has imported it
    if logging is not None:
        logging.getLogger("dcformat_runtime").info(message, *args)
