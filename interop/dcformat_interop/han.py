"""The file format that Deep Compression's authors published their SqueezeNet in (``.net``).

It has no magic number, no header and no checksum, and the network's shapes are not in it: they come from the
architecture. Layout, little-endian: the number of stored entries of each convolution (uint32), then for each
convolution 256 float32 codebook entries, the float32 biases, one uint8 code an entry, and one 4-bit gap an
entry, low nibble first. Entry i is at the cumulative sum of (gap + 1), minus 1; all positions that are not
named hold ``codebook[0]``.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.architectures import Architecture
from dcformat_interop.errors import InputError
from dcformat_interop.tensors import Dense

_CODEBOOK = 256


def read_han(path: Path, architecture: Architecture) -> dict[str, Dense]:
    """Read a ``.net`` file whose layers are all convolutions; names are the architecture's.

    Raises
    ------
    InputError
        Counts, positions, values or the length do not fit the architecture.
    OSError
        The file cannot be read.
    """
    weights = [name for name in architecture.shapes if name.endswith(".weight")]
    # No layer takes more than its codebook, its biases, and a code and a gap for each weight.
    most = sum(
        4 + 4 * _CODEBOOK + 4 * architecture.shapes[name][0] + 2 * prod(architecture.shapes[name]) for name in weights
    )
    with path.open("rb") as file:
        raw = file.read(most + 1)
    start = 4 * len(weights)
    if len(raw) < start:
        raise InputError(path, f"{start} bytes of counts", f"{len(raw)} bytes")
    counts = np.frombuffer(raw, "<u4", len(weights)).tolist()
    for name, count in zip(weights, counts, strict=True):
        size = prod(architecture.shapes[name])
        if count > size:
            raise InputError(path, f"at most {size} entries", count, f"{architecture.name}'s {name}")
    lengths = [
        4 * _CODEBOOK + 4 * architecture.shapes[name][0] + count + (count + 1) // 2
        for name, count in zip(weights, counts, strict=True)
    ]
    if len(raw) != start + sum(lengths):
        more = " or more" if len(raw) > most else ""
        raise InputError(path, f"{start + sum(lengths)} bytes for its counts", f"{len(raw)} bytes{more}")
    out: dict[str, Dense] = {}
    for name, count, length in zip(weights, counts, lengths, strict=True):
        part = memoryview(raw)[start : start + length]
        weight, bias = _layer(path, name, architecture.shapes[name], count, part)
        out[name], out[name.replace(".weight", ".bias")] = Dense("float32", weight), Dense("float32", bias)
        start += length
    return out


def _layer(
    path: Path, name: str, shape: tuple[int, ...], count: int, part: memoryview
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    floats = _CODEBOOK + shape[0]
    values = np.frombuffer(part, "<f4", floats)
    if not np.isfinite(values).all():
        raise InputError(path, "finite values", "NaN or infinity", name)
    codes = np.frombuffer(part, np.uint8, count, 4 * floats)
    pairs = np.frombuffer(part, np.uint8, offset=4 * floats + count)
    gaps = np.stack((pairs & 15, pairs >> 4), axis=1).reshape(-1)
    if gaps[count:].any():
        raise InputError(path, "a zero after the last gap", int(gaps[-1]), name)
    positions = np.cumsum(gaps[:count].astype(np.int64) + 1) - 1
    if count and positions[-1] >= prod(shape):
        raise InputError(path, f"positions below {prod(shape)}", int(positions[-1]), name)
    weight = np.full(prod(shape), values[0])
    weight[positions] = values[codes]
    return weight.reshape(shape), values[_CODEBOOK:].copy()
