"""Well-formed files that state false counts, sizes, places and codes behind correct checksums."""

from __future__ import annotations

import struct

import pytest

import dcformat
from dcformat import errors, layout
from dcformat.errors import FormatError
from tests.format.assembler import (
    ADAPTIVE,
    BLOCKS,
    DENSE,
    DENSE_SHARED,
    EVERY_ELEMENT,
    FILLERS,
    GRAPH,
    HUFFMAN,
    INT8,
    LABELS,
    METADATA,
    RAW,
    SELF_TEST,
    SPARSE,
    SPARSE_SHARED,
    TRANSPOSED,
    Bits,
    Entry,
    File,
    block,
    one,
    text,
    varint,
)
from tests.format.hostile import MEMORY, read
from tests.format.strategies import COMPILED

ONE = struct.pack("<f", 1.0)


def head(bits: Bits) -> bytes:
    return text(bits.take())


def three_codes(first: int, code: int) -> bytes:
    """Return a file of one code into a codebook of the int8 values from `first` - 128 on."""
    payload = bytes((RAW, 0)) + head(Bits().put(8, first).steps(2)) + bytes((code,))
    return one(payload, form=DENSE_SHARED, dtype=INT8, shape=(1,), codebook_size=3)


def code_lengths(gap_bits: int, steps: list[tuple[object, int]]) -> bytes:
    """Return a file whose gap symbols have code lengths that the given bits state, from a width of 2 on."""
    payload = bytes((HUFFMAN | BLOCKS, 0)) + head(Bits().put(3, gap_bits).put(2, 2).adaptive(steps, 30)) + b"\0"
    return one(payload, form=SPARSE, shape=(2, 3))


GAPS1 = Bits().put(3, 0)
#: How the payload of a sparse tensor without a codebook begins under coder 0, by rows and by columns.
PACKED, TURNED = bytes((RAW | BLOCKS, 0)), bytes((TRANSPOSED | BLOCKS, 0))
#: Used, another length, one less; used, another, one more; used, another, one less.
OVERFULL: list[tuple[object, int]] = [(0, 1), (2, 0), (5, 1), (0, 1), (3, 0), (6, 0), (7, 0), (0, 1), (2, 0), (5, 1)]
LIES: dict[str, tuple[bytes, type[FormatError]]] = {
    "shape overflows": (one(ONE, shape=(1 << 40, 1 << 40)), errors.ShapeError),
    "dimension of 42 bits": (one(ONE, shape=((1 << 42) - 1,)), errors.LimitError),
    "zeros hide an overflow": (one(ONE, shape=(1 << 40, 0, 1 << 40)), errors.ShapeError),
    "rows without columns": (one(PACKED, form=SPARSE, shape=(1 << 40, 0)), errors.MemoryLimitError),
    "columns without rows": (
        one(TURNED + head(GAPS1) + b"\0\0", form=SPARSE, shape=(0, (1 << 31) - 1)),
        errors.MemoryLimitError,
    ),
    "no columns, by columns": (
        one(TURNED, form=SPARSE, shape=(0, 1 << 31)),
        errors.LimitError,
    ),
    "dense, 2^40 elements": (one(b"\0\0", shape=(1 << 40,)), errors.MemoryLimitError),
    "sparse, 2^40 entries": (
        one(PACKED, form=SPARSE, shape=(1, 1 << 40), stored=1 << 40),
        errors.MemoryLimitError,
    ),
    "codebook of 10,000 in no bytes": (
        one(bytes((HUFFMAN, 0, 0)), form=DENSE_SHARED, shape=(2,), codebook_size=10_000, dtype=INT8),
        errors.CodebookError,
    ),
    "codebook of none": (one(b"\0\0", form=DENSE_SHARED, shape=(2,), codebook_size=0), errors.EncodingError),
    "every element of 2^31": (
        one(
            bytes((EVERY_ELEMENT, 0)) + head(Bits().put(8, 3)) + b"\0",
            shape=(1 << 11, 1 << 20),
            codebook_size=1,
            form=SPARSE_SHARED,
            dtype=INT8,
        ),
        errors.LimitError,
    ),
    "every element by coder 2": (
        one(
            bytes((ADAPTIVE | EVERY_ELEMENT, 0)),
            shape=(1 << 11, 1 << 20),
            codebook_size=1,
            form=SPARSE_SHARED,
            dtype=INT8,
        ),
        errors.LimitError,
    ),
    "every element stored, one said": (
        one(
            bytes((EVERY_ELEMENT, 0)) + head(Bits().put(8, 3)) + b"\0",
            shape=(2, 3),
            stored=1,
            codebook_size=1,
            form=SPARSE_SHARED,
            dtype=INT8,
        ),
        errors.IndexRangeError,
    ),
    "line of 2^31 for coder 2": (
        one(bytes((ADAPTIVE, 0)), form=SPARSE, shape=(1, 1 << 31), stored=1),
        errors.LimitError,
    ),
    "more chunks than lines allow": (one(bytes((RAW, 1)) + b"\0" * 100, form=DENSE, shape=(50, 0)), errors.LimitError),
    "chunks of 2^40 lines": (one(bytes((RAW, 1)) + b"\0" * 100, form=DENSE, shape=(1 << 40, 0)), errors.LimitError),
    "more lines a chunk than lines": (one(bytes((RAW, 2)), shape=(2,)), errors.LimitError),
    "chunk longer than the payload": (one(bytes((RAW, 1)) + varint(1 << 40) * 2, shape=(2,)), errors.TruncatedError),
    "entries of chunks add up to less": (
        one(bytes((RAW | BLOCKS, 1)) + head(GAPS1) + bytes(4), form=SPARSE, shape=(2, 3), stored=1),
        errors.IndexRangeError,
    ),
    "entries of a chunk above the rest": (
        one(bytes((RAW | BLOCKS, 1)) + head(GAPS1) + bytes((2, 0, 0, 0)), form=SPARSE, shape=(2, 3), stored=1),
        errors.LimitError,
    ),
    "gap symbols above elements": (
        one(PACKED + head(GAPS1) + block(ONE) + varint(7), form=SPARSE, shape=(2, 3), stored=1),
        errors.LimitError,
    ),
    "gap symbols of no bits": (
        one(
            bytes((HUFFMAN | BLOCKS, 0)) + head(Bits().put(3, 0).put(2, 1).put(1, 1)) + b"\0" + varint(1 << 20),
            form=SPARSE,
            shape=(1 << 10, 1 << 10),
            stored=0,
        ),
        errors.StreamError,
    ),
    "last gap symbol an escape": (
        one(PACKED + head(GAPS1) + block(ONE) + bytes((2, 0b10)), form=SPARSE, shape=(2, 3), stored=1),
        errors.IndexRangeError,
    ),
    "gap past the end": (
        one(
            PACKED + head(Bits().put(3, 2)) + block(ONE) + bytes((1, 0b011)),
            form=SPARSE,
            shape=(1, 3),
            stored=1,
        ),
        errors.IndexRangeError,
    ),
    "filler that is no filler": (
        one(
            bytes((RAW | FILLERS, 0)) + head(Bits().put(8, 3).put(3, 0)) + bytes((2, 0b0010)),
            shape=(2, 3),
            stored=1,
            codebook_size=1,
            form=SPARSE_SHARED,
            dtype=INT8,
        ),
        errors.IndexRangeError,
    ),
    "a stored zero": (
        one(
            PACKED + head(GAPS1) + block(bytes(4)) + bytes((1, 0)),
            form=SPARSE,
            shape=(2, 3),
            stored=1,
        ),
        errors.EncodingError,
    ),
    "codebook id out of range": (three_codes(100, 3), errors.IndexRangeError),
    "codebook past the last value": (three_codes(254, 0), errors.CodebookError),
    "unfinished code": (code_lengths(0, [(0, 0), (0, 0)]), errors.HuffmanError),
    "code lengths 1, 2 and 1": (code_lengths(1, OVERFULL), errors.HuffmanError),
    "infinite grid": (
        one(bytes((ADAPTIVE, 0)) + Bits().put(1, 1).put(5, 0).put(8, 255).take(), shape=(1,)),
        errors.EncodingError,
    ),
    "dropped bits": (one(bytes((ADAPTIVE, 0)) + Bits().put(1, 0).put(5, 31).take(), shape=(1,)), errors.EncodingError),
    "payload into the next": (
        File([Entry(b"\0\0" + ONE, "a", length=12), Entry(b"\0\0" + ONE, "b", fresh=False, length=0)]).bytes(),
        errors.StreamError,
    ),
    "payload of 2^41": (one(ONE, length=1 << 41), errors.EncodingError),
    "payload beyond the file": (one(ONE, length=1 << 39), errors.TruncatedError),
    "no block to go on with": (one(ONE, fresh=False), errors.EncodingError),
    "large block of several": (
        File([Entry(bytes(2) + bytes(4 << 15), "a", shape=(1 << 15,)), Entry(bytes(6), "b", fresh=False)]).bytes(),
        errors.LimitError,
    ),
    "more tensors than bytes": (File(count=65536).bytes(), errors.TruncatedError),
    "too many tensors": (File(count=65537).bytes(), errors.LimitError),
    "duplicate names": (File([Entry(bytes(6), "a"), Entry(bytes(6), "a")]).bytes(), errors.DuplicateError),
    "no table": (File(contents=b"").bytes(), errors.EncodingError),
    "sections out of order": (File(sections=[(9, b""), (2, b"")], order=False).bytes(), errors.VersionError),
    "section beyond the contents": (File(contents=b"\1\7\0").bytes(), errors.TruncatedError),
    "section past the limit": (File(contents=b"\1" + varint((1 << 24) + 1)).bytes(), errors.LimitError),
    "labels of none": (File(sections=[(LABELS, b"\0")]).bytes(), errors.EncodingError),
    "more labels than bytes": (File(sections=[(LABELS, varint(65536))]).bytes(), errors.TruncatedError),
    "metadata keys twice": (File(sections=[(METADATA, b"\2\1a\0\1a\0")]).bytes(), errors.DuplicateError),
    "metadata keys descend": (File(sections=[(METADATA, b"\2\1b\0\1a\0")]).bytes(), errors.EncodingError),
    "self-test of no samples": (File(sections=[(SELF_TEST, b"\0\0" + bytes(8))]).bytes(), errors.EncodingError),
    "graph reads what comes later": (File(sections=[(GRAPH, b"\1\2\0\1\x23\2")]).bytes(), errors.GraphError),
    "graph adds one value": (File(sections=[(GRAPH, b"\1\2\0\1\x29\1\0")]).bytes(), errors.EncodingError),
    "graph adds nothing": (File(sections=[(GRAPH, b"\1\2\0\1\x29\0")]).bytes(), errors.GraphError),
    "graph of a missing tensor": (File(sections=[(GRAPH, b"\1\2\0\1\1\5")]).bytes(), errors.GraphError),
    "graph input too large": (
        File(sections=[(GRAPH, b"\3" + varint(1 << 40) * 3 + b"\0\1\3")]).bytes(),
        errors.ShapeError,
    ),
    "preprocessing beyond the section": (
        File(sections=[(GRAPH, b"\1\2" + varint(1 << 16))]).bytes(),
        errors.TruncatedError,
    ),
    "preprocessing divides by zero": (
        File(sections=[(GRAPH, b"\1\2\1" + ONE + bytes(4) + b"\1\3")]).bytes(),
        errors.GraphError,
    ),
    "pool without a stride": (
        File(sections=[(GRAPH, b"\3\1\4\4\0\1\x84\2\2\2\0\2\0\0\0\0\0")]).bytes(),
        errors.GraphError,
    ),
    "packed contents too long": (File(length=layout.CONTENTS_PACKED | (1 << 24) + 1).bytes(), errors.LimitError),
    "packed contents of 2^30": (
        File(contents=(c := Bits().put(5, 31).put(30, 0).take()), length=layout.CONTENTS_PACKED | len(c)).bytes(),
        errors.LimitError,
    ),
    "packed contents that take more memory than is allowed": (
        File(
            contents=(c := Bits().put(5, 23).put(22, 0).take() + bytes(400)), length=layout.CONTENTS_PACKED | len(c)
        ).bytes(),
        errors.MemoryLimitError,
    ),
    "packed contents of more bytes than they have decisions": (
        File(contents=(c := Bits().put(5, 23).put(22, 0).take()), length=layout.CONTENTS_PACKED | len(c)).bytes(),
        errors.StreamError,
    ),
    "packed contents that end early": (
        File(contents=(c := Bits().put(5, 14).put(13, 0).take()), length=layout.CONTENTS_PACKED | len(c)).bytes(),
        errors.StreamError,
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_named(name: str) -> None:
    data, kind = LIES[name]
    # The memory for contents of megabytes is counted before their stream turns out to be too short.
    assert isinstance(read(data, max_memory=2 << 30 if kind is errors.StreamError else MEMORY), kind)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
def test_values_in_no_bytes() -> None:
    """An empty stream is known to be too short before it is decoded."""
    error = read(one(bytes((ADAPTIVE, 0)), shape=(400_000,)), max_memory=32 << 20)
    assert isinstance(error, errors.StreamError) and "enough for 400,000 binary decisions" in str(error)


def test_concatenations_that_double_are_refused() -> None:
    """Three thousand operators each join a value with itself; computing the size would take a number of 3,000 bits."""
    node = b"\x2a\2\0\0"
    data = File(sections=[(GRAPH, b"\3\1\4\4\0" + varint(3000) + node * 3000)]).bytes()
    assert isinstance(read(data), errors.ShapeError)


def test_many_tensors_in_one_block_are_read_once_each() -> None:
    """Ten thousand tensors are in blocks of the largest size; the time to read one does not grow with the block."""
    file = File([Entry(bytes(6), f"{k}", fresh=k % 5000 == 0) for k in range(10_000)])
    with dcformat.open(file.bytes()) as opened:
        assert len(opened.names) == 10_000 and opened.tensor("9999").data.tolist() == [0.0]


def test_messages_stay_short() -> None:
    rule = struct.pack("<f", float("nan")) * 1999 + struct.pack("<f", 1.0)
    error = read(File(sections=[(GRAPH, b"\3" + varint(1000) + b"\1\1" + varint(1000) + rule + b"\1\3")]).bytes())
    assert isinstance(error, errors.GraphError) and len(str(error)) < 1000
