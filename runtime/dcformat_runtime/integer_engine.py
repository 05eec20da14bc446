"""The backend of networks of integers: runs a whole network with the kernel of `kernels.integer_kernel`."""

from __future__ import annotations

from math import prod
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Graph, Shape
from dcformat.model import Model
from dcformat_runtime.compile import integer_network, integer_program
from dcformat_runtime.compile.integer_program import IntegerProgram
from dcformat_runtime.kernels.integer_kernel import run_integers
from dcformat_runtime.weight_matrices import Floats

Bytes = npt.NDArray[Any]

_INT8 = np.dtype(np.int8)


class IntegerEngine:
    """Runs a network of integers. Several threads may call it at the same time: each call has its own arena.

    Attributes
    ----------
    graph : Graph
    shapes : list of tuple of int
        The shape of every value.
    shape : tuple of int
        The shape of the input.
    dtype : dtype
        That of the input.
    given : int
        The bytes of the result of one input.
    """

    def __init__(self, model: Model, program: IntegerProgram) -> None:
        assert model.graph is not None
        self.graph: Graph = model.graph
        self.shapes: list[Shape] = self.graph.shapes({name: t.shape for name, t in model.tensors.items()})
        self.shape, self.dtype, self.given = self.shapes[0], np.dtype(self.graph.inputs[0].dtype), program.given
        output = self.graph.outputs[0]
        self._program, self._made, self._result = program, np.dtype(output.dtype), self.shapes[output.value]
        self._signed = self.dtype is self._made is _INT8
        self._run, self._mem, self._records = run_integers.resolve(), program.mem, program.records
        self._arenas = [program.arena]

    def run_bytes(self, x: Bytes) -> Bytes:
        """Return the output for C-contiguous inputs ``(batch, *shape)`` of the input's dtype."""
        batch = len(x)
        out = np.empty((batch, *self._result), self._made)
        if batch:
            try:
                arena = self._arenas.pop()
            except IndexError:
                arena = self._program.arena.copy()
            if self._signed:  # one view fewer for each: at batch size 1 every line counts
                self._run(x.reshape(-1), out.reshape(-1), arena, self._mem, self._records, batch)
            else:
                self._run(_int8s(x), _int8s(out), arena, self._mem, self._records, batch)
            self._arenas.append(arena)
        return out

    def run(self, inputs: list[Floats], batch: int) -> list[Floats]:
        """Return the output for whole numbers that the input's dtype holds, float32 ``(batch, *shape)``."""
        return [self.run_bytes(np.ascontiguousarray(inputs[0]).astype(self.dtype)).astype(np.float32)]

    def unordered(self) -> None:
        """Return None: integers are the same in any order."""

    def profile(self, inputs: list[Floats], batch: int) -> list[tuple[str, float]]:
        """Return the name and the seconds of each operator."""
        x = _int8s(np.ascontiguousarray(inputs[0]).astype(self.dtype))
        out, arena = np.empty(self.given, _INT8), self._program.arena.copy()
        seconds: dict[str, float] = {}
        for number in range(batch):
            image = x[number * prod(self.shapes[0]) :][: prod(self.shapes[0])]
            for row, name in enumerate(self._program.names):
                start = perf_counter()
                self._run(image, out, arena, self._mem, self._records[row : row + 1], 1)
                seconds[name] = seconds.get(name, 0.0) + perf_counter() - start
        return list(seconds.items())


def _int8s(array: Bytes) -> Bytes:
    """Return the bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(_INT8)


def make(model: Model, max_bytes: int | None) -> IntegerEngine | None:
    """Return an engine for a network of integers whose arrays take at most `max_bytes`, or None for any other model."""
    network = integer_network.read(model)
    program = None if network is None else integer_program.build(network, max_bytes)
    return None if program is None else IntegerEngine(model, program)
