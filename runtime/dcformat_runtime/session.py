"""Loads and runs files: `load` returns a `Session`, which is called with inputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from dcformat.errors import FormatError, MemoryLimitError
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.limits import require_work
from dcformat.records import record
from dcformat.wording import counted
from dcformat_runtime.backends import Backend, LoadOptions, checked_options
from dcformat_runtime.input_rows import Inputs

if TYPE_CHECKING:
    import numpy.typing as npt

    from dcformat.graph import Shape
    from dcformat.model import Model
    from dcformat_runtime.backends import Engine
    from dcformat_runtime.ports import PortInfo
    from dcformat_runtime.weight_matrices import Floats

    ModelSource = str | os.PathLike[str] | bytes | bytearray | memoryview
    #: Takes the number of inputs that have been run, and that of all inputs.
    Progress = Callable[[int, int], None]

_FLOAT32 = np.dtype(np.float32)
#: Maximum number of bytes that a piece of a large batch may take, with everything that is made from it.
_PIECE_BYTES = 64 << 20


class LayerTime(NamedTuple):
    """A layer's name (that of its weight, if it has one) and the seconds that it took."""

    name: str
    seconds: float


@record
class NetworkInterface:
    """What the caller of a network sees of it, and what its calls take.

    `names` are those of the input and of the output, `pixels` is float32 of each uint8 pixel value, ``(channels or 1,
    256)``, or None without preprocessing. A session that makes calls with one input takes `memory` bytes, each input
    of a call takes `call` of them, and `steps` steps.
    """

    labels: tuple[str, ...]
    names: tuple[str, str]
    input_shape: Shape
    output_shape: Shape
    pixels: Floats | None
    memory: int
    call: int
    steps: int

    @property
    def outputs(self) -> int:
        """Number of floats in the results of one input."""
        return prod(self.output_shape)


class Session:
    """A network ready to run; call it with a batch of inputs.

    Several threads may call one session at the same time. A session pickles by its source (a path, or the file's
    bytes), and keeps working in a forked process.
    """

    def __init__(
        self,
        network: NetworkInterface,
        engine: Engine,
        options: LoadOptions,
        source: str | bytes | Model,
        later: Callable[[], Session] | None = None,
    ) -> None:
        self._interface, self._engine, self._options, self._source = network, engine, options, source
        self.labels = network.labels
        #: Makes the session that replaces this one when the kernels are compiled; None if none will.
        self._later = later
        self._run = engine.run if later is None else self._run_in_numpy
        self._inputs = Inputs(network.input_shape, network.pixels)
        self._row, self._shape = (self._inputs.features,), network.input_shape
        limit = options.max_memory
        self._left = None if limit is None else limit - network.memory + network.call
        self._call = network.call
        #: Maximum number of inputs that go to the engine together, and the maximum if no input has to be copied or
        #: reshaped.
        self._piece = self._whole = self.fitting(sys.maxsize)
        if len(network.output_shape) > 1:
            self._whole = -1
        elif engine.name == "numba":
            self._whole = sys.maxsize if self._left is None else self._left // (4 * network.outputs)

    def _run_in_numpy(self, x: Floats) -> Floats:
        start = perf_counter()
        out = self._engine.run(x)
        self._spend(perf_counter() - start)
        return out

    def _spend(self, seconds: float) -> None:
        """Count the time of a call in NumPy, and switch to the kernels once they are compiled."""
        from dcformat_runtime import switching

        later = self._later
        if later is None or not switching.spend(seconds):
            return
        self._later = None
        replaced: dict[str, Any] = {}
        if all(kernel.ready() for kernel in switching.needed()):
            # Kernels that need more memory than the caller allows cannot replace NumPy.
            with suppress(FormatError, MemoryError):
                replaced = vars(later())
        if replaced:
            # One assignment, because other threads may be calling. A copy of this session is made as this one was.
            self.__dict__ = {**replaced, "_options": self._options, "_source": self._source}

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
        """Make a session from a model in memory, with the options of `load`; the model's arrays count as memory.

        The session shares these arrays; do not change them.
        """
        from dcformat_runtime.session_maker import make_in_memory

        return make_in_memory(model, checked_options(threads, deterministic, backend, max_memory, max_work))

    def __repr__(self) -> str:
        shapes = ("x".join(map(str, shape)) for shape in (self.input_shape, self.output_shape))
        return f"Session({' -> '.join(shapes)}, backend {self.backend!r})"

    @property
    def input_shape(self) -> Shape:
        """Shape of one input, without the batch."""
        return self._interface.input_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one output, without the batch."""
        return self._interface.output_shape

    @property
    def inputs(self) -> tuple[PortInfo, ...]:
        """The inputs' names, shapes (None stands for the batch) and dtypes."""
        return (self._port(0, self.input_shape),)

    @property
    def outputs(self) -> tuple[PortInfo, ...]:
        """The outputs' names, shapes (None stands for the batch) and dtypes."""
        return (self._port(1, self.output_shape),)

    def _port(self, which: int, shape: Shape) -> PortInfo:
        from dcformat_runtime.ports import PortInfo  # a call by position needs none

        return PortInfo(self._interface.names[which], (None, *shape), "float32")

    @property
    def backend(self) -> str:
        """The backend in use, ``numba`` or ``numpy``; with ``backend="auto"`` it may change between two calls."""
        return self._engine.name

    @overload
    def __call__(self, x: npt.NDArray[Any]) -> Floats: ...
    @overload
    def __call__(self, x: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]: ...

    def __call__(self, x: Any) -> Any:
        """Return the network's outputs, float32 ``(batch, *output_shape)``. The input is never changed.

        Parameters
        ----------
        x : ndarray
            float32, already preprocessed, or uint8 pixels if the file has preprocessing. The shape is ``(batch,
            *input_shape)``, ``(batch, features)`` or, for images of one channel, ``(batch, height, width)``, for any
            batch size, 0 included.

        Raises
        ------
        InputError
            `x` has another shape or dtype.
        MemoryLimitError
            There are more inputs than the memory allows.
        """
        # Inputs that need no preparation take a fast path: at batch size 1 every line counts.
        try:
            if x.__class__ is np.ndarray and x.dtype is _FLOAT32 and x.flags.carray:
                shape = x.shape
                inner = shape[1:]
                if inner == self._row and shape[0] <= self._whole:
                    return self._run(x)
                if inner == self._shape and shape[0] <= self._whole:
                    return self._run(x.reshape(shape[0], self._row[0]))
        except MemoryError:
            pass  # In pieces, the batch may fit.
        return self.run(x) if isinstance(x, Mapping) else self._in_pieces(x)

    def run(self, given: Mapping[str, npt.NDArray[Any]], progress: Progress | None = None) -> dict[str, Any]:
        """Return the outputs by name for inputs by name, as a call does.

        Parameters
        ----------
        given : mapping of str to ndarray
        progress : callable, optional
            Takes the number of finished and of all inputs, before each piece of a batch that is run in pieces.
        """
        from dcformat_runtime.ports import check_names

        check_names(given, self.inputs)
        return {self.outputs[0].name: self._in_pieces(given[self.inputs[0].name], progress)}

    def float32_outputs(self, given: Mapping[str, npt.NDArray[Any]]) -> list[Floats]:
        """Return the outputs for inputs by name, before they get their dtypes and the batch its place.

        Returns
        -------
        list of ndarray
            Each output as float32 ``(batch, *shape)``, in the order of `outputs`. The batch is 1 for a network that
            takes none.
        """
        return [*self.run(given).values()]

    def _in_pieces(self, x: npt.NDArray[Any], progress: Progress | None = None) -> Floats:
        n, piece = self._checked(x)
        with self._memory_for(n):
            if n <= piece:
                return self._run(self._inputs.rows(x)).reshape(n, *self._interface.output_shape)
            out = np.empty((n, self._interface.outputs), np.float32)
            for start in range(0, n, piece):
                if progress is not None:
                    progress(start, n)
                out[start : start + piece] = self._run(self._inputs.rows(x[start : start + piece]))
            return out.reshape(n, *self._interface.output_shape)

    def _checked(self, x: npt.NDArray[Any]) -> tuple[int, int]:
        """Return the number of inputs in `x`, and of those to run at a time; refuse what is no input, or too large."""
        self._inputs.check(x)
        n, piece = len(x), self._piece
        need = n * self._call
        if n > piece:
            results = 4 * n * self._interface.outputs
            if self._left is not None:  # The results take memory from the pieces.
                piece = max(1, min(piece, (self._left - results) // self._call))
            need = results + piece * self._call
        if self._left is not None and need > self._left:
            raise self._too_large(n, counted(need, "byte"))
        return n, piece

    @contextmanager
    def _memory_for(self, n: int) -> Iterator[None]:
        """Turn a lack of memory in a block that runs `n` inputs into a `MemoryLimitError`."""
        try:
            yield
        except MemoryError:
            raise self._too_large(n, "no more memory") from None

    def _too_large(self, n: int, found: str) -> MemoryLimitError:
        left = (
            "fewer inputs"
            if self._left is None
            else f"at most {counted(self._left, 'byte')} in addition to the network (max_memory)"
        )
        return MemoryLimitError(f"running {counted(n, 'input')}", got=found, expected=left)

    def profile(self, x: Any) -> list[LayerTime]:
        """Run `x` once, layer by layer, and return the time of each layer. This is slower than a call."""
        (n, piece), seconds = self._checked(x), dict[str, float]()
        with self._memory_for(n):
            for start in range(0, max(n, 1), piece):
                for name, taken in self._engine.profile(self._inputs.rows(x[start : start + piece])):
                    seconds[name] = seconds.get(name, 0.0) + taken
        return [LayerTime(*row) for row in seconds.items()]

    def fitting(self, n: int, beside: int = 0) -> int:
        """Return how many of `n` inputs fit in memory at a time, if the caller needs `beside` further bytes for each.

        Raises
        ------
        MemoryLimitError
            The memory does not allow even one.
        """
        each = self._call + beside
        if self._left is not None and each > self._left:
            raise self._too_large(1, counted(each, "byte"))
        return max(1, min(n, min(_PIECE_BYTES, self._left or _PIECE_BYTES) // each))

    def check_work(self, what: str, inputs: int) -> None:
        """Raise `WorkLimitError` if `inputs` inputs together are more work than the session allows."""
        require_work(what, inputs * self._steps(), self._options.max_work)

    def _steps(self) -> int:
        """Return the steps of one input."""
        return self._interface.steps

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._source, self._options)


def load(
    source: ModelSource | Model,
    *,
    threads: int | None = None,
    deterministic: bool = False,
    backend: Backend = "auto",
    max_memory: int | None = DEFAULT_MAX_MEMORY,
    max_work: int | None = DEFAULT_MAX_WORK,
) -> Session:
    """Load a ``.dcf`` file, or a model in memory, and make it ready to run.

    The second process that loads a file saves its network in the user's cache, and later ones start sooner
    (``docs/cold-start.md``). The environment variable ``DCFORMAT_CACHE=kernels`` prevents that.

    Parameters
    ----------
    source : path, bytes-like or Model
    threads : int or None
        Maximum number of threads; None: one for each core, as far as `max_memory` allows. Small batches run on one
        thread.
    deterministic : bool
        Give the same bits for any batch size, thread count, instruction set and backend, as long as the inputs and
        all sums are finite and no number is denormal. This is slower.
    backend : {'auto', 'numba', 'numpy'}
        'auto' chooses compiled kernels if they are ready. If they are not, but Numba is installed, NumPy answers
        and another process compiles them; the session switches between two calls.
    max_memory : int or None
        Maximum number of bytes for decoding, for what the kernels use, and for each call; None: no bound.
    max_work : int or None
        Maximum number of steps for decoding, for making the network ready, and for one input; None: no bound. A step
        takes about a nanosecond of compiled code.

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
    options = checked_options(threads, deterministic, backend, max_memory, max_work)
    if isinstance(source, (str, os.PathLike)):
        from dcformat_runtime import prepared

        found = prepared.find(os.fsdecode(source), options)
        if found is not None:
            return found
    from dcformat_runtime.session_maker import load_source

    return load_source(source, options)


def _rebuild(source: str | bytes | Model, options: LoadOptions) -> Session:
    """Make a session again from a pickle."""
    return load(source, **options._asdict())
