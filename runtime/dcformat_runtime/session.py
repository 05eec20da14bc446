"""The public face: load a file, call the session."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dcformat import jit
from dcformat.graph import Shape
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import Model
from dcformat_runtime.inputs import Inputs
from dcformat_runtime.network import Floats, Network, check_sizes, lower

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat_runtime.memory import MemoryRow

Backend = Literal["auto", "numba", "numpy"]
_FLOAT32 = np.dtype(np.float32)

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

    def __init__(self, model: Model, options: dict[str, Any], source: str | bytes | None = None) -> None:
        self._options = options
        self._source: str | bytes | Model = model if source is None else source
        self._network = lower(model)
        check_sizes(self._network, options["max_memory"] or DEFAULT_MAX_MEMORY)
        self.labels: tuple[str, ...] = model.labels
        self._engine = _engine(self._network, options)
        self._run = self._engine.run
        self._flat = len(self._network.output_shape) == 1
        self._inputs = Inputs(self._network)
        self._row, self._shape = (self._inputs.features,), self._network.input_shape

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
        from dcformat_runtime import memory

        options = _options(threads, deterministic, backend, max_memory)
        session = cls(model, options)
        known = {name: (tensor.shape, tensor.nnz) for name, tensor in model.tensors.items()}
        if max_memory is not None:
            memory.check(memory.rows_of(session._network, known, threads, session.backend), max_memory)
        return session

    def __repr__(self) -> str:
        shapes = ("x".join(map(str, shape)) for shape in (self.input_shape, self.output_shape))
        return f"Session({' -> '.join(shapes)}, backend {self.backend!r})"

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
        # What needs no attention goes straight on: at batch size 1 every line counts.
        if self._flat and x.__class__ is np.ndarray and x.dtype is _FLOAT32 and x.flags.carray:
            shape = x.shape
            inner = shape[1:]
            if inner == self._row:
                return self._run(x)
            if inner == self._shape:
                return self._run(x.reshape(shape[0], self._row[0]))
        out = self._run(self._inputs.rows(x))
        return out if self._flat else out.reshape(len(out), *self._network.output_shape)

    def profile(self, x: npt.NDArray[Any]) -> list[LayerTime]:
        """Run `x` once, layer by layer, and return what each layer took. Slower than a call."""
        return [LayerTime(*row) for row in self._engine.profile(self._inputs.rows(x))]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._source, self._options)


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
    with dcformat.open(source, max_memory=max_memory or DEFAULT_MAX_MEMORY) as file:
        if max_memory is not None:
            _check_memory(file, options)
        model = file.model()
    # By its whole path, or by bytes that nobody changes, for pickling.
    if isinstance(source, (str, os.PathLike)):
        return Session(model, options, os.path.abspath(source))  # noqa: PTH100 - a tenth of Path.resolve's time
    return Session(model, options, bytes(source))


def predict_memory(file: DcfFile, *, threads: int | None = None, backend: Backend = "auto") -> list[MemoryRow]:
    """Return what running an open file takes at most, by what takes it; see `dcformat_runtime.memory`.

    Nothing is decoded. `load` refuses a file whose rows add up to more than its `max_memory`.
    """
    from dcformat_runtime import memory

    return memory.predict_memory(file, threads=threads, backend=_choose(backend)[0])


def _check_memory(file: DcfFile, options: dict[str, Any]) -> None:
    from dcformat.errors import FormatError
    from dcformat_runtime import memory

    try:
        rows = memory.predict_memory(file, threads=options["threads"], backend=_choose(options["backend"])[0])
        memory.check(rows, options["max_memory"])
    except FormatError as error:
        error.path = error.path or file.path
        raise


def _rebuild(source: str | bytes | Model, options: dict[str, Any]) -> Session:
    """Unpickle."""
    return Session(source, options) if isinstance(source, Model) else load(source, **options)


def _options(threads: int | None, deterministic: bool, backend: str, max_memory: int | None) -> dict[str, Any]:
    if threads is not None and threads < 1:
        raise ValueError(f"threads: expected 1 or more, found {threads}")
    if backend not in ("auto", "numba", "numpy"):
        raise ValueError(f"backend: expected auto, numba or numpy, found {backend!r}")
    return {"threads": threads, "deterministic": deterministic, "backend": backend, "max_memory": max_memory}


def _engine(network: Network, options: dict[str, Any]) -> Engine:
    """Make the backend, and log which and why."""
    backend, why = _choose(options["backend"])
    if backend == "numpy":
        from dcformat_runtime.numpy_engine import NumpyEngine

        _log("backend numpy: %s", why)
        return NumpyEngine(network, options["deterministic"])
    from dcformat_runtime import machine
    from dcformat_runtime.engine import KernelEngine

    threads, limit = options["threads"] or machine.cores(), options["max_memory"] or DEFAULT_MAX_MEMORY
    engine = KernelEngine(network, threads, options["deterministic"], limit=limit)
    _log("backend numba: %s; %s vectors, up to %d threads", why, machine.level(), engine.threads)
    return engine


def _choose(backend: str) -> tuple[str, str]:
    """Return the backend to use, and why."""
    if backend != "auto":
        return backend, "asked for"
    from dcformat_runtime import kernels

    if kernels.run.ready():
        return "numba", "compiled kernels are at hand"
    return "numpy", _REASONS[jit.can_compile()]


_REASONS = {
    True: "the kernels are not compiled yet; `dcformat warmup` does it",
    False: "the kernels are not compiled for this machine, and Numba is not installed",
}


def _log(message: str, *args: object) -> None:
    logging = sys.modules.get("logging")  # costs milliseconds at start; whoever wants to see it has imported it
    if logging is not None:
        logging.getLogger("dcformat_runtime").info(message, *args)
