"""The public face: load a file, call the session."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dcformat import jit
from dcformat.errors import FormatError, MemoryLimitError
from dcformat.graph import Shape
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.model import Model
from dcformat_runtime import memory, work
from dcformat_runtime.inputs import Inputs
from dcformat_runtime.network import Floats, Network, lower, matrices, outline
from dcformat_runtime.program import check_words

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat_runtime.memory import MemoryRow, Prediction

Backend = Literal["auto", "numba", "numpy"]
_FLOAT32 = np.dtype(np.float32)
_BACKENDS = ("auto", "numba", "numpy")
#: Bytes that the inputs of a large batch may take at a time, with all that is made of them.
_PIECE_BYTES = 64 << 20

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

    def __init__(
        self, model: Model, options: dict[str, Any], plan: Prediction, source: str | bytes | None = None
    ) -> None:
        self._options = options
        self._source: str | bytes | Model = model if source is None else source
        self._network = lower(model)
        self.labels: tuple[str, ...] = model.labels
        self._engine = _engine(self._network, options, plan.threads)
        self._run = self._engine.run
        self._inputs = Inputs(self._network)
        self._row, self._shape = (self._inputs.features,), self._network.input_shape
        limit = options["max_memory"]
        self._left = None if limit is None else limit - plan.total + plan.call
        self._call = plan.call
        #: Inputs that go to the engine together; and as they are, if nothing has to be copied or reshaped.
        self._piece = self._whole = self.fitting(sys.maxsize)
        if len(self._network.output_shape) > 1:
            self._whole = -1
        elif self._engine.name == "numba":
            self._whole = sys.maxsize if self._left is None else self._left // (4 * self._network.outputs)

    @classmethod
    def from_model(
        cls,
        model: Model,
        *,
        threads: int | None = None,
        deterministic: bool = False,
        backend: Backend = "auto",
        max_memory: int | None = DEFAULT_MAX_MEMORY,
        max_work: int | None = DEFAULT_MAX_WORK,
    ) -> Session:
        """Make a session of a model in memory; the options are those of `load`, and the model's arrays count too."""
        options = _options(threads, deterministic, backend, max_memory, max_work)
        held = sum(
            array.nbytes
            for tensor in model.tensors.values()
            for array in (tensor.data, tensor.codebook, tensor.indptr, tensor.indices)
            if array is not None
        )
        plan = _plan(outline(model.graph, matrices(model.tensors)), held, options)
        with _within_memory(max_memory):
            return cls(model, options, plan)

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
        try:
            if x.__class__ is np.ndarray and x.dtype is _FLOAT32 and x.flags.carray:
                shape = x.shape
                inner = shape[1:]
                if inner == self._row and shape[0] <= self._whole:
                    return self._run(x)
                if inner == self._shape and shape[0] <= self._whole:
                    return self._run(x.reshape(shape[0], self._row[0]))
            return self._in_pieces(x)
        except MemoryError:
            raise self._too_large(len(x), "no more memory") from None

    def _in_pieces(self, x: npt.NDArray[Any]) -> Floats:
        n = self._checked(x)
        if n <= self._piece:
            return self._run(self._inputs.rows(x)).reshape(n, *self._network.output_shape)
        out = np.empty((n, self._network.outputs), np.float32)
        for start in range(0, n, self._piece):
            out[start : start + self._piece] = self._run(self._inputs.rows(x[start : start + self._piece]))
        return out.reshape(n, *self._network.output_shape)

    def _checked(self, x: npt.NDArray[Any]) -> int:
        """Return how many inputs `x` holds; refuse what is none, and more than the budget leaves memory for."""
        self._inputs.check(x)
        n = len(x)
        need = n * self._call
        if n > self._piece:
            need = 4 * n * self._network.outputs + self._piece * self._call
        if self._left is not None and need > self._left:
            raise self._too_large(n, f"{need} bytes")
        return n

    def _too_large(self, n: int, found: str) -> MemoryLimitError:
        left = "fewer inputs" if self._left is None else f"at most {self._left} bytes beside the network (max_memory)"
        return MemoryLimitError(f"running {n} inputs", got=found, expected=left)

    def profile(self, x: npt.NDArray[Any]) -> list[LayerTime]:
        """Run `x` once, layer by layer, and return what each layer took. Slower than a call."""
        n, seconds = self._checked(x), dict[str, float]()
        with _within_memory(self._options["max_memory"]):
            for start in range(0, max(n, 1), self._piece):
                for name, taken in self._engine.profile(self._inputs.rows(x[start : start + self._piece])):
                    seconds[name] = seconds.get(name, 0.0) + taken
        return [LayerTime(*row) for row in seconds.items()]

    def fitting(self, n: int, beside: int = 0) -> int:
        """Return how many of `n` inputs the memory allows at a time, each with `beside` more bytes of the caller's.

        Raises
        ------
        MemoryLimitError
            Not even one.
        """
        each = self._call + beside
        if self._left is not None and each > self._left:
            raise self._too_large(1, f"{each} bytes")
        return max(1, min(n, min(_PIECE_BYTES, self._left or _PIECE_BYTES) // each))

    def check_work(self, what: str, inputs: int) -> None:
        """Raise `WorkLimitError` if so many inputs together are more work than the session allows."""
        each = work.steps(self._network, self.backend, self._options["deterministic"])
        work.check_work(what, inputs * each, self._options["max_work"])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._source, self._options)


def load(
    source: Source,
    *,
    threads: int | None = None,
    deterministic: bool = False,
    backend: Backend = "auto",
    max_memory: int | None = DEFAULT_MAX_MEMORY,
    max_work: int | None = DEFAULT_MAX_WORK,
) -> Session:
    """Load a ``.dcf`` file and make it ready to run.

    Parameters
    ----------
    source : path or bytes-like
    threads : int or None
        Threads at most; None: one for each core, as far as `max_memory` allows. Small batches are always run on one.
    deterministic : bool
        The same bits whatever the batch size, thread count, instruction set and backend, for finite inputs; slower.
    backend : {'auto', 'numba', 'numpy'}
        'auto' takes compiled kernels when they can be had.
    max_memory : int or None
        Bytes at most, for decoding, for what the kernels use, and for each call; None: no bound.
    max_work : int or None
        Steps at most, for decoding and for one input through the network, each about a nanosecond of compiled code;
        None: no bound.

    Raises
    ------
    FormatError
        The file is not valid, holds no network, or needs more memory (`MemoryLimitError`) or work (`WorkLimitError`)
        than allowed.
    OSError
        The file cannot be read.
    ValueError
        An option is not one of those above.
    """
    import dcformat

    options = _options(threads, deterministic, backend, max_memory, max_work)
    opened = dcformat.open(source, max_memory=max_memory, max_work=max_work)
    with opened as file, _within_memory(max_memory, file.path):
        plan = _plan(*memory.outline_of(file), options)
        model = file.model()
        # By its whole path, or by bytes that nobody changes, for pickling.
        if isinstance(source, (str, os.PathLike)):
            name = os.path.abspath(source)  # noqa: PTH100 - a tenth of Path.resolve's time
            return Session(model, options, plan, name)
        return Session(model, options, plan, bytes(source))


def predict_memory(file: DcfFile, *, threads: int | None = None, backend: Backend = "auto") -> list[MemoryRow]:
    """Return what running an open file takes at most, by what takes it; see `dcformat_runtime.memory`.

    Nothing is decoded. `load` refuses a file whose rows add up to more than its `max_memory`. It may use fewer threads
    than there are cores to stay below that, unless it is told how many.

    Raises
    ------
    GraphError
        The file holds no network.
    """
    _options(threads, False, backend, None, None)
    with _within_memory(None, file.path):
        return memory.predict_memory(file, threads=threads, backend=_choose(backend)[0])


def _plan(network: Network, held: int, options: dict[str, Any]) -> Prediction:
    """Predict what a network without its weights will take; refuse what exceeds the limits."""
    backend, exact = _choose(options["backend"])[0], options["deterministic"]
    work.check_work("running one input", work.steps(network, backend, exact), options["max_work"])
    plan = memory.predict(network, held, options["threads"], backend, exact, options["max_memory"])
    check_words(plan.words)
    return plan


@contextmanager
def _within_memory(limit: int | None, path: str | None = None) -> Iterator[None]:
    """Make running out of memory the file's failure like any other, and let failures name the file."""
    try:
        yield
    except MemoryError:
        error: FormatError = MemoryLimitError("running the network", got="no more memory", expected=limit)
        error.path = path
        raise error from None
    except FormatError as error:
        error.path = error.path or path
        raise


def _rebuild(source: str | bytes | Model, options: dict[str, Any]) -> Session:
    """Unpickle."""
    return Session.from_model(source, **options) if isinstance(source, Model) else load(source, **options)


def _options(
    threads: int | None, deterministic: bool, backend: str, max_memory: int | None, max_work: int | None
) -> dict[str, Any]:
    whole = {
        "threads": _whole("threads", threads, 1),
        "max_memory": _whole("max_memory", max_memory, 0),
        "max_work": _whole("max_work", max_work, 0),
    }
    if not isinstance(deterministic, bool):
        raise TypeError(f"deterministic: expected True or False, found {deterministic!r}")
    if backend not in _BACKENDS:
        raise ValueError(f"backend: expected auto, numba or numpy, found {backend!r}")
    return {"deterministic": deterministic, "backend": backend, **whole}


def _whole(name: str, value: object, least: int) -> int | None:
    """Return an option that is a whole number or None."""
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


def _engine(network: Network, options: dict[str, Any], threads: int) -> Engine:
    """Make the backend, and log which and why."""
    backend, why = _choose(options["backend"])
    if backend == "numpy":
        from dcformat_runtime.numpy_engine import NumpyEngine

        _log("backend numpy: %s", why)
        return NumpyEngine(network, options["deterministic"])
    from dcformat_runtime import machine
    from dcformat_runtime.engine import KernelEngine

    engine = KernelEngine(network, threads, options["deterministic"])
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
