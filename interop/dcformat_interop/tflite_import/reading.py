"""Imports TensorFlow Lite models: from a file to a `Model`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from dcformat.errors import FormatError
from dcformat.graph import Port, Shape
from dcformat.graph.graph import PORT_DTYPES
from dcformat.layout import DEFAULT_MAX_MEMORY, MAX_ELEMENTS, MAX_NAME_BYTES
from dcformat.model import Model
from dcformat_interop.graph_builder import GraphBuilder
from dcformat_interop.lowering.comparison import NetworkRun
from dcformat_interop.lowering.completion import ImportedOutput, complete
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Budget, read_whole
from dcformat_interop.tflite_import import operators as _operators  # noqa: F401 - registers all lowerings
from dcformat_interop.tflite_import.checking import LiteRTComparison, compare_with_litert
from dcformat_interop.tflite_import.evaluator import TfliteEvaluator
from dcformat_interop.tflite_import.float_weights import with_float_weights
from dcformat_interop.tflite_import.items import TfliteItem, plain
from dcformat_interop.tflite_import.litert import LiteRT, litert_version, run_litert
from dcformat_interop.tflite_import.loading import TfliteFile, TfliteTensor, load_tflite


@dataclass(frozen=True, slots=True, eq=False)
class TfliteImport:
    """A network read from a TensorFlow Lite model.

    Attributes
    ----------
    model : Model
    """

    model: Model
    _file: TfliteFile
    _data: bytes
    _limits: Mapping[str, int]

    def check(self, run: NetworkRun, litert: LiteRT = run_litert) -> LiteRTComparison | None:
        """Compare the network, which `run` runs, with LiteRT; raise `UnfitError` if they differ.

        `run` takes inputs by name and returns outputs by name, as ``dcformat_runtime.Session.from_model(model)`` does.
        `litert` runs the file; by default it does so in a process of its own, which the file may crash.
        The result is None if LiteRT is not installed.
        """
        if litert_version() is None:
            return None
        return compare_with_litert(self.model, self._file.path, self.runnable(), self._limits, run, litert)

    def runnable(self) -> bytes:
        """Return the bytes of the file, with float32 weights where LiteRT would round the inputs of layers."""
        return with_float_weights(self._file, self._data, Budget(self._file.path, None))


def read_tflite(
    source: str | os.PathLike[str] | bytes,
    *,
    dims: Mapping[str, int] | None = None,
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> Model:
    """Read a network from a TensorFlow Lite model. The parameters and errors are those of `import_tflite`."""
    return import_tflite(source, dims=dims, exact=exact, max_memory=max_memory).model


@np.errstate(all="ignore")  # numbers that are not finite are refused by name
def import_tflite(
    source: str | os.PathLike[str] | bytes,
    *,
    dims: Mapping[str, int] | None = None,
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> TfliteImport:
    """Read a network from a TensorFlow Lite model, with the means to check it.

    Inputs and outputs have the names, shapes and dtypes of the file. The batch may have any size if the file leaves it
    open or has 1: the dimension is taken out of the graph. Layers of integers keep their integers; other quantised
    operators compute with the numbers that the integers stand for, and round wherever the file does
    (docs/integers.md).

    Parameters
    ----------
    source : path or bytes
        The model.
    dims : mapping of str to int, optional
        Sizes of dimensions other than the batch that the file leaves open, as ``INPUT.AXIS``.
    exact : bool
        Whether to keep the sign of negative zeros in tensors.
    max_memory : int or None
        Maximum number of bytes of the tensors; None for no limit.

    Raises
    ------
    UnsupportedOperatorsError
        Some operators cannot be imported. The message names all of them.
    UnfitError
        The file is damaged, or the model is not valid; dimensions other than the batch are open.
    OSError
        The file cannot be read.
    """
    path = "TensorFlow Lite model" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_whole(path, Path(source), max_memory)
    file = load_tflite(path, data)
    builder = GraphBuilder()
    evaluator = TfliteEvaluator(file, builder, Budget(path, max_memory))
    ports = _ports(file, dims or {})
    for number, value in zip(file.inputs, [builder.input(port) for port in ports], strict=True):
        evaluator.input(number, value)
    evaluator.run()
    evaluator.unsupported.check()
    numbers = _distinct(file, "outputs", file.outputs)
    try:
        outputs = [evaluator.output(number) for number in numbers]
        return TfliteImport(_model(file, builder, ports, outputs, exact), file, data, builder.index_limits())
    except UnfitError:
        raise
    except (FormatError, ValueError) as error:
        raise UnfitError(path, "a network that a .dcf file can hold", str(error)) from error


def _distinct(file: TfliteFile, what: str, numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers or len(set(numbers)) < len(numbers):
        raise UnfitError(file.path, f"{what}, each once", numbers or "none", what)
    return numbers


def _ports(file: TfliteFile, dims: Mapping[str, int]) -> list[Port]:
    """Return the inputs, with a batch of 1 where the file leaves it open."""
    numbers = _distinct(file, "inputs", file.inputs)
    names = _names(file, numbers)
    ports, left = [], dict(dims)
    for number, name in zip(numbers, names, strict=True):
        info, shape = file.tensors[number], []
        for axis, (size, signed) in enumerate(zip(info.shape, info.signature, strict=True)):
            fixed = left.pop(f"{name}.{axis}", None) if signed == -1 else None
            if signed == -1 and fixed is None and axis:
                expected = f"fixed sizes except for the batch (or --dim {name}.{axis}=SIZE)"
                raise UnfitError(file.path, expected, f"shape {info.signature}", f"input {name!r}")
            shape.append(fixed or (1 if signed == -1 else size))
        _check_dtype(file, "input", info)
        if not 1 <= prod(shape) <= MAX_ELEMENTS:
            raise UnfitError(file.path, f"1 to {MAX_ELEMENTS:,} elements", f"shape {shape}", f"input {name!r}")
        ports.append(Port(tuple(shape), name, info.dtype, None))
    if left:
        expected = "a dimension that the model leaves open"
        raise UnfitError(file.path, expected, ", ".join(map(repr, left)), "--dim")
    return ports


def _check_dtype(file: TfliteFile, what: str, info: TfliteTensor) -> None:
    if info.dtype not in PORT_DTYPES:
        raise UnfitError(file.path, f"one of {', '.join(PORT_DTYPES)}", info.dtype, f"{what} {info.name!r}")


def _names(file: TfliteFile, numbers: Sequence[int]) -> list[str]:
    """Return the names of tensors; one that others have too, or that is empty or too long, gets its number."""
    names = [file.tensors[number].name for number in numbers]
    return [
        name if 0 < len(name.encode()) <= MAX_NAME_BYTES and names.count(name) == 1 else _numbered(name, number)
        for number, name in zip(numbers, names, strict=True)
    ]


def _numbered(name: str, number: int) -> str:
    short = name.encode()[: MAX_NAME_BYTES - 12].decode(errors="ignore")
    return f"{short or 'tensor'}.{number}"


def _model(
    file: TfliteFile, builder: GraphBuilder, ports: Sequence[Port], outputs: Sequence[TfliteItem], exact: bool
) -> Model:
    values = [plain(builder, item) for item in outputs]
    starts, ends = _batch_axes([port.shape for port in ports], [value.shape for value in values])
    results = []
    for number, name, value, end in zip(file.outputs, _names(file, file.outputs), values, ends, strict=True):
        _check_dtype(file, "output", file.tensors[number])
        results.append(ImportedOutput(name, file.tensors[number].dtype, value, end))
    return complete(builder, starts, results, exact)


def _batch_axes(starts: Sequence[Shape], ends: Sequence[Shape]) -> tuple[list[int | None], list[int | None]]:
    """Return the dimensions of the inputs and outputs that are the batch: the first, if it is 1 for all of them."""
    if all(shape[:1] == (1,) for shape in (*starts, *ends)):
        return [0] * len(starts), [0] * len(ends)
    return [None] * len(starts), [None] * len(ends)
