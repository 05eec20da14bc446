"""Sessions of networks with several inputs or outputs, or whose operators or ranks the kernels do not all have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from dcformat.errors import GraphError
from dcformat.graph import Output, Port, Shape
from dcformat.model import Model
from dcformat.wording import counted
from dcformat_runtime import integer_engine, switching
from dcformat_runtime.backends import LoadOptions, choose_backend, make_engine
from dcformat_runtime.compile.graph_prediction import GraphPrediction
from dcformat_runtime.graph_engine import GraphEngine
from dcformat_runtime.input_rows import InputError
from dcformat_runtime.integer_engine import IntegerEngine
from dcformat_runtime.network import Network
from dcformat_runtime.plans import within_memory
from dcformat_runtime.ports import PortInfo, Ports
from dcformat_runtime.session import LayerTime, Session
from dcformat_runtime.weight_matrices import Floats

if TYPE_CHECKING:
    from dcformat_runtime.session import Progress


class GraphSession(Session):
    """A session of any graph. With several inputs or outputs, a call takes or returns a dict of arrays by name."""

    def __init__(
        self,
        model: Model,
        options: LoadOptions,
        plan: GraphPrediction,
        source: str | bytes | Model,
        later: Callable[[], Session] | None,
    ) -> None:
        self._options, self._source = options, source
        self.labels = model.labels
        threads = plan.memory.threads

        def engine(network: Network) -> Any:
            return make_engine(network, options, threads)

        self._backend = choose_backend(options.backend)[0]
        compiled = self._backend == "numba" and (
            options.backend == "numba" or all(kernel.ready() for kernel in switching.needed())
        )
        self._integers: IntegerEngine | None = None
        limit = options.max_memory
        if compiled:
            # It replaces the predicted memory, or takes what is left beside that.
            allowed = None if limit is None else max(plan.memory.total, limit - plan.memory.total)
            self._integers = integer_engine.make(model, allowed)
        self._graph = self._integers or GraphEngine(model, engine, compiled, options.deterministic)
        if options.deterministic and (name := self._graph.unordered()):
            raise GraphError(
                f"{name} with deterministic=True", got="no fixed order of its sums", expected="other operators"
            )
        self._ports = Ports(self._graph.graph, self._graph.shapes)
        self._running = plan.running
        self._left = None if limit is None else limit - plan.memory.total + plan.memory.call
        self._call = plan.memory.call
        self._piece = self.fitting(sys.maxsize)
        #: Maximum number of inputs that a network of integers takes together.
        self._whole = 0
        if self._integers is not None:
            self._whole = sys.maxsize if self._left is None else self._left // self._integers.given
        self._later = None if compiled else later

    @property
    def input_shape(self) -> Shape:
        """Shape of the only input, without the batch; an `InputError` if there are several."""
        port: Port = _only(self._graph.graph.inputs, "inputs")
        return port.shape

    @property
    def output_shape(self) -> Shape:
        """Shape of the only output, without the batch; an `InputError` if there are several."""
        output: Output = _only(self._graph.graph.outputs, "outputs")
        return self._graph.shapes[output.value]

    @property
    def inputs(self) -> tuple[PortInfo, ...]:
        """The inputs' names, shapes (None stands for the batch) and dtypes."""
        return self._ports.inputs

    @property
    def outputs(self) -> tuple[PortInfo, ...]:
        """The outputs' names, shapes (None stands for the batch) and dtypes."""
        return self._ports.outputs

    @property
    def backend(self) -> str:
        """The backend in use, ``numba`` or ``numpy``."""
        return self._backend

    def __call__(self, x: Any) -> Any:
        """Return the network's outputs.

        Parameters
        ----------
        x : ndarray, or mapping of str to ndarray
            The only input, or the inputs by name, with the shapes and dtypes in `inputs`.

        Returns
        -------
        ndarray or dict of str to ndarray
            The only output of a network that was given an array, otherwise the outputs by name.

        Raises
        ------
        InputError
            A name, shape or dtype is not one that the network takes.
        MemoryLimitError
            There are more inputs than the memory allows.
        """
        engine = self._integers
        # Networks of integers take microseconds, so every line counts here.
        if (
            engine is not None
            and x.__class__ is np.ndarray
            and x.dtype is engine.dtype
            and x.shape[1:] == engine.shape
            and x.flags.c_contiguous
            and len(x) <= self._whole
        ):
            try:
                return engine.run_bytes(x)
            except MemoryError:
                pass  # In pieces, the batch may fit.
        given = x if isinstance(x, Mapping) else {_only(self.inputs, "inputs").name: x}
        named = self.run(given)
        return next(iter(named.values())) if len(named) == 1 and not isinstance(x, Mapping) else named

    def run(self, given: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """Return the outputs by name for inputs by name, as a call does; see `Session.run`."""
        outputs = self._float32_outputs(given, progress)
        with self._memory_for(len(outputs[0])):
            return self._ports.give(outputs)

    def float32_outputs(self, given: Mapping[str, Any]) -> list[Floats]:
        """Return the outputs for inputs by name, before they get their dtypes and the batch its place."""
        return self._float32_outputs(given, None)

    def _float32_outputs(self, given: Mapping[str, Any], progress: Progress | None) -> list[Floats]:
        arrays, batch = self._taken(given)
        start = perf_counter()
        with self._memory_for(batch):
            out = self._run_pieces(arrays, batch, progress)
        if self._later is not None:
            self._spend(perf_counter() - start)
        return out

    def _taken(self, given: Mapping[str, Any]) -> tuple[list[Floats], int]:
        with within_memory(self._options.max_memory):
            return self._ports.take(given)

    def _run_pieces(self, arrays: list[Floats], batch: int, progress: Progress | None) -> list[Floats]:
        out = list[Floats]()
        for start, part, number in self._pieces(arrays, batch):
            if progress is not None and number < batch:
                progress(start, batch)
            results = self._graph.run(part, number)
            if number == batch:
                return results
            out = out or [np.empty((batch, *result.shape[1:]), result.dtype) for result in results]
            for whole, result in zip(out, results, strict=True):
                whole[start : start + number] = result
        return out

    def _pieces(self, arrays: list[Floats], batch: int) -> Iterator[tuple[int, list[Floats], int]]:
        """Yield the number of the first input, the inputs to run at a time, and how many these are."""
        if self._left is not None and min(batch, self._piece) * self._call > self._left:
            raise self._too_large(batch, counted(batch * self._call, "byte"))
        if batch <= self._piece:
            yield 0, arrays, batch
            return
        for start in range(0, batch, self._piece):
            yield start, [array[start : start + self._piece] for array in arrays], min(self._piece, batch - start)

    def profile(self, x: Any) -> list[LayerTime]:
        """Run `x` once, step by step, and return the time of each step."""
        arrays, batch = self._taken(x if isinstance(x, Mapping) else {_only(self.inputs, "inputs").name: x})
        with self._memory_for(batch):
            pieces = [self._graph.profile(part, number) for _, part, number in self._pieces(arrays, batch)]
        return [LayerTime(rows[0][0], sum(seconds for _, seconds in rows)) for rows in zip(*pieces, strict=True)]

    def _steps(self) -> int:
        return self._running


def _only(ports: tuple[Any, ...], what: str) -> Any:
    if len(ports) != 1:
        names = ", ".join(repr(port.name) for port in ports)
        raise InputError(f"{what}: the network has {len(ports)} ({names}); give a dict of arrays by name")
    return ports[0]
