"""Converts a caller's arrays by name to float32 with the batch first, and results to the arrays that a caller gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Graph, Output, Port, Shape, with_batch
from dcformat.wording import shaped
from dcformat_runtime.as_floats import Floats, pixel_table
from dcformat_runtime.input_rows import InputError, Inputs

#: Whole numbers up to here are exact as float32.
_LARGEST_WHOLE = 1 << 24
#: The integers that inputs of small dtypes may have, also in arrays of other dtypes.
_SMALL = {"int8": (-128, 127), "uint8": (0, 255)}


class PortInfo(NamedTuple):
    """An input or output: its name, its shape with None for the batch, and its dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def describe(self) -> str:
        """Return the name, dtype and shape in words, such as ``'tokens' int64 (batch, 4)``."""
        return f"{self.name!r} {self.dtype} {shaped(self.shape)}"


class Ports:
    """The inputs and outputs of a graph; `shapes` are those of all values.

    An only input that is float32 with the batch first may be anything that `Inputs` takes, such as uint8 pixels.
    """

    def __init__(self, graph: Graph, shapes: Sequence[Shape]) -> None:
        self._inputs = {port.name: port for port in graph.inputs}
        port = graph.inputs[0]
        rows = len(graph.inputs) == 1 and port.dtype == "float32" and port.batch_axis == 0
        self._rows = Inputs(port.shape, pixel_table(graph)) if rows else None
        self._outputs = graph.outputs
        self.batched = any(port.batch_axis is not None for port in graph.inputs)
        self.inputs = tuple(PortInfo(port.name, port.full_shape, port.dtype) for port in graph.inputs)
        self.outputs = tuple(
            PortInfo(output.name, with_batch(shapes[output.value], output.batch_axis), output.dtype)
            for output in graph.outputs
        )

    def take(self, given: Mapping[str, npt.NDArray[Any]]) -> tuple[list[Floats], int]:
        """Return each input as float32 ``(batch, *shape)``, and the batch size, which is 1 without a batch.

        Raises
        ------
        InputError
            A name, shape or dtype is not one that the network takes, or a whole number exceeds 2^24.
        """
        check_names(given, self.inputs)
        if self._rows is not None:
            (x,), (port,) = given.values(), self._inputs.values()
            self._rows.check(x)
            return [self._rows.rows(x).reshape(len(x), *port.shape)], len(x)
        for info in self.inputs:
            _check(given[info.name], info)
        sizes = {
            name: given[name].shape[port.batch_axis]
            for name, port in self._inputs.items()
            if port.batch_axis is not None
        }
        if len(set(sizes.values())) > 1:
            raise InputError(f"batch sizes: expected equal ones, found {sizes}")
        batch = next(iter(sizes.values()), 1)
        return [_float32(given[name], port, batch) for name, port in self._inputs.items()], batch

    def give(self, results: Sequence[Floats]) -> dict[str, npt.NDArray[Any]]:
        """Return the results by name, with their dtypes and the batch in its place."""
        return {
            output.name: _result(result, output) for output, result in zip(self._outputs, results, strict=True)
        }  # fmt: skip


def check_names(given: Mapping[str, object], inputs: Sequence[PortInfo]) -> None:
    """Raise `InputError` unless `given` holds every input and nothing else."""
    if given.keys() != {info.name for info in inputs}:
        expected = ", ".join(info.describe() for info in inputs)
        raise InputError(f"inputs: expected {expected}; found {', '.join(map(repr, given)) or 'none'}")


def _check(x: npt.NDArray[Any], info: PortInfo) -> None:
    name, expected = info.name, shaped(info.shape)
    if not isinstance(x, np.ndarray):
        raise InputError(f"input {name!r}: expected a NumPy array of {expected}, found {type(x).__name__}", name)
    fits = len(x.shape) == len(info.shape) and all(
        wanted in (None, size) for wanted, size in zip(info.shape, x.shape, strict=True)
    )
    if not fits:
        raise InputError(f"shape of input {name!r}: expected {expected}, found {x.shape}", name)
    whole = np.dtype(info.dtype).kind in "iu"
    if x.dtype != info.dtype and not (whole and x.dtype.kind in "iu"):
        raise InputError(f"dtype of input {name!r}: expected {info.dtype}, found {x.dtype}", name)
    if x.dtype != info.dtype and info.dtype in _SMALL and x.size:
        low, high = _SMALL[info.dtype]
        if x.min() < low or x.max() > high:
            raise InputError(f"input {name!r}: expected whole numbers from {low} to {high}, found others", name)
    wide = x.dtype.kind in "iu" and x.dtype.itemsize > 2 and x.size
    if wide and not -_LARGEST_WHOLE <= x.min() <= x.max() <= _LARGEST_WHOLE:
        raise InputError(f"input {name!r}: expected whole numbers from -2^24 to 2^24, found others", name)


def _float32(x: npt.NDArray[Any], port: Port, batch: int) -> Floats:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        floats = x.astype(np.float32, copy=False)
    if port.batch_axis is None:
        return np.broadcast_to(floats, (batch, *floats.shape))
    return np.moveaxis(floats, port.batch_axis, 0)


def _result(result: Floats, output: Output) -> npt.NDArray[Any]:
    whole = np.dtype(output.dtype).kind in "iu"
    if whole:
        result = np.rint(result)
    with np.errstate(invalid="ignore", over="ignore"):
        typed = np.ascontiguousarray(result).astype(output.dtype, copy=False)
    if whole:  # a cast wraps numbers beyond the range around
        limits = np.iinfo(output.dtype)
        typed[result >= limits.max] = limits.max
        typed[result <= limits.min] = limits.min
    return typed[0] if output.batch_axis is None else np.ascontiguousarray(np.moveaxis(typed, 0, output.batch_axis))
