"""Loads and runs files: `load` returns a `Session`, which is called with inputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from dcformat.errors import FormatError, MemoryLimitError
from dcformat.graph import Shape
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.limits import require_work
from dcformat.model import Model, require_no_delta
from dcformat.source import is_url
from dcformat.wording import counted
from dcformat_runtime.backends import Backend, LoadOptions, checked_options, make_engine
from dcformat_runtime.compile import memory_prediction, work_prediction
from dcformat_runtime.compile.memory_prediction import Prediction
from dcformat_runtime.input_rows import Inputs
from dcformat_runtime.network import lower, matrices
from dcformat_runtime.plans import make_plan, within_memory
from dcformat_runtime.weight_matrices import Floats

if TYPE_CHECKING:
    from dcformat_runtime.plans import Plan
    from dcformat_runtime.ports import PortInfo

_FLOAT32 = np.dtype(np.float32)
#: Maximum number of bytes that a piece of a large batch may take, with everything that is made from it.
_PIECE_BYTES = 64 << 20

ModelSource = str | os.PathLike[str] | bytes | bytearray | memoryview

#: Takes the number of inputs that have been run, and that of all inputs.
Progress = Callable[[int, int], None]


class LayerTime(NamedTuple):
    """A layer's name (that of its weight, if it has one) and the seconds that it took."""

    name: str
    seconds: float


class Session:
    """A network ready to run; call it with a batch of inputs.

    Several threads may call one session at the same time. A session pickles by its source (a path, or the file's
    bytes), and keeps working in a forked process.
    """

    def __init__(self, model: Model, options: LoadOptions, plan: Prediction, source: str | bytes | None = None) -> None:
        self._options = options
        self._source: str | bytes | Model = model if source is None else source
        self._network = lower(model)
        self.labels: tuple[str, ...] = model.labels
        assert model.graph is not None  # `lower` refuses a model without one
        self._names = model.graph.inputs[0].name, model.graph.outputs[0].name
        self._engine = make_engine(self._network, options, plan.threads)
        self._run = self._engine.run
        self._inputs = Inputs(self._network.input_shape, self._network.pixels)
        self._row, self._shape = (self._inputs.features,), self._network.input_shape
        limit = options.max_memory
        self._left = None if limit is None else limit - plan.total + plan.call
        self._call = plan.call
        #: Maximum number of inputs that go to the engine together, and the maximum if no input has to be copied or
        #: reshaped.
        self._piece = self._whole = self.fitting(sys.maxsize)
        if len(self._network.output_shape) > 1:
            self._whole = -1
        elif self._engine.name == "numba":
            self._whole = sys.maxsize if self._left is None else self._left // (4 * self._network.outputs)
        if self._engine.name == "numpy" and self._wait_for_kernels(model):
            self._run = self._run_in_numpy

    #: Makes the session that replaces this one when the kernels are compiled; None if none will.
    _later: Callable[[], Session] | None = None

    def _wait_for_kernels(self, model: Model) -> bool:
        """If the kernels can be compiled and the choice is open, prepare to switch to them and return True."""
        from dcformat_runtime import switching

        if self._options.backend != "auto" or not switching.possible():
            return False
        options = self._options._replace(backend="numba")
        self._later = lambda: _make_in_memory(model, options)
        return True

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
        options = checked_options(threads, deterministic, backend, max_memory, max_work)
        return _make_in_memory(model, options)

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
    def inputs(self) -> tuple[PortInfo, ...]:
        """The inputs' names, shapes (None stands for the batch) and dtypes."""
        return (self._port(0, self.input_shape),)

    @property
    def outputs(self) -> tuple[PortInfo, ...]:
        """The outputs' names, shapes (None stands for the batch) and dtypes."""
        return (self._port(1, self.output_shape),)

    def _port(self, which: int, shape: Shape) -> PortInfo:
        from dcformat_runtime.ports import PortInfo  # a call by position needs none

        return PortInfo(self._names[which], (None, *shape), "float32")

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
                return self._run(self._inputs.rows(x)).reshape(n, *self._network.output_shape)
            out = np.empty((n, self._network.outputs), np.float32)
            for start in range(0, n, piece):
                if progress is not None:
                    progress(start, n)
                out[start : start + piece] = self._run(self._inputs.rows(x[start : start + piece]))
            return out.reshape(n, *self._network.output_shape)

    def _checked(self, x: npt.NDArray[Any]) -> tuple[int, int]:
        """Return the number of inputs in `x`, and of those to run at a time; refuse what is no input, or too large."""
        self._inputs.check(x)
        n, piece = len(x), self._piece
        need = n * self._call
        if n > piece:
            results = 4 * n * self._network.outputs
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
        return work_prediction.steps(self._network, self.backend, self._options.deterministic)

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
    import dcformat

    options = checked_options(threads, deterministic, backend, max_memory, max_work)
    if isinstance(source, Model):
        return _make_in_memory(source, options)
    opened = dcformat.open(source, max_memory=max_memory, max_work=max_work)
    with opened as file, within_memory(max_memory, file.path):
        require_no_delta(file.delta)
        plan = make_plan(file.graph, *memory_prediction.matrices_of(file), options)
        model = file.model()
        # A session pickles by the absolute path, or by bytes that cannot change.
        if isinstance(source, (str, os.PathLike)):
            # abspath takes a tenth of the time of Path.resolve.
            name = os.fspath(source) if is_url(source) else os.path.abspath(source)  # noqa: PTH100
            return _make(model, options, plan, name)
        return _make(model, options, plan, bytes(source))


def _make(model: Model, options: LoadOptions, plan: Plan, source: str | bytes | None = None) -> Session:
    """Make the session that a network needs."""
    if isinstance(plan, Prediction):
        return Session(model, options, plan, source)
    from dcformat_runtime.graph_session import GraphSession

    return GraphSession(model, options, plan, source)


def _make_in_memory(model: Model, options: LoadOptions) -> Session:
    """Make the session of a model whose arrays are in memory and count against the limit."""
    require_no_delta(model.delta)
    held = sum(
        array.nbytes
        for tensor in model.tensors.values()
        for array in (tensor.data, tensor.codebook, tensor.indptr, tensor.indices)
        if array is not None
    )
    plan = make_plan(model.graph, matrices(model.tensors), held, options)
    with within_memory(options.max_memory):
        return _make(model, options, plan)


def _rebuild(source: str | bytes | Model, options: LoadOptions) -> Session:
    """Make a session again from a pickle."""
    given = options._asdict()
    return Session.from_model(source, **given) if isinstance(source, Model) else load(source, **given)
