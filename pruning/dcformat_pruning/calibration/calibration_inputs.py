"""Random inputs for networks whose users give none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dcformat.graph import Gather, Graph, Port, Shape

Array = npt.NDArray[np.generic]


def random_inputs(
    graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Tensor], count: int
) -> dict[str, npt.NDArray[np.generic]]:
    """Return `count` random inputs by name, of the shapes and dtypes that a graph declares.

    Floats are normal, as if they were standardised. Whole numbers that choose rows of a table go up to its length, and
    others are 0 or 1.
    """
    rng = np.random.default_rng(0)
    lengths = _lengths(graph, shapes, tensors)
    return {
        port.name: _random(rng, port, lengths.get(number, 2), count if port.batch_axis is not None else None)
        for number, port in enumerate(graph.inputs)
    }


def _random(rng: np.random.Generator, port: Port, length: int, count: int | None) -> Array:
    shape = tuple(count or 1 if size is None else size for size in port.full_shape)
    if np.dtype(port.dtype).kind == "f":
        return rng.standard_normal(shape).astype(port.dtype)
    return rng.integers(0, min(length, 127 if port.dtype == "int8" else length), shape).astype(port.dtype)


def _lengths(graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Tensor]) -> dict[int, int]:
    """Return the lengths of the tables that inputs choose from, by the inputs' numbers."""
    found: dict[int, int] = {}
    for node in graph.nodes:
        if isinstance(node, Gather) and isinstance(node.inputs[1], int):
            data = node.inputs[0]
            shape = tuple(tensors[data].shape) if isinstance(data, str) else shapes[int(data)]
            length = shape[node.axis]
            found[node.inputs[1]] = min(found.get(node.inputs[1], length), length)
    return found
