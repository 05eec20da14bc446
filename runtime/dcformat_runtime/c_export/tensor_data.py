"""The bytes of a program's weights, and how the program finds each tensor in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.alphabet import Alphabet
from dcformat.digest import crc32c
from dcformat_runtime.c_export.stream_coders import CODERS, CodedStream, TensorEntries

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]

#: Tensors of at least this density are coded element by element.
_DENSE = 0.5
#: The greatest codebook: a code has a byte, and so has the number of codes for negative values.
MAX_CODES = 255


class TensorFields(NamedTuple):
    """The fields of ``tensor_t`` in `parts/data.c`."""

    elements: int
    entries: int
    stream: int
    end: int
    values: int
    codes: int
    negatives: int
    width: int
    shift: int
    gap_bits: int
    gap_table: int = 0
    code_table: int = 0
    magnitude_bits: int = 0
    limit: int = 0

    @property
    def bit_models(self) -> int:
        """The number of bit models that the adaptive decoder needs."""
        return (1 << self.gap_bits) + (1 << self.magnitude_bits) if self.gap_bits or self.codes else 0


NO_TENSOR = TensorFields(0, 0, 0, 0, 0, 0, 0, 1, 0, 0)


class Values(NamedTuple):
    """The elements of a tensor in the form in which a program computes with them.

    `numbers` holds all elements, float32 or int64; the program multiplies each by 2^shift. With `ranged`, integers from
    -127 to 127 are coded directly, without a codebook.
    """

    numbers: Array
    shift: int = 0
    ranged: bool = False


class TensorData:
    """Collects tensors; `finish` returns their bytes with a checksum."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._coder = CODERS[form]
        self._bytes = bytearray()

    def add(self, values: Values) -> TensorFields:
        """Append a tensor and return its fields."""
        flat = values.numbers.reshape(-1)
        there = np.flatnonzero(flat)
        if not len(there):
            return NO_TENSOR
        codebook = self._codebook(values, flat[there])
        dense = len(there) >= _DENSE * len(flat) and (codebook is None or self._form != "small")
        if dense and codebook is not None and not values.ranged and len(there) < len(flat):
            codebook = self._codebook(values, flat)
        positions = np.arange(len(flat)) if dense else there
        return self._coded(values, flat[positions], positions, len(flat), codebook)

    def table(self, content: bytes) -> int:
        """Append other bytes and return their place."""
        self._bytes += content
        return len(self._bytes) - len(content)

    def finish(self) -> bytes:
        """Return all bytes and their CRC-32C."""
        return bytes(self._bytes) + crc32c(self._bytes)

    def _codebook(self, values: Values, found: Array) -> Array | None:
        """Return the codebook, ascending; None if the values have no codes."""
        if values.ranged:
            return np.arange(min(int(found.min()), 0), max(int(found.max()), 0) + 1)
        codebook = np.unique(found)
        width = _width(values.numbers)
        if len(codebook) > MAX_CODES or len(codebook) * width >= len(found) * (width - 1):
            return None
        return codebook

    def _coded(
        self, values: Values, found: Array, positions: Ints, elements: int, codebook: Array | None
    ) -> TensorFields:
        if codebook is None:
            symbols, alphabet = np.zeros(len(found), np.int64), Alphabet(0, 0)
        else:
            symbols = np.searchsorted(codebook, found).astype(np.int64)
            alphabet = Alphabet(len(codebook), int(np.count_nonzero(np.less(codebook, 0))))
        entries = TensorEntries(elements, positions, symbols, alphabet if codebook is not None else Alphabet(0, 0))
        coded = CodedStream(b"", 0)
        if codebook is not None or not entries.is_dense:
            coded = self._coder(entries if codebook is not None or self._form != "small" else _of_one_code(entries))
        width = 0 if values.ranged else _width(values.numbers)
        places = [self.table(part) for part in (*coded.tables, coded.stream)]
        stream, end = places[-1], len(self._bytes)
        stored = b"" if values.ranged else _stored(found if codebook is None else codebook, width)
        small = self._form == "small" and (coded.gap_bits or alphabet.size)
        gap_table, code_table = places[:2] if coded.tables else (0, 0)
        return TensorFields(
            elements, len(found), stream, end, self.table(stored), alphabet.size, alphabet.negatives, width,
            values.shift, coded.gap_bits, gap_table, code_table,
            alphabet.magnitude_bits if small and alphabet.size else 0, coded.limit,
        )  # fmt: skip


def _of_one_code(entries: TensorEntries) -> TensorEntries:
    """Return entries whose code symbols are all 0 and therefore take no bits."""
    return entries._replace(alphabet=Alphabet(1, 0))


def _width(numbers: Array) -> int:
    """Return the bytes of a value."""
    if numbers.dtype.kind == "f":
        return 4
    greatest = max(-int(numbers.min()), int(numbers.max()))
    return 1 if greatest < 1 << 7 else 2 if greatest < 1 << 15 else 4


def _stored(numbers: Array, width: int) -> bytes:
    return numbers.astype("<f4" if numbers.dtype.kind == "f" else f"<i{width}").tobytes()
