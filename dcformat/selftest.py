"""The golden self-test: inputs that anyone can make from a seed, and the expected outputs (spec, "Self-test")."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from math import prod

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.graph import Shape

_STEP = 0x9E3779B97F4A7C15
#: Number of pixels made at a time: the random numbers behind them take many times as many bytes.
_PIECE = 1 << 16


def pixels(seed: int, samples: int, shape: Shape, first: int = 0) -> npt.NDArray[np.uint8]:
    """Return the test's inputs, uint8 ``(samples, *shape)``, from SplitMix64 (Steele, Lea and Flood 2014).

    Parameters
    ----------
    seed, samples : int
    shape : tuple of int
        The shape of one input.
    first : int
        The number of the first input to make.
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


def winners(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return the index of each sample's greatest output ``(samples, ...)``, the first of equal ones: ``(samples,)``."""
    return np.asarray(outputs.reshape(len(outputs), -1).argmax(axis=1), "<u4")


def digest(winners: Iterable[npt.NDArray[np.uint32]]) -> bytes:
    """Return the digest of the winners of all samples, given in one or more arrays."""
    state = hashlib.sha256()
    for part in winners:
        state.update(part.tobytes())
    return state.digest()[: layout.DIGEST_BYTES]


def is_robust(outputs: npt.NDArray[np.float32]) -> bool:
    """Return whether rounding cannot change a winner: the top two differ by a thousandth of the greatest magnitude."""
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    if flat.shape[1] < 2:
        return True
    top = np.sort(flat, axis=1)
    scale = np.abs(flat).max(axis=1)
    return bool((top[:, -1] - top[:, -2] >= scale / 1000).all() and (scale > 0).all())
