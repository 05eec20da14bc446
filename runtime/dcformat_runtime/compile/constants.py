"""The constants of a program, packed into one array, and the addresses of the tables in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import LimitError
from dcformat_runtime.compile.tables import Int32s, Window
from dcformat_runtime.isa import MAX_WORD
from dcformat_runtime.program_record import ALIGN, aligned_zeros
from dcformat_runtime.weight_matrices import Floats


def aligned(n: int) -> int:
    """Round up to whole cache lines."""
    return -(-n // ALIGN) * ALIGN


class Room:
    """Assigns places to constants without keeping them, to find out how much space a program would take."""

    def __init__(self) -> None:
        self.size = 0

    def skip(self, floats: int) -> int:
        """Make space, and return its offset in floats."""
        at = self.size
        self.size = aligned(at + floats)
        return at

    def put_words(self, words: Sequence[int]) -> int:
        """Make space for int32 words, and return its offset."""
        return self.skip(len(words))

    def put_records(self, records: Sequence[Sequence[int]], width: int) -> int:
        """Make space for records of `width` int32 words each, filled up with zeros, and return its offset."""
        return self.skip(len(records) * width)

    def fill(self, at: int, array: npt.NDArray[Any]) -> None:
        """Store an array in space made for it; this class keeps nothing."""

    def write_later(self, write: Callable[[Floats], None]) -> None:
        """Let `write` store its results in space made for them; this class keeps nothing."""


class Constants(Room):
    """Collects arrays of float32 and of integers (kept as int32, or uint16 and uint8 packed) into one array."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[tuple[int, npt.NDArray[Any]]] = []
        self._writers: list[Callable[[Floats], None]] = []

    def put_words(self, words: Sequence[int]) -> int:
        """Add words. Raise `LimitError` for integers that do not fit."""
        return self._add(words)

    def put_records(self, records: Sequence[Sequence[int]], width: int) -> int:
        """Add records. Raise `LimitError` for integers that do not fit."""
        table = np.zeros((len(records), width), np.int64)
        for row, words in zip(table, records, strict=True):
            row[: len(words)] = words
        return self._add(table)

    def _add(self, words: npt.ArrayLike) -> int:
        array = np.asarray(words)
        at = self.skip(array.size)
        self.fill(at, array)
        return at

    def fill(self, at: int, array: npt.NDArray[Any]) -> None:
        """Store an array in space made for it. Raise `LimitError` for integers that do not fit."""
        if array.dtype == np.uint8:
            array = array.view(np.int32)  # whole blocks of 16
        elif array.dtype == np.uint16:
            array = np.concatenate((array, np.zeros(array.size % 2, np.uint16))).view(np.int32)
        elif array.dtype != np.float32:
            if array.dtype != np.int32 and array.size and max(-int(array.min()), int(array.max())) > MAX_WORD:
                raise LimitError("running the network", got=int(abs(array).max()), expected=f"at most {MAX_WORD}")
            array = array.astype(np.int32)
        self._parts.append((at, array.reshape(-1)))

    def write_later(self, write: Callable[[Floats], None]) -> None:
        """Let `finish` call `write` with the whole array; `write` fills the space made for it."""
        self._writers.append(write)

    def finish(self) -> Floats:
        """Return everything as one float32 array; integers are kept bit for bit."""
        out = aligned_zeros(self.size)
        while self._parts:  # each part is dropped once it is copied
            at, part = self._parts.pop()
            out.view(part.dtype)[at : at + part.size] = part
        while self._writers:
            self._writers.pop()(out)
        return out


class CsrPlace(NamedTuple):
    """The addresses and sizes of sparse rows; see the opcode "csr_product"."""

    rows: int
    entries: int
    runs: int
    indptr: int
    order: int
    indices: int
    values: int
    bias: int


class QuadPlace(NamedTuple):
    """The addresses and sizes of quads of sparse rows; see the opcode "quad_product"."""

    rows: int
    entries: int
    runs: int
    ends: int
    starts: int
    indices: int
    values: int
    bias: int


class DensePlace(NamedTuple):
    """The addresses and sizes of a `DenseTable`."""

    rows: int
    columns: int
    runs: int
    offsets: int
    values: int
    bias: int


class RowBlockPlace(NamedTuple):
    """The addresses and sizes of a dense weight by blocks of rows; see the opcode "row_block_product"."""

    rows: int
    columns: int
    row_blocks: int
    offsets: int
    values: int
    bias: int


class ShiftedPlace(NamedTuple):
    """The addresses and sizes of the rows of a convolution; see the opcode "shifted_product"."""

    rows: int
    entries: int
    runs: int
    indptr: int
    order: int
    indices: int
    values: int
    bias: int
    max_blocks: int
    tiles: int
    masks: int


class ConvPlace(NamedTuple):
    """The place of a convolution's table, its window, and the address of the list of its copies' first columns.

    `max_blocks` is the maximum number of blocks of a sparse product to compute at a time.
    """

    table: CsrPlace | QuadPlace | DensePlace | RowBlockPlace | ShiftedPlace
    window: Window
    starts: int
    max_blocks: int


class DepthwisePlace(NamedTuple):
    """The addresses and the number of entries of a `DepthwiseTable`."""

    entries: int
    indptr: int
    offsets: int
    shifts: int
    values: int
    bias: int


class MapPlace(NamedTuple):
    """The addresses of the instructions and of the constants of a map; see the opcode "map"."""

    program: int
    constants: int


class SellPlace(NamedTuple):
    """The addresses and sizes of a `Sell16Table`; `order` is that of the table."""

    rows: int
    groups: int
    wide: bool
    indptr: int
    indices: int
    values: int
    bias: int
    order: Int32s
    order_at: int


class PermutePlace(NamedTuple):
    """The addresses and sizes of a `PermuteTable`."""

    blocks: int
    slots: int
    block_indices: int
    block_values: int
