"""The forms in which a tensor can be stored, and the choice of the smallest.

A tensor may be sparse or dense, with or without a codebook. The writer ignores the form that the caller chose: it tries
the forms that an estimate favours and keeps the smallest. All of them restore the same elements, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import Mode
from dcformat.codecs.axis_tables import MAX_CODES
from dcformat.codecs.axis_tables_writer import MAX_SIZE, found_in
from dcformat.codecs.codebooks import write_codebook
from dcformat.codecs.payload_writer import SLOWER, is_slow, write_payload
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.value_block_writer import coded_bits
from dcformat.contents_writer import table_entry
from dcformat.cursor import varint
from dcformat.floats import bit_patterns, ranks
from dcformat.model import STORAGE, Tensor, matrix_shape, uniform_bits
from dcformat.records import replace

Array = npt.NDArray[Any]

#: The writer tries every form of a tensor with at most this many elements.
_TRY_ALL = 1 << 12
#: It tries a form of a larger tensor if its estimated bits exceed the least by at most a 16th plus this slack.
_MARGIN, _SLACK = 16, 1 << 12
#: If a sample of this size holds more distinct values than a codebook may hold, the tensor gets no codebook.
_SAMPLE = 1 << 17
#: A dense form with a codebook pays only if at most one element in this many is zero; otherwise the sparse form's
#: *every element* coding takes as few bytes.
_FEW_ZEROS = 16
#: A codebook of so few values takes about as many bytes as the scales of the rows that may be behind it.
_FEW_VALUES = 64
#: In `fast`, values with at most one zero in this many elements are not worth a sparse form: gaps of two kinds take a
#: bit for each entry, while a zero takes at most 12 bits in each plane of a dense form.
_MANY_ZEROS = 256
#: Number of codes that take one byte.
_BYTE = 256
#: In `fast`, such a small tensor's positions or codebook must save one byte in this many: values alone decode faster.
_FASTER = 32


def smallest(tensor: Tensor, mode: Mode) -> tuple[Tensor, bytes]:
    """Return the form of a validated tensor that takes the fewest bytes in `mode`, and its payload.

    Ties go to the form that comes first in `forms`, so the same elements give the same bytes in any form.
    """
    if mode == "fast" and tensor.codebook is None and not has_many_zeros(tensor):
        tensor = as_dense(tensor)  # for all that follows
    candidates = forms(tensor, mode)
    plain = {form: write_payload(form, mode) for form in candidates if form.codebook is None}
    least = min(map(len, plain.values()), default=None)
    made = [
        (form, plain[form] if form in plain else write_payload(form, mode))
        for form in candidates
        if form in plain or mode != "fast" or least is None or _codebook_may_pay(form, least)
    ]
    made += _with_tables(tensor, mode)

    def weight(pair: tuple[Tensor, bytes]) -> int:
        form, payload = pair
        slow = len(payload) // SLOWER if is_slow(payload, form, mode) else 0
        if mode == "fast" and tensor.size <= _TRY_ALL and (form.is_sparse or form.codebook is not None):
            slow = len(payload) // _FASTER
        return len(payload) + len(table_entry(form, len(payload), True)) + slow

    return min(made, key=weight)


def _codebook_may_pay(form: Tensor, least: int) -> bool:
    """Return whether a form with a codebook can take fewer than `least` bytes in `fast`.

    If most values are distinct, or the codes take two bytes, it usually cannot, which is clear without coding it: the
    codebook and the entropy of the codes, byte by byte, are already too long.
    """
    codebook = form.codebook
    if codebook is None or (2 * len(codebook) <= len(form.data) and len(codebook) <= _BYTE):
        return True
    encoder = Encoder(0)
    write_codebook(encoder, codebook, form.dtype)
    codes = _codes_entropy(np.bincount(form.data, minlength=len(codebook)), "fast")
    return len(encoder.take()) + int(codes) // 8 < least


def _with_tables(tensor: Tensor, mode: Mode) -> list[tuple[Tensor, bytes]]:
    """Return the tensor with a payload of coder 5, if places along an axis have codebooks or scales of their own."""
    if not 2 <= tensor.size <= MAX_SIZE or uniform_bits(tensor) is not None:
        return []
    few = MAX_CODES if mode == "fast" else _FEW_VALUES
    if tensor.codebook is not None and len(tensor.codebook) + tensor.is_sparse <= few:
        return []  # One codebook for all places is as good, as `found_in` would find after sorting all of them.
    is_sparse = tensor.nnz * _FEW_ZEROS <= tensor.size * (_FEW_ZEROS - 1)
    plain = _converted(tensor, is_sparse, shared=False)
    found = found_in(plain, few)
    if found is None:
        return []
    codes = found.codes
    shared = as_shared(codes)
    made = [(form, write_payload(form, mode)) for form in ((codes,) if shared is None else (codes, shared))]
    form, payload = min(made, key=lambda pair: len(pair[1]))
    codebook_size = 0 if form.codebook is None else len(form.codebook)
    return [(plain, found.head(plain.dtype, mode) + varint(codebook_size) + payload)]


def forms(tensor: Tensor, mode: Mode) -> list[Tensor]:
    """Return the forms of a validated tensor that are worth trying: at least one, each with the same elements."""
    only = uniform_bits(tensor)
    if tensor.size < 2:
        return [as_plain(as_dense(tensor))]
    if only is not None:
        return [Tensor(tensor.name, tensor.shape, tensor.dtype, only.view(STORAGE[tensor.dtype]), scale=tensor.scale)]
    shared = as_shared(tensor)
    weighed = _estimates(tensor if shared is None else shared, mode)
    if tensor.size > _TRY_ALL:
        least = min(bits for bits, _, _ in weighed)
        weighed = [entry for entry in weighed if entry[0] <= least + least / _MARGIN + _SLACK]
    kinds = [(sparse, has_codebook) for _, sparse, has_codebook in weighed]
    if mode == "tiny" and tensor.dtype == "int8" and 2 * tensor.nnz >= tensor.size and (False, False) not in kinds:
        kinds.append((False, False))  # Coder 6 predicts integers from each other, which no estimate sees.
    if mode == "fast" and (False, False) in kinds and not has_many_zeros(tensor) and _has_gaps(tensor):
        kinds = [kind for kind in kinds if kind != (True, False)]
    return [
        _converted(tensor if shared is None or not has_codebook else shared, sparse, has_codebook)
        for sparse, has_codebook in kinds
    ]


def has_many_zeros(tensor: Tensor) -> bool:
    """Return whether a tensor is small or has so many zeros that a sparse form may be the smallest in `fast`."""
    return tensor.size <= _TRY_ALL or (tensor.size - tensor.nnz) * _MANY_ZEROS > tensor.size


def _has_gaps(tensor: Tensor) -> bool:
    """Return whether a zero comes before another value, both in a row and in a column.

    Then a sparse form has gaps of two kinds, by rows or by columns, unlike that of a tensor that ends with zeros.
    """
    values = np.ascontiguousarray(as_dense(as_plain(tensor)).data)
    there = (bit_patterns(values) != 0).reshape(matrix_shape(tensor.shape, True))
    by_columns = len(there) < 2 or bool((there[1:] > there[:-1]).any())
    return by_columns and bool((there[:, 1:] > there[:, :-1]).any())


def _estimates(tensor: Tensor, mode: Mode) -> list[tuple[float, bool, bool]]:
    """Return (bits, sparse, shared) for each form that could be the smallest; `tensor` has a codebook if possible."""
    size, stored = tensor.size, tensor.nnz
    zeros = size - stored
    width = 8 * STORAGE[tensor.dtype].itemsize
    # A dense form also codes each zero, in at least one bit, however similar the other values are.
    some = _some(tensor)
    # All forms of a small tensor are tried, so their bits do not matter.
    is_counted = len(some) and size > _TRY_ALL
    value_bits = max(coded_bits(some, tensor.dtype, mode), 1.0) if is_counted else float(width)
    positions = _entropy(np.array([stored, zeros]))
    out = []
    if zeros:
        sparse_bits = coded_bits(some, tensor.dtype, mode, beside_positions=True) if is_counted else value_bits
        out.append((positions + stored * max(sparse_bits, 1.0), True, False))
    if not zeros or size <= _TRY_ALL or positions + stored * (value_bits + 1) > size * value_bits:
        out.append((size * value_bits, False, False))
    if tensor.codebook is None:
        return out
    counts = np.bincount(tensor.data, minlength=len(tensor.codebook))
    nonzero = counts[bit_patterns(tensor.codebook) != 0]
    # A codebook is a sorted set: its values cost as much as single values, minus the bits of their order.
    codebook_bits = len(nonzero) * max(width - np.log2(max(len(nonzero), 1)) + 2, 2.0)
    if zeros:
        out.insert(0, (positions + _codes_entropy(nonzero, mode) + codebook_bits, True, True))
    few = zeros * _FEW_ZEROS <= size or size <= _TRY_ALL
    if few and len(nonzero) + bool(zeros) <= layout.MAX_CODEBOOK:
        out.insert(bool(zeros), (_codes_entropy(np.append(nonzero, zeros), mode) + codebook_bits, False, True))
    return out


def _entropy(counts: Array) -> float:
    """Return the entropy in bits of symbols with these counts."""
    counts = counts[counts > 0].astype(np.float64)
    return float((counts * -np.log2(counts / counts.sum())).sum()) if len(counts) > 1 else 0.0


def _codes_entropy(counts: Array, mode: Mode) -> float:
    """Return the entropy in bits of codes with these counts; `fast` codes their bytes independently."""
    if mode != "fast" or len(counts) <= _BYTE:
        return _entropy(counts)
    planes = np.pad(counts, (0, -len(counts) % _BYTE)).reshape(-1, _BYTE)
    return _entropy(planes.sum(axis=0)) + _entropy(planes.sum(axis=1))


def _some(tensor: Tensor) -> Array:
    """Return the values of a sample of the stored elements, without zeros."""
    stored = tensor.data[:: -(-len(tensor.data) // _SAMPLE)] if len(tensor.data) else tensor.data
    values: Array = np.ascontiguousarray(stored if tensor.codebook is None else tensor.codebook[stored])
    nonzero: Array = values[bit_patterns(values) != 0]
    return nonzero


def _converted(tensor: Tensor, sparse: bool, shared: bool) -> Tensor:
    tensor = tensor if shared else as_plain(tensor)
    return as_sparse(tensor) if sparse else as_dense(tensor)


def as_plain(tensor: Tensor) -> Tensor:
    """Return a tensor without a codebook."""
    return tensor if tensor.codebook is None else replace(tensor, data=tensor.values(), codebook=None)


def as_shared(tensor: Tensor) -> Tensor | None:
    """Return a tensor with a codebook of the values in use, or None if there are none, too many, or may be none."""
    if layout.DTYPES.index(tensor.dtype) >= layout.KERNEL_DTYPES:
        return None
    if tensor.codebook is None:
        codes, codebook = share(np.ascontiguousarray(tensor.data), tensor.dtype)
        return None if codebook is None else replace(tensor, data=codes, codebook=codebook)
    used = np.bincount(tensor.data, minlength=len(tensor.codebook)) > 0
    if used.all():
        return tensor
    if not used.any():
        return None
    codes = (np.cumsum(used) - 1).astype(_code_type(int(used.sum())))[tensor.data]
    return replace(tensor, data=codes, codebook=tensor.codebook[used])


def as_dense(tensor: Tensor) -> Tensor:
    """Return a tensor that stores every element; its codebook gets a zero if some elements are zero."""
    if not tensor.is_sparse:
        return tensor
    assert tensor.indptr is not None and tensor.indices is not None  # it is sparse
    data, codebook = tensor.data, tensor.codebook
    out = np.zeros(tensor.size, STORAGE[tensor.dtype])
    if codebook is not None:
        if len(data) < tensor.size:
            zero = int((ranks(np.ascontiguousarray(codebook), tensor.dtype) < ranks(out[:1], tensor.dtype)).sum())
            codebook = np.insert(codebook, zero, 0)
            data = data + (data >= zero).astype(_code_type(len(codebook)))
            out = np.full(tensor.size, zero, _code_type(len(codebook)))
        else:
            out = np.empty(tensor.size, data.dtype)
    at = np.repeat(np.arange(tensor.rows) * tensor.columns, np.diff(tensor.indptr))
    at += tensor.indices
    out[at] = data
    return replace(tensor, data=out, codebook=codebook, indptr=None, indices=None)


def as_sparse(tensor: Tensor) -> Tensor:
    """Return a tensor that leaves out its zeros."""
    if tensor.is_sparse:
        return tensor
    data, codebook = np.ascontiguousarray(tensor.data), tensor.codebook
    zero = -1
    if codebook is None:
        there = bit_patterns(data) != 0
    else:
        found = np.flatnonzero(bit_patterns(codebook) == 0)
        zero = int(found[0]) if len(found) else -1
        there = data != zero
        if zero >= 0:
            codebook = np.delete(codebook, zero)
    at = np.flatnonzero(there)
    stored = data[at]
    if zero >= 0 and codebook is not None:
        stored = (stored - (stored > zero)).astype(_code_type(len(codebook)))
    rows, columns = matrix_shape(tensor.shape, True)
    indptr = np.zeros(rows + 1, np.int64)
    np.cumsum(np.count_nonzero(there.reshape(rows, columns), axis=1), out=indptr[1:])
    at -= np.repeat(np.arange(rows) * columns, np.diff(indptr))
    index = np.int32 if columns <= np.iinfo(np.int32).max else np.int64
    return replace(tensor, data=stored, codebook=codebook, indptr=indptr, indices=at.astype(index))


def share(values: Array, dtype: str) -> tuple[Array, Array | None]:
    """Return codes and an ascending codebook, or the values and None if there are none or too many distinct ones."""
    bits = bit_patterns(values)
    if len(bits) > 2 * _SAMPLE:
        some = np.sort(bits[:: len(bits) // _SAMPLE])
        if np.count_nonzero(some[1:] != some[:-1]) >= layout.MAX_CODEBOOK:
            return values, None
    narrow = bits.dtype.itemsize <= 2
    if narrow:
        # Counting all patterns takes a tenth of the time that sorting the values takes.
        used = np.bincount(bits, minlength=1 << 8 * bits.dtype.itemsize) > 0
        distinct, codes = np.flatnonzero(used).astype(bits.dtype), bits
    else:
        distinct, codes = np.unique(bits, return_inverse=True)
    if not 1 <= len(distinct) <= layout.MAX_CODEBOOK:
        return values, None
    codebook = distinct.view(values.dtype)
    order = np.argsort(ranks(codebook, dtype))
    rank = np.empty(len(order), _code_type(len(order)))
    rank[order] = np.arange(len(order))
    if narrow:
        table = np.zeros(len(used), rank.dtype)
        table[distinct] = rank
        rank = table
    return rank[codes], codebook[order]


def _code_type(codebook_size: int) -> type[np.uint8 | np.uint16]:
    return np.uint8 if codebook_size <= 256 else np.uint16
