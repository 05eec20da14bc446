"""Sparse tensors: levels of dimensions, each of which is dense or lists the positions that have elements."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat_interop.refusals import UnfitError
from dcformat_interop.tflite_import.flatbuffer import Table
from dcformat_interop.tflite_import.loading import TfliteTensor

Array = npt.NDArray[Any]

_DENSE, _SPARSE = 0, 1

#: The dtypes of lists of positions, by the number of their class.
_LISTS = {1: "i4", 2: "u2", 3: "u1"}


def dense(path: str, info: TfliteTensor, table: Table, load: Callable[[int], Array]) -> Array:
    """Return a sparse tensor with its zeros.

    Parameters
    ----------
    path : str
        The file, for errors.
    info : TfliteTensor
    table : Table
        How the tensor is stored.
    load : callable
        Returns the stored elements, of which there must be a given number.

    Raises
    ------
    UnfitError
        The levels do not fit the tensor's shape.
    """
    order, block_map = table.integers(0), table.integers(1)
    levels = list(table.tables(2, f"{info.what}: level"))
    rank, shape = len(info.shape), info.shape
    fits = sorted(order) == list(range(rank + len(block_map))) and len(levels) == len(order)
    if not fits or not all(0 <= axis < rank for axis in block_map) or sorted(order[:rank]) != list(range(rank)):
        expected = f"levels for {rank} dimensions, then blocks"
        raise UnfitError(path, expected, f"order {order} and blocks of dimensions {block_map}", info.what)
    places = np.zeros(1, np.int64)
    found: list[Array] = []
    for level in levels:
        parents, positions, places = _level(path, info, level, places)
        found = [coordinates[parents] for coordinates in found]
        found.append(positions)
    coordinates: list[Array] = [np.zeros(0, np.int64)] * rank
    for axis, positions in zip(order[:rank], found[:rank], strict=True):
        coordinates[axis] = positions
    for block, level, positions in zip(order[rank:], levels[rank:], found[rank:], strict=True):
        axis = block_map[block - rank]
        coordinates[axis] = coordinates[axis] * level.number(1, "i") + positions
    values = load(len(places))
    if any((c < 0).any() or (c >= size).any() for c, size in zip(coordinates, shape, strict=True)):
        raise UnfitError(path, f"positions inside {shape}", "others", info.what)
    out = np.zeros(shape, values.dtype)
    out[tuple(coordinates)] = values
    return out


def _level(path: str, info: TfliteTensor, level: Table, places: Array) -> tuple[Array, Array, Array]:
    """Return for each element of a level its parent, its position in the parent, and its own place."""
    kind, size = level.number(0, "b"), level.number(1, "i")
    max_elements = prod(info.shape)
    if kind == _DENSE:
        if not 1 <= size <= max_elements // max(len(places), 1):
            raise UnfitError(
                path, f"levels of {max_elements:,} elements at most", f"{len(places):,} times {size:,}", info.what
            )
        parents = np.repeat(np.arange(len(places)), size)
        positions = np.tile(np.arange(size), len(places))
        return parents, positions, places[parents] * size + positions
    if kind != _SPARSE:
        raise UnfitError(path, "a dense or a sparse level", f"kind {kind}", info.what)
    starts, indices = (_list(path, info, level, field) for field in (2, 4))
    if places.max(initial=-1) + 2 > len(starts) or (starts[1:] < starts[:-1]).any():
        raise UnfitError(path, "ascending starts of all segments", "others", info.what)
    first, last = starts[places], starts[places + 1]
    if starts[:1].min(initial=0) < 0 or last.max(initial=0) > len(indices):
        raise UnfitError(path, f"segments of {len(indices):,} positions", "others", info.what)
    counts = last - first
    if counts.sum() > max_elements:
        raise UnfitError(path, f"levels of {max_elements:,} elements at most", f"{counts.sum():,}", info.what)
    parents = np.repeat(np.arange(len(places)), counts)
    own = np.arange(len(parents)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    return parents, indices[own], own


def _list(path: str, info: TfliteTensor, level: Table, field: int) -> Array:
    dtype, table = _LISTS.get(level.number(field, "B")), level.table(field + 1, info.what)
    values = None if table is None or dtype is None else table.array(0, dtype)
    if values is None:
        raise UnfitError(path, "starts and positions of a sparse level", "none", info.what)
    level.buffer.count(values.nbytes, info.what)
    return values.astype(np.int64)
