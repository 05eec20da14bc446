"""A file's data in memory: tensors (sparse or dense, with or without a codebook), the graph and metadata.

These classes are plain data; they read and write nothing. A `Tensor` keeps the form that it has in the file: a sparse
tensor becomes dense only if a caller calls `to_dense`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import DeltaError, IndexRangeError
from dcformat.floats import bit_patterns
from dcformat.graph import Graph
from dcformat.layout import DEFAULT_MAX_MEMORY, DTYPES
from dcformat.limits import memory_counts, require_memory
from dcformat.records import fresh, record
from dcformat.wording import counted

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = npt.NDArray[Any]

_CODES = (
    "<f4", "<f2", "<u2", "|i1", "<f8", "<c8", "|u1", "|b1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", *5 * ("|u1",)
)  # fmt: skip
#: dtype name -> little-endian storage dtype. NumPy has neither bfloat16 nor the floats of eight bits, so their bit
#: patterns are kept as ``<u2`` and ``|u1``.
STORAGE = MappingProxyType({name: np.dtype(code) for name, code in zip(DTYPES, _CODES, strict=True)})

#: Number of elements of the dense form that are made at a time.
_PIECE = 1 << 18


def matrix_shape(shape: tuple[int, ...], sparse: bool) -> tuple[int, int]:
    """Return the rows and columns of a tensor's matrix view (spec, "Tensor table")."""
    one_row = len(shape) < (2 if sparse else 1)
    return (1, prod(shape)) if one_row else (shape[0], prod(shape[1:]))


@record(eq=False)
class Tensor:
    """A named tensor of any rank, viewed as a matrix of ``shape[0]`` rows; a sparse vector is a single row.

    Parameters
    ----------
    name : str
    shape : tuple of int
    dtype : str
        One of `layout.DTYPES`. Only the first four can have a codebook.
    data : ndarray
        A value for each stored element, in ``STORAGE[dtype]``, or, with a codebook, an unsigned code.
        Dense: all ``prod(shape)`` elements in row-major order. Sparse: the `nnz` entries in row-major order.
        Constant: the one value of all elements (`indices` is None).
    codebook : ndarray or None
        Distinct values in ``STORAGE[dtype]``, ascending. The codebook of a sparse tensor never holds the implied zero.
    indptr, indices : ndarray or None
        The CSR arrays: ``rows + 1`` offsets into the entries (int64), and each entry's column (int32, or int64 if
        int32 is too narrow), strictly ascending in each row. None for a dense tensor.
    scale : float
        For int8 only: an element's value is ``scale * code``. 1.0 otherwise.

    Notes
    -----
    Zero means that all bits are zero: a negative zero is stored, so every bit pattern survives a round trip.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Array
    codebook: Array | None = None
    indptr: Array | None = None
    indices: Array | None = None
    scale: float = 1.0

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        parts = [f"{self.name!r}, {self.dtype} {shape}"]
        if self.is_sparse:
            parts.append(f"sparse, {self.data.size:,} of {self.size:,} stored")
        else:
            parts.append("constant" if self.is_constant else "dense")
        if self.codebook is not None:
            parts.append(counted(self.codebook.size, "shared value"))
        if self.scale != 1.0:
            parts.append(f"scale {self.scale:g}")
        return f"Tensor({', '.join(parts)})"

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def rows(self) -> int:
        """Rows of the matrix form."""
        return matrix_shape(self.shape, self.is_sparse)[0]

    @property
    def columns(self) -> int:
        """Columns of the matrix form."""
        return matrix_shape(self.shape, self.is_sparse)[1]

    @property
    def is_sparse(self) -> bool:
        """Whether only the nonzero elements are stored."""
        return self.indices is not None

    @property
    def is_constant(self) -> bool:
        """Whether one value stands for all elements (the tensor may have none)."""
        return self.indices is None and self.codebook is None and self.data.size == 1 and self.size != 1

    @property
    def nbytes(self) -> int:
        """Bytes of the dense form."""
        return self.size * STORAGE[self.dtype].itemsize

    @property
    def nnz(self) -> int:
        """Number of elements other than positive zero."""
        if self.indices is not None:
            return int(self.indices.size)
        nonzero = int(np.count_nonzero(bit_patterns(self.values())))
        return nonzero * self.size if self.is_constant else nonzero

    def values(self) -> Array:
        """Return the values of the stored elements: 1-D, ``STORAGE[dtype]``, in the order of `data`."""
        return self.data if self.codebook is None else self.codebook[self.data]

    def to_dense(self, *, max_memory: int | None = DEFAULT_MAX_MEMORY) -> Array:
        """Return the dense tensor, in ``STORAGE[dtype]`` and of `shape`, bit for bit as it was saved.

        Parameters
        ----------
        max_memory : int or None
            Maximum number of bytes of the dense form; None for no bound.

        Raises
        ------
        MemoryLimitError
            The dense form would take more. A constant or sparse tensor may be much larger than its payload.
        """
        if not (self.is_sparse or self.is_constant or self.codebook is not None):
            return self.data.reshape(self.shape)
        with self._allowing("dense", self.nbytes, max_memory):
            out = np.empty(self.size, STORAGE[self.dtype])
            for start in range(0, self.size, _PIECE):
                self._fill(out[start : start + _PIECE], start)
            return out.reshape(self.shape)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return the dense numbers for NumPy's functions; bfloat16 and scaled int8 become float32."""
        from dcformat.conversions import to_array

        values = to_array(self)
        return np.array(values, dtype) if copy else values.astype(values.dtype if dtype is None else dtype, copy=False)

    def to_scipy(self, *, max_memory: int | None = DEFAULT_MAX_MEMORY) -> csr_array:
        """Return the matrix view as a `scipy.sparse.csr_array`; float16, bfloat16 and scaled int8 become float32.

        Raises `EncodingError` for a vector, a number or a float of eight bits, and `MemoryLimitError`.
        """
        from dcformat.conversions import to_scipy

        return to_scipy(self, max_memory)

    def to_csr(self, *, max_memory: int | None = DEFAULT_MAX_MEMORY) -> tuple[Array, Array, Array]:
        """Return ``(indptr, indices, values)`` of the matrix form, without making a sparse tensor dense.

        Parameters
        ----------
        max_memory : int or None
            Maximum number of bytes of the three arrays and of temporary arrays; None for no bound.

        Returns
        -------
        indptr : int64 ``(rows + 1,)``
        indices : int32 ``(nnz,)``, or int64 from 2^31 columns on
        values : ``STORAGE[dtype]`` ``(nnz,)``

        Raises
        ------
        MemoryLimitError
            The arrays would take more.
        """
        item, index = STORAGE[self.dtype].itemsize, np.dtype(np.int32 if self.columns < 1 << 31 else np.int64)
        if self.indptr is not None and self.indices is not None:
            with self._allowing("CSR", 0 if self.codebook is None else item * self.nnz, max_memory):
                return self.indptr, self.indices, self.values()
        indptr_bytes = 8 * (self.rows + 1)
        if self.is_constant or not self.size:
            return self._csr_of_alike(self.nnz, index, max_memory)
        with self._allowing("CSR", self.size + indptr_bytes, max_memory):
            there = (
                bit_patterns(self.data) != 0 if self.codebook is None else (bit_patterns(self.codebook) != 0)[self.data]
            )
        count = int(np.count_nonzero(there))
        need = self.size + 2 * indptr_bytes + count * (16 + index.itemsize + 2 * item)
        with self._allowing("CSR", need, max_memory):
            indptr = np.zeros(self.rows + 1, np.int64)
            np.cumsum(np.count_nonzero(there.reshape(self.rows, self.columns), axis=1), out=indptr[1:])
            at = np.flatnonzero(there)
            data = self.data[at]
            return indptr, (at % self.columns).astype(index), data if self.codebook is None else self.codebook[data]

    def _csr_of_alike(self, count: int, index: np.dtype[Any], max_memory: int | None) -> tuple[Array, Array, Array]:
        """Return the CSR form of equal elements: all of them are entries, or none if `count` is 0."""
        storage, columns = STORAGE[self.dtype], self.columns if count else 0
        indptr_bytes = 8 * (self.rows + 1)
        need = (1 + (count > 0)) * indptr_bytes + count * storage.itemsize + (count + columns) * index.itemsize
        with self._allowing("CSR", need, max_memory):
            indptr = np.arange(self.rows + 1) * columns if count else np.zeros(self.rows + 1, np.int64)
            return indptr, np.tile(np.arange(columns, dtype=index), self.rows), np.full(count, self.data[:1], storage)

    def pieces(self) -> Iterator[Array]:
        """Yield the dense form, which may not fit in memory, in row-major 1-D pieces of 2^18 elements."""
        for start in range(0, self.size, _PIECE):
            piece = np.empty(min(_PIECE, self.size - start), STORAGE[self.dtype])
            self._fill(piece, start)
            yield piece

    def _fill(self, out: Array, start: int) -> None:
        """Fill `out` with the elements of the flattened tensor from `start` on."""
        stop = start + len(out)
        if self.indptr is None or self.indices is None:
            data = self.data if self.is_constant else self.data[start:stop]
            out[:] = data if self.codebook is None else self.codebook.take(data)
            return
        from dcformat.codecs.scattering import scatter  # a process that only runs a network makes no dense form

        begin, end = self._entry(start), self._entry(stop)
        data = self.data[begin:end]
        values = data if self.codebook is None else self.codebook.take(data)
        if not scatter(self.indptr, self.indices, values, begin, self.columns, start, out):
            raise IndexRangeError(f"indices of {self.name!r}", got="others", expected="entries of its rows, in order")

    def _entry(self, position: int) -> int:
        """Return the number of a sparse tensor's entries before a position in the flattened tensor."""
        assert self.indptr is not None and self.indices is not None  # for the type checker: it is sparse
        row, column = divmod(position, self.columns)
        if row == self.rows:
            return len(self.indices)
        begin, end = int(self.indptr[row]), int(self.indptr[row + 1])
        return begin + int(np.searchsorted(self.indices[begin:end], column))

    @contextmanager
    def _allowing(self, form: str, need: int, max_memory: int | None) -> Iterator[None]:
        field = f"{form} form of tensor {self.name!r}"
        require_memory(field, need, max_memory)
        with memory_counts(field, max_memory):
            yield


def uniform_bits(tensor: Tensor) -> Array | None:
    """Return the bit pattern of all elements in an array of length 1, or None if they differ or there are none."""
    if not tensor.size:
        return None
    if tensor.is_sparse and len(tensor.data) < tensor.size:
        return None if len(tensor.data) else np.zeros(1, f"<u{STORAGE[tensor.dtype].itemsize}")
    stored = bit_patterns(np.ascontiguousarray(tensor.data)) if tensor.codebook is None else tensor.data
    if stored[-1] != stored[0] or (stored != stored[0]).any():
        return None
    return stored[:1] if tensor.codebook is None else bit_patterns(tensor.codebook[stored[:1]])


@record
class Extension:
    """A section that this version does not know and may ignore; a rewritten file keeps it byte for byte."""

    kind: int
    payload: bytes


@record
class SelfTest:
    """A golden test: the classes of `samples` inputs drawn from `seed` must have this `digest` (spec, "Self-test")."""

    seed: int
    samples: int
    digest: bytes


class Origin(NamedTuple):
    """The number of a tensor of the base, and the new tensor's name and scale; None for those of the base's tensor."""

    number: int
    name: str | None = None
    scale: float | None = None


@record
class Step:
    """A step that makes the next tensors of a delta's new file.

    Attributes
    ----------
    kind : {'kept', 'new', 'changed'}
        The tensors are those of the base; those of the delta; or made from their origins by the delta's next tensor, a
        difference.
    count : int
    first : int
        Number of the first tensor of the base, if they are kept.
    origins : tuple of Origin
        One for each changed tensor.
    """

    kind: str
    count: int
    first: int = 0
    origins: tuple[Origin, ...] = ()


@record
class Delta:
    """How a new file is made from a base (spec, "Deltas"); `dcformat.apply` makes it.

    Attributes
    ----------
    base, result : bytes
        Content digests of the base and of the new file.
    sections : tuple of (int, bytes or None)
        The new file's sections apart from the tensor table: id and body, or None for the base's body.
    steps : tuple of Step
    in_place : bool
        Whether the new file has the names of the base in their order. If so, a tensor that a step makes replaces the
        base's tensor of the same name, and the others are kept.
    """

    base: bytes
    result: bytes
    sections: tuple[tuple[int, bytes | None], ...]
    steps: tuple[Step, ...]
    in_place: bool = False


def require_no_delta(delta: Delta | None, path: str | None = None) -> None:
    """Raise `DeltaError` if there is a delta: it has no tensors of its own to unpack or run."""
    if delta is not None:
        way = "one that stands alone (dcformat apply DELTA --base OLD.dcf -o NEW.dcf makes it)"
        error = DeltaError("file", got="a delta", expected=way)
        error.path = path
        raise error


@record(eq=False)
class Model:
    """Tensors in the file's order, and optionally the graph that uses them, labels and metadata.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    graph : Graph or None
        None for a collection of tensors without a network, which cannot be run.
    labels : tuple of str
        Class labels in the order of the logits; may be empty.
    metadata : mapping of str to str
        Free text, of limited length (spec, "Limits").
    delta : Delta or None
        If this is a delta, how it makes a new model from its base; a delta has neither graph nor text of its own.
    """

    tensors: Mapping[str, Tensor]
    graph: Graph | None = None
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, str] = fresh(default_factory=dict)
    self_test: SelfTest | None = None
    extensions: tuple[Extension, ...] = ()
    delta: Delta | None = None

    @property
    def elements(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.size for tensor in self.tensors.values())

    def __repr__(self) -> str:
        parts = [f"{counted(len(self.tensors), 'tensor')}, {counted(self.elements, 'element')}"]
        parts.append("no graph" if self.graph is None else repr(self.graph))
        if self.labels:
            parts.append(counted(len(self.labels), "label"))
        if self.metadata:
            parts.append(f"metadata {', '.join(map(repr, self.metadata))}")
        return f"Model({', '.join(parts)})"
