"""The elements of a tensor in a safetensors file, read in parts by any process that sees the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from dcformat.denormals import denormals
from dcformat.dense import SIGNED_ZEROS, negative_zeros, positive_zeros
from dcformat.floats import as_numbers
from dcformat.model import STORAGE
from dcformat.piecewise import PIECE
from dcformat_interop.refusals import UnfitError
from dcformat_interop.safetensors import require_bools
from dcformat_interop.tensors import Array, count_not_finite

#: Negative zeros are few if they are at most one element in this many.
_FEW = 64


@dataclass(slots=True)
class Findings:
    """Unusual properties of a tensor's values.

    Attributes
    ----------
    negative_zeros : int
        Negative zeros that became positive.
    denormals, not_finite : int
        Values that are denormal, and NaN or infinite.
    is_mask : bool
        Whether the tensor is called a mask and holds only zeros and ones.
    """

    negative_zeros: int = 0
    denormals: int = 0
    not_finite: int = 0
    is_mask: bool = False


@dataclass(frozen=True, slots=True)
class FileElements:
    """A tensor's elements in a file (`dcformat.piecewise.Elements`).

    Attributes
    ----------
    path : str
    stamp : tuple of int
        The file's size and time of change.
    offset : int
        The place of the first element in the file.
    name, dtype, shape, scale
        As in `dcformat.Tensor`.
    exact : bool or None
        Whether negative zeros stay negative; None if `decided` must count them first.
    mask : FileElements or None
        Where it is zero, elements become zero.
    """

    path: str
    stamp: tuple[int, int]
    offset: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float = 1.0
    exact: bool | None = False
    mask: FileElements | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without the mask."""
        return self.size * STORAGE[self.dtype].itemsize

    def read(self, start: int, stop: int) -> Array:
        """Return elements of the flattened tensor in the form in which they are stored.

        Raises
        ------
        UnfitError
            The file has changed since its header was read, or holds values that are not valid.
        OSError
            The file cannot be read.
        """
        return self._stored(self._masked(start, stop))

    def decided(self) -> FileElements:
        """Return the elements with `exact` decided: a few negative zeros stay unchanged.

        Many of them mean a pruned tensor, whose zeros take little space only if they are all alike.
        """
        if self.exact is not None:
            return self
        count = 0
        if self.dtype in SIGNED_ZEROS:
            for start in range(0, self.size, PIECE):
                values = self._masked(start, min(start + PIECE, self.size))
                count += negative_zeros(values, self.dtype)
        return replace(self, exact=count * _FEW <= self.size)

    def pieces(self, findings: Findings) -> Iterator[Array]:
        """Yield all elements as `dcformat.piecewise.pieces_of` does, and note anything unusual about them."""
        findings.is_mask = self.name.endswith("mask")
        for start in range(0, self.size, PIECE):
            values = self._masked(start, min(start + PIECE, self.size))
            stored = self._stored(values)
            if stored is not values:
                findings.negative_zeros += int(np.count_nonzero(stored.view(np.uint8) != values.view(np.uint8)))
            findings.denormals += denormals(values, self.dtype)
            if values.dtype.kind in "fc" or self.dtype == "bfloat16":
                findings.not_finite += count_not_finite(values, self.dtype)
            if findings.is_mask:
                numbers = as_numbers(values, self.dtype)
                findings.is_mask = bool(((numbers == 0) | (numbers == 1)).all())
            yield stored

    def _stored(self, values: Array) -> Array:
        return values if self.exact or self.dtype not in SIGNED_ZEROS else positive_zeros(values, self.dtype)

    def _masked(self, start: int, stop: int) -> Array:
        values = self._raw(start, stop)
        if self.mask is None:
            return values
        mask = as_numbers(self.mask._raw(start, stop), self.mask.dtype)
        if not ((mask == 0) | (mask == 1)).all():
            raise UnfitError(self.mask.path, "a mask of zeros and ones", "other values", self.mask.name)
        return np.where(mask != 0, values, values.dtype.type(0))

    def _raw(self, start: int, stop: int) -> Array:
        values = np.empty(stop - start, STORAGE[self.dtype])
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123 - a raw file
            status = os.fstat(file.fileno())
            file.seek(self.offset + start * values.itemsize)
            view, done = values.view(np.uint8).data, 0
            while done < len(view) and (count := file.readinto(view[done:])):
                done += count
        if (status.st_size, status.st_mtime_ns) != self.stamp or done < len(view):
            raise UnfitError(self.path, "the file to stay unchanged while it is packed", "a changed one", self.name)
        if self.dtype == "bool":
            require_bools(self.path, self.name, values.view(np.uint8))
        return values
