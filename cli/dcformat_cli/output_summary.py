"""The summary of a network's outputs by `dcformat run`: figures of each, and the classes that its numbers stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcformat.wording import counted, shaped
from dcformat_cli.accuracy import classes
from dcformat_cli.terminal import TextTable, say

if TYPE_CHECKING:
    from dcformat_runtime.ports import PortInfo

Array = npt.NDArray[Any]

#: The number of samples whose best classes are shown, and the number of those classes.
_SAMPLES, _BEST = 5, 3


def samples(info: PortInfo, output: Array) -> Array:
    """Return an output as ``(samples, *shape)``; a network that takes no batch has one sample."""
    return np.moveaxis(output, info.shape.index(None), 0) if None in info.shape else output[None]


def has_classes(info: PortInfo) -> bool:
    """Return whether a sample's output is a row of two or more floating-point numbers, one for each class."""
    row = [size for size in info.shape if size is not None]
    return len(row) == 1 and row[0] > 1 and info.dtype.startswith("float")


def class_names(numbers: Sequence[int], labels: tuple[str, ...]) -> list[str]:
    """Return the labels of classes. A file may name fewer classes than it has outputs; the others go by number."""
    return [labels[number] if number < len(labels) else str(number) for number in numbers]


def found_classes(infos: Sequence[PortInfo], outputs: Mapping[str, Array]) -> list[int] | None:
    """Return the class of each sample, or None unless the only output is one of classes."""
    if len(infos) != 1 or not has_classes(infos[0]):
        return None
    return [int(number) for number in classes(samples(infos[0], outputs[infos[0].name]))]


def as_json(info: PortInfo, output: Array) -> dict[str, Any]:
    """Return an output's figures. One that is not a finite number is a text; those of an empty output are None."""
    figures = zip(("min", "max", "mean"), _figures(output), strict=True)
    return {
        "name": info.name,
        "shape": list(output.shape),
        "dtype": output.dtype.name,
        **{key: value if value is None or isfinite(value) else str(value) for key, value in figures},
    }


def show(title: str, infos: Sequence[PortInfo], outputs: Mapping[str, Array], labels: tuple[str, ...]) -> None:
    """Print a table of the outputs' figures, and the best classes of the first samples."""
    rows = []
    for info in infos:
        output = outputs[info.name]
        figures = ["-" if value is None else f"{value:.6g}" for value in _figures(output)]
        rows.append((info.name, shaped(output.shape), output.dtype.name, *figures))
    TextTable(title, ("output", "shape", "dtype", "min", "max", "mean"), rows).show()
    for number, info in enumerate(infos):
        if has_classes(info):
            # A file's labels are those of its first output.
            _show_best(info.name, samples(info, outputs[info.name]), labels if number == 0 else ())


def _figures(output: Array) -> list[int | float | None]:
    if not output.size:
        return [None, None, None]
    numbers = output.astype(np.uint8) if output.dtype == np.bool_ else output
    with np.errstate(invalid="ignore"):  # the mean of infinities of both signs
        return [numbers.min().item(), numbers.max().item(), numbers.mean(dtype=np.float64).item()]


def _show_best(name: str, rows: Array, labels: tuple[str, ...]) -> None:
    for sample, row in enumerate(rows[:_SAMPLES]):
        best = np.argsort(-row, kind="stable")[:_BEST].tolist()
        texts = [f"{text} ({row[i]:.6g})" for text, i in zip(class_names(best, labels), best, strict=True)]
        say(f"{name}[{sample}]: largest {', '.join(texts)}")
    if len(rows) > _SAMPLES:
        say(f"{name}: {counted(len(rows) - _SAMPLES, 'more sample')}")
