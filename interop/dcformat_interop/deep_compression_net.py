"""The file format (``.net``) in which the authors of Deep Compression published their SqueezeNet.

The format has no magic number, header, checksum or shapes; the shapes come from the architecture. The file, which is
little-endian, holds the number of entries of each convolution (uint32); then for each convolution a codebook of 256
float32 values, the float32 biases, a uint8 code for each entry, and a 4-bit gap for each entry, low nibble first. Entry
i is at the cumulative sum of (gap + 1), minus 1. All elements without an entry are ``codebook[0]``.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.architectures import Architecture
from dcformat.wording import counted
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Dense

_CODEBOOK = 256


def read_deep_compression_net(path: Path, architecture: Architecture) -> dict[str, Dense]:
    """Read a ``.net`` file of convolutions; its tensors get the architecture's names.

    Raises
    ------
    UnfitError
        The counts, indices, values or length do not fit the architecture.
    OSError
        The file cannot be read.
    """
    weights = [name for name in architecture.shapes if name.endswith(".weight")]
    # A layer takes at most its codebook, its biases, and a code and a gap for each weight.
    max_bytes = sum(
        4 + 4 * _CODEBOOK + 4 * architecture.shapes[name][0] + 2 * prod(architecture.shapes[name]) for name in weights
    )
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    start = 4 * len(weights)
    if len(raw) < start:
        raise UnfitError(path, f"{counted(start, 'byte')} of counts", counted(len(raw), "byte"))
    counts = np.frombuffer(raw, "<u4", len(weights)).tolist()
    for name, count in zip(weights, counts, strict=True):
        size = prod(architecture.shapes[name])
        if count > size:
            raise UnfitError(
                path, f"at most {counted(size, 'entry', 'entries')}", count, f"{architecture.name}'s {name}"
            )
    lengths = [
        4 * _CODEBOOK + 4 * architecture.shapes[name][0] + count + (count + 1) // 2
        for name, count in zip(weights, counts, strict=True)
    ]
    if len(raw) != start + sum(lengths):
        more = " or more" if len(raw) > max_bytes else ""
        raise UnfitError(
            path, f"{counted(start + sum(lengths), 'byte')} for its counts", f"{counted(len(raw), 'byte')}{more}"
        )
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
        raise UnfitError(path, "finite values", "NaN or infinity", name)
    codes = np.frombuffer(part, np.uint8, count, 4 * floats)
    pairs = np.frombuffer(part, np.uint8, offset=4 * floats + count)
    gaps = np.stack((pairs & 15, pairs >> 4), axis=1).reshape(-1)
    if gaps[count:].any():
        raise UnfitError(path, "a zero after the last gap", int(gaps[-1]), name)
    positions = np.cumsum(gaps[:count].astype(np.int64) + 1) - 1
    if count and positions[-1] >= prod(shape):
        raise UnfitError(path, f"positions below {prod(shape)}", int(positions[-1]), name)
    weight = np.full(prod(shape), values[0])
    weight[positions] = values[codes]
    return weight.reshape(shape), values[_CODEBOOK:].copy()
