"""The golden self-test: inputs that anyone can make from a seed, and what must come out (spec, "Self-test")."""

from __future__ import annotations

import hashlib
from math import prod

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.graph import Shape

_STEP = 0x9E3779B97F4A7C15


def pixels(seed: int, samples: int, shape: Shape) -> npt.NDArray[np.uint8]:
    """Return the test's inputs, uint8 ``(samples, *shape)``, from SplitMix64 (Steele, Lea and Flood 2014)."""
    count = samples * prod(shape)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(56)).astype(np.uint8).reshape(samples, *shape)


def digest(outputs: npt.NDArray[np.float32]) -> bytes:
    """Return the digest of outputs ``(samples, ...)``: of the index of the greatest in each."""
    winners = outputs.reshape(len(outputs), -1).argmax(axis=1).astype("<u4")
    return hashlib.sha256(winners.tobytes()).digest()[: layout.DIGEST_BYTES]


def is_robust(outputs: npt.NDArray[np.float32]) -> bool:
    """Whether no rounding can change a winner: the two greatest differ by a thousandth of the greatest magnitude."""
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    if flat.shape[1] < 2:
        return True
    top = np.sort(flat, axis=1)
    scale = np.abs(flat).max(axis=1)
    return bool((top[:, -1] - top[:, -2] >= scale / 1000).all() and (scale > 0).all())
