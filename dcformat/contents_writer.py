"""Writes the contents: the tensor table, and the sections of everything else (spec, "Contents")."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from dcformat import layout
from dcformat.cursor import check_text, text, varint
from dcformat.errors import DuplicateError, EncodingError, LimitError
from dcformat.graph_codec import write_graph
from dcformat.model import Model, Tensor


def small_sections(model: Model) -> list[tuple[int, bytes]]:
    """Return every section except the tensor table as (id, body), in ascending order; the digest begins with them."""
    sections = [(e.kind | layout.IGNORABLE, e.payload) for e in model.extensions]
    if model.graph is not None:
        sections.append((layout.SECTION_GRAPH, write_graph(model.graph, list(model.tensors))))
    if model.labels:
        body = varint(len(model.labels)) + b"".join(text(label) for label in model.labels)
        sections.append((layout.SECTION_LABELS, body))
    if model.metadata:
        entries = sorted(model.metadata.items(), key=lambda entry: entry[0].encode())
        body = varint(len(entries)) + b"".join(text(key) + text(value) for key, value in entries)
        sections.append((layout.SECTION_METADATA, body))
    if model.self_test is not None:
        test = model.self_test
        sections.append((layout.SECTION_SELF_TEST, varint(test.seed) + varint(test.samples) + test.digest))
    if model.delta is not None:
        from dcformat.delta_codec import write_delta  # few files are deltas

        sections.append((layout.SECTION_DELTA, write_delta(model.delta)))
    return sorted(sections)


def form_of(tensor: Tensor) -> int:
    """Return the form id of a tensor in memory."""
    if tensor.is_constant:
        return layout.FORM_CONSTANT
    if tensor.is_sparse:
        return layout.FORM_SPARSE if tensor.codebook is None else layout.FORM_SPARSE_SHARED
    return layout.FORM_DENSE if tensor.codebook is None else layout.FORM_DENSE_SHARED


class EntryHead(NamedTuple):
    """The part of a table entry before the length of its payload.

    Attributes
    ----------
    form : int
        A form id of `layout`.
    nnz : int
        Number of entries of a sparse tensor; meaningless for other forms.
    codebook_size : int
        Size of the codebook; meaningless without one.
    """

    name: str
    form: int
    dtype: str
    shape: tuple[int, ...]
    scale: float
    nnz: int
    codebook_size: int

    @classmethod
    def of(cls, tensor: Tensor) -> EntryHead:
        """Return the head of a tensor in memory."""
        codebook_size = 0 if tensor.codebook is None else len(tensor.codebook)
        nnz = tensor.nnz if tensor.is_sparse else 0
        return cls(tensor.name, form_of(tensor), tensor.dtype, tensor.shape, tensor.scale, nnz, codebook_size)

    def __bytes__(self) -> bytes:
        out, rank, dtype = bytearray(text(self.name)), len(self.shape), layout.DTYPES.index(self.dtype)
        if dtype < layout.KERNEL_DTYPES:
            out.append(self.form | dtype << 3 | rank << 5)
        else:
            out += bytes((layout.FORM_EXTENDED | rank << 5, self.form | dtype << 3))
        for size in self.shape:
            out += varint(size)
        if self.dtype == "int8":
            out += struct.pack("<f", self.scale)
        if self.form in (layout.FORM_SPARSE, layout.FORM_SPARSE_SHARED):
            out += varint(self.nnz)
        if self.form in (layout.FORM_DENSE_SHARED, layout.FORM_SPARSE_SHARED):
            out += varint(self.codebook_size)
        return bytes(out)


def table_entry(tensor: Tensor, payload_bytes: int, new_block: bool) -> bytes:
    """Return a tensor's entry in the table."""
    return bytes(EntryHead.of(tensor)) + entry_end(payload_bytes, new_block)


def entry_end(payload_bytes: int, new_block: bool) -> bytes:
    """Return the end of a table entry: the length of the payload, and whether it begins a data block."""
    return varint(2 * payload_bytes + new_block)


def copy_entry(name: str, back: int) -> bytes:
    """Return the table entry of a copy of the `back`-th tensor with a payload, counted from the last."""
    return text(name) + bytes((layout.FORM_COPY,)) + varint(back)


def assemble(table: Sequence[bytes], sections: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the contents in their plain form."""
    body = varint(len(table)) + b"".join(table)
    everything = sorted([(layout.SECTION_TENSORS, body), *sections])
    return b"".join(bytes((kind,)) + varint(len(part)) + part for kind, part in everything)


def check_limits(model: Model) -> None:
    """Raise `LimitError` unless a model's names, labels and metadata fit the format."""
    for what, values, max_bytes, min_bytes in (
        ("tensor name", model.tensors, layout.MAX_NAME_BYTES, 1),
        ("label", model.labels, layout.MAX_LABEL_BYTES, 0),
        ("metadata key", model.metadata, layout.MAX_NAME_BYTES, 1),
        ("metadata value", model.metadata.values(), layout.MAX_METADATA_BYTES, 0),
    ):
        for value in values:
            check_text(what, value, max_bytes, min_bytes)
    for what, count, limit in (
        ("number of tensors", len(model.tensors), layout.MAX_TENSORS),
        ("number of labels", len(model.labels), layout.MAX_LABELS),
        ("number of metadata entries", len(model.metadata), layout.MAX_METADATA_ENTRIES),
    ):
        if count > limit:
            raise LimitError(what, got=count, expected=f"at most {limit}")
    if (test := model.self_test) is not None and not (
        0 <= test.seed < 1 << 32
        and 1 <= test.samples <= layout.MAX_SELF_TEST_SAMPLES
        and len(test.digest) == layout.DIGEST_BYTES
    ):
        raise LimitError("self-test", got=test, expected=f"1 to {layout.MAX_SELF_TEST_SAMPLES} samples, 8 bytes")
    if model.self_test is not None and model.graph is None:
        raise EncodingError("self-test", got="no graph", expected="a graph to run it on")
    kinds = [e.kind for e in model.extensions]
    if len(set(kinds)) != len(kinds) or any(not 0 <= k < layout.IGNORABLE for k in kinds):
        raise DuplicateError("extensions", got=kinds, expected=f"different ids below {layout.IGNORABLE}")
