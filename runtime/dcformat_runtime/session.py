"""The public face: load a file, call the session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dcformat import jit
from dcformat.graph import Shape
from dcformat.model import Model
from dcformat_runtime.inputs import rows
from dcformat_runtime.network import Floats, Network, lower

Backend = Literal["auto", "numba", "numpy"]
Source = str | os.PathLike[str] | bytes | bytearray | memoryview


class LayerTime(NamedTuple):
    """One layer's name (its weight's, where it has one) and the seconds it took."""

    name: str
    seconds: float


class Engine(Protocol):
    """What runs a network. Engines keep no state between calls and may be called from several threads."""

    name: str

    def run(self, x: Floats) -> Floats:
        """Return float32 ``(batch, outputs)`` of C-contiguous float32 ``(batch, features)``."""

    def profile(self, x: Floats) -> list[tuple[str, float]]:
        """Return each layer's name and seconds."""


class Session:
    """A network ready to run; call it with a batch of inputs.

    One session may be called from several threads at once. It pickles by its source (a path, or the file's bytes), and
    a forked process may go on using it.
    """

    def __init__(self, model: Model, options: dict[str, Any], source: Source | None = None) -> None:
        self._options = options
        self._source: Source | Model = model if source is None else source
        self._network = lower(model)
        self.labels: tuple[str, ...] = model.labels
        self._engine = _engine(self._network, **options)
        self._run = self._engine.run
        self._features = int(np.prod(self._network.input_shape))
        self._flat = len(self._network.output_shape) == 1

    @classmethod
    def from_model(
        cls,
        model: Model,
        *,
        threads: int | None = None,
        deterministic: bool = False,
        backend: Backend = "auto",
        max_memory: int | None = None,
    ) -> Session:
        """Make a session of a model in memory; the options are those of `load`."""
        return cls(model, _options(threads, deterministic, backend, max_memory))

    @property
    def input_shape(self) -> Shape:
        """Shape of one input, without the batch."""
        return self._network.input_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one output, without the batch."""
        return self._network.output_shape

    @property
    def backend(self) -> str:
        """The backend in use, ``numba`` or ``numpy``."""
        return self._engine.name

    def __call__(self, x: npt.NDArray[Any]) -> Floats:
        """Return the network's outputs, float32 ``(batch, *output_shape)``. The input is never changed.

        Parameters
        ----------
        x : ndarray
            float32, already preprocessed, or uint8 pixels if the file has preprocessing. ``(batch, *input_shape)``,
            ``(batch, features)``, or for images of one channel ``(batch, height, width)``; any batch size, 0 included.

        Raises
        ------
        InputError
            Another shape or dtype.
        """
        out = self._run(rows(x, self._network))
        return out if self._flat else out.reshape(len(out), *self._network.output_shape)

    def profile(self, x: npt.NDArray[Any]) -> list[LayerTime]:
        """Run `x` once, layer by layer, and return what each layer took. Slower than a call."""
        return [LayerTime(*row) for row in self._engine.profile(rows(x, self._network))]

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._source
        if isinstance(source, (str, os.PathLike)):
            source = str(Path(source).resolve())
        elif isinstance(source, (bytearray, memoryview)):
            source = bytes(source)
        return _rebuild, (source, self._options)


def load(
    source: Source,
    *,
    threads: int | None = None,
    deterministic: bool = False,
    backend: Backend = "auto",
    max_memory: int | None = None,
) -> Session:
    """Load a ``.dcf`` file and make it ready to run.

    Parameters
    ----------
    source : path or bytes-like
    threads : int or None
        Threads at most; None: one for each core. Small batches are always run on one.
    deterministic : bool
        The same bits whatever the batch size, thread count, instruction set and backend, for finite inputs; slower.
    backend : {'auto', 'numba', 'numpy'}
        'auto' takes compiled kernels when they can be had.
    max_memory : int or None
        Bytes at most, for decoding and for what the kernels use; None: the format's default for decoding.

    Raises
    ------
    FormatError
        The file is not valid, holds no network, or needs more memory than allowed.
    OSError
        The file cannot be read.
    ValueError
        An option is not one of those above.
    """
    import dcformat

    options = _options(threads, deterministic, backend, max_memory)
    limit = {} if max_memory is None else {"max_memory": max_memory}
    return Session(dcformat.load(source, **limit), options, source)


def _rebuild(source: Source | Model, options: dict[str, Any]) -> Session:
    """Unpickle."""
    return Session(source, options) if isinstance(source, Model) else load(source, **options)


def _options(threads: int | None, deterministic: bool, backend: str, max_memory: int | None) -> dict[str, Any]:
    if threads is not None and threads < 1:
        raise ValueError(f"threads: expected 1 or more, found {threads}")
    if backend not in ("auto", "numba", "numpy"):
        raise ValueError(f"backend: expected auto, numba or numpy, found {backend!r}")
    return {"threads": threads, "deterministic": deterministic, "backend": backend, "max_memory": max_memory}


def _engine(
    network: Network, threads: int | None, deterministic: bool, backend: str, max_memory: int | None
) -> Engine:
    """Choose and make the backend, and log which and why."""
    from dcformat_runtime import kernels, machine
    from dcformat_runtime.numpy_engine import NumpyEngine

    if backend == "auto":
        ready = kernels.run.ready()
        backend = "numba" if ready else "numpy"
        why = "compiled kernels are at hand" if ready else _REASONS[jit.can_compile()]
    else:
        why = "asked for"
    if backend == "numpy":
        _log("backend numpy: %s", why)
        return NumpyEngine(network, deterministic)
    from dcformat_runtime.engine import KernelEngine

    engine = KernelEngine(network, threads or machine.cores(), deterministic, max_memory)
    _log("backend numba: %s; %s vectors, up to %d threads", why, machine.level(), engine.threads)
    return engine


_REASONS = {
    True: "the kernels are not compiled yet; `dcformat warmup` does it",
    False: "the kernels are not compiled for this machine, and Numba is not installed",
}


def _log(message: str, *args: object) -> None:
    import logging  # costs milliseconds at start

    logging.getLogger("dcformat_runtime").info(message, *args)
