"""The facts of one tensor in a report: its bits by purpose, the counts of its codes, and a histogram of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.usage import Usage
from dcformat.model import STORAGE
from dcformat_cli.report.numbers import Floats, numbers

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.contents import TensorInfo
    from dcformat.model import Tensor

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

#: Maximum number of values in a histogram, and the number of its bins.
_SAMPLE, _BINS = 1 << 18, 64
#: Codes that are counted at a time, because NumPy makes eight bytes of each.
_PART = 1 << 20
#: Decoded bytes from which a dense tensor is read in pieces.
_LARGE = 1 << 26


class Histogram(NamedTuple):
    """A histogram of the finite values among `sampled` stored values of a tensor.

    `counts` has the number of values between neighbours of `edges`; `others` counts infinities and NaN.
    """

    edges: Floats
    counts: Ints
    sampled: int
    others: int


class Examined(NamedTuple):
    """A tensor after decoding.

    Attributes
    ----------
    usage : Usage
        Its bits by purpose.
    codebook : float64 array or None
        The shared values; None without a codebook.
    counts : int64 array or None
        How often each of them occurs.
    histogram : Histogram or None
        The stored values, if there is no codebook and a finite value.
    """

    usage: Usage
    codebook: Floats | None = None
    counts: Ints | None = None
    histogram: Histogram | None = None


def examine(file: DcfFile, name: str, feed: Callable[[Iterable[Array]], None]) -> Examined:
    """Decode a tensor and return its facts.

    Parameters
    ----------
    file : DcfFile
    name : str
    feed : callable
        Takes the tensor's elements in pieces, and may stop early.

    Raises
    ------
    FormatError
        The tensor is damaged, or takes more memory or work than the file was opened with.
    """
    info = file.info(name)
    if info.form == "dense" and not info.codebook_size and info.decoded_bytes > _LARGE:
        feed(file.pieces(name))
        return Examined(file.usage(name), histogram=_histogram(info, file.pieces(name)))
    tensor = file.tensor(name)
    usage = file.usage(name, tensor)
    feed(tensor.pieces())
    if tensor.codebook is None:
        return Examined(usage, histogram=_histogram(info, [tensor.data]))
    codebook = numbers(tensor.codebook, info.dtype, info.scale)
    return Examined(usage, codebook, _code_counts(tensor))


def _code_counts(tensor: Tensor) -> Ints:
    assert tensor.codebook is not None
    counts = np.zeros(len(tensor.codebook), np.int64)
    for start in range(0, len(tensor.data), _PART):
        counts += np.bincount(tensor.data[start : start + _PART], minlength=len(counts))
    return counts


def _histogram(info: TensorInfo, pieces: Iterable[Array]) -> Histogram | None:
    sample = numbers(_every(pieces, max(1, -(-info.stored // _SAMPLE)), STORAGE[info.dtype]), info.dtype, info.scale)
    finite = sample[np.isfinite(sample)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    least = max(1e-12 * max(abs(low), abs(high)), _BINS * float(np.finfo(np.float64).tiny))
    if not np.isfinite(high - low) or high - low <= least:
        edges = np.array([low, np.nextafter(high, np.inf)])
        return Histogram(edges, np.array([len(finite)]), len(sample), len(sample) - len(finite))
    counts, edges = np.histogram(finite, _BINS)
    return Histogram(edges, counts.astype(np.int64), len(sample), len(sample) - len(finite))


def _every(pieces: Iterable[Array], step: int, dtype: np.dtype[Any]) -> Array:
    """Return every `step`-th element."""

    def taken() -> Iterator[Array]:
        skip = 0
        for piece in pieces:
            yield piece[skip::step].copy()
            skip = (skip - len(piece)) % step

    return np.concatenate([np.empty(0, dtype), *taken()])


def entropy(counts: Ints) -> float:
    """Return the bits of a symbol drawn with these frequencies."""
    total = counts.sum()
    shares = counts[counts > 0] / total if total else np.ones(1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def position_entropy(size: int, entries: int) -> float:
    """Return the bits of an entry's position if entries were scattered at random; 0 if every element is one."""
    if not 0 < entries < size:
        return 0.0
    share = entries / size
    bits = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    return float(bits / share)
