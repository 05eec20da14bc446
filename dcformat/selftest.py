"""The golden self-test: inputs that anyone can make from a seed, and the expected outputs (spec, "Self-test")."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.graph import Graph, Shape

_STEP = 0x9E3779B97F4A7C15
#: Number of pixels made at a time: the random numbers behind them take many times as many bytes.
_PIECE = 1 << 16


def pixels(seed: int, samples: int, shape: Shape, first: int = 0) -> npt.NDArray[np.uint8]:
    """Return the test's pixels, uint8 ``(samples, *shape)``, from SplitMix64 (Steele, Lea and Flood 2014).

    Parameters
    ----------
    seed, samples : int
    shape : tuple of int
        The shape of one sample.
    first : int
        The number of the first sample to make.
    """
    size = prod(shape)
    out = np.empty(samples * size, np.uint8)
    for start in range(0, out.size, _PIECE):
        part = out[start : start + _PIECE]
        before = first * size + start
        with np.errstate(over="ignore"):
            z = np.uint64(seed) + np.arange(before + 1, before + part.size + 1, dtype=np.uint64) * np.uint64(_STEP)
            z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        part[:] = (z ^ z >> np.uint64(31)) >> np.uint64(56)
    return out.reshape(samples, *shape)


def inputs(graph: Graph, seed: int, samples: int, first: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Return the test's inputs by name, each ``(samples, *shape)``, with any batch axis.

    They have the dtypes of the graph's inputs, or are uint8 pixels for a graph with preprocessing. The parameters are
    those of `pixels`.
    """
    sizes = [prod(port.shape) for port in graph.inputs]
    drawn = pixels(seed, samples, (sum(sizes),), first)
    parts = np.split(drawn, np.cumsum(sizes)[:-1], axis=1) if len(sizes) > 1 else [drawn]
    return {
        port.name: (part if graph.preprocessing else _as_input(part, port.dtype)).reshape(samples, *port.shape)
        for port, part in zip(graph.inputs, parts, strict=True)
    }


def _as_input(drawn: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    """Return what pixels become for an input of a dtype."""
    if dtype.startswith("float"):
        return (drawn.astype(np.float32) / np.float32(255)).astype(dtype, copy=False)
    if dtype == "uint8":
        return drawn
    if dtype == "int8":
        return (drawn ^ np.uint8(128)).view(np.int8)
    return (drawn >> np.uint8(7)).astype(dtype)


def winners(*outputs: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Return the number of the greatest element of each output of each sample, the first of equal ones.

    Parameters
    ----------
    outputs : ndarray
        Each ``(samples, ...)``, in the graph's order.

    Returns
    -------
    ndarray
        ``(samples, outputs)``.
    """
    best = [np.asarray(output.reshape(len(output), -1).argmax(axis=1), "<u4") for output in outputs]
    return np.stack(best, axis=1)


def digest(winners: Iterable[npt.NDArray[np.uint32]]) -> bytes:
    """Return the digest of the winners of all samples, given in one or more arrays."""
    state = hashlib.sha256()
    for part in winners:
        state.update(part.tobytes())
    return state.digest()[: layout.DIGEST_BYTES]


def is_robust(outputs: npt.NDArray[Any]) -> bool:
    """Return whether rounding cannot change a winner: the top two differ by a thousandth of the greatest magnitude."""
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    if flat.shape[1] < 2:
        return True
    top = np.sort(flat, axis=1)
    scale = np.abs(flat).max(axis=1)
    return bool((top[:, -1] - top[:, -2] >= scale / 1000).all() and (scale > 0).all())
