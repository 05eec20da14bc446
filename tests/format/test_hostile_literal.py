"""One file for each class of error, assembled by hand; the message is part of the interface."""

from __future__ import annotations

import struct

import pytest

import dcformat
from dcformat import errors
from dcformat.errors import FormatError
from tests.format.assembler import (
    BLOCKS,
    BOOL,
    GRAPH,
    HUFFMAN,
    INT8,
    MIXING,
    PLANES,
    RAW,
    SPARSE,
    SPARSE_SHARED,
    TABLES,
    Bits,
    Entry,
    File,
    block,
    one,
    raw_dense,
    text,
)

ONE = struct.pack("<f", 1.0)
#: A head of coder 0 for a sparse tensor without a codebook whose gap symbols have two bits.
GAPS2 = text(Bits().put(3, 1).take())


def good() -> File:
    return File([raw_dense(ONE + struct.pack("<f", -2.5), shape=(2,))])


def sparse(gaps: bytes, values: bytes, *, stored: int, shape: tuple[int, ...] = (2, 3)) -> bytes:
    return one(bytes((RAW | BLOCKS, 0)) + GAPS2 + block(values) + gaps, form=SPARSE, shape=shape, stored=stored)


def test_the_assembler_makes_valid_files() -> None:
    assert dcformat.load(good().bytes()).tensors["w"].data.tolist() == [1.0, -2.5]
    # Gap symbols 2, 3 (an escape: three zeros) and 0 take two bits each, the first bit lowest in the byte.
    tensor = dcformat.load(sparse(b"\x03" + bytes((0b00_11_01,)), ONE + ONE, stored=2, shape=(2, 4))).tensors["w"]
    assert tensor.to_dense().tolist() == [[0, 0, 1, 0], [0, 0, 1, 0]]


def test_a_minimal_file_is_these_bytes() -> None:
    import numpy as np

    from dcformat.model import Model, Tensor

    empty = (
        bytes.fromhex("89444346 01 00 03000000 010100") + bytes.fromhex("9cf7060e") + bytes.fromhex("e3b0c44298fc1c14")
    )
    assert dcformat.dumps(Model({})) == empty
    made = dcformat.dumps(Model({"w": Tensor("w", (2,), "float32", np.array([1.0, -2.5], "<f4"))}))
    assert made == bytes.fromhex(TWO_VALUES)
    for data in (made, bytes.fromhex(TWO_VALUES_RAW)):
        dcformat.verify(data)
        assert dcformat.load(data).tensors["w"].data.tolist() == [1.0, -2.5]


#: Magic; version; length; section 1 of 6 bytes: one tensor, "w", dense float32 of rank 1, 2 elements, a new block; CRC;
#: coder 2, one chunk, values as a grid; CRC; digest.
TWO_VALUES = "89444346 01 00 08000000 010601017721020d 73d0463d 02007e05458e 18da6e9c fd12fbac2776577b"
#: The same values uncoded, under coder 0.
TWO_VALUES_RAW = "89444346 01 00 08000000 0106010177210215 d34fc1a7 00000000803f000020c0 2a5348ba fd12fbac2776577b"

CASES: dict[str, tuple[type[FormatError], bytes, int | None, str, str, str]] = {
    "E01 magic": (errors.NotDcfError, b"PK\3\4" + bytes(30), 0, "magic", "504b0304000000000000", "89444346"),
    "E01 nothing": (errors.NotDcfError, b"", 0, "magic", "an empty file", "89444346"),
    "E02 major": (errors.VersionError, File(major=2).bytes(), 4, "major version", "2", "1"),
    "E02 section": (
        errors.VersionError,
        File(sections=[(9, b"")]).bytes(),
        13,
        "section",
        "9",
        "a section that version 1 requires",
    ),
    "E02 coder": (errors.VersionError, one(b"\7\0" + ONE), 22, "coder", "7", "below 7"),
    "E03 prefix": (errors.TruncatedError, good().bytes()[:9], 0, "prefix", "9 bytes", "10"),
    "E03 end": (errors.TruncatedError, good().bytes()[:-1], 43, "file", "43 bytes", "44"),
    "E03 table": (errors.TruncatedError, File(count=1).bytes(), 13, "length of tensor name", "0 bytes", "1 byte"),
    "E04 end": (errors.TrailingDataError, good().bytes() + b"\0", 44, "file", "45 bytes", "44"),
    "E04 table": (
        errors.TrailingDataError,
        File([raw_dense(ONE)], count=0).bytes(),
        13,
        "tensor table",
        "5 bytes more",
        "None",
    ),
    "E05 contents": (
        errors.ChecksumError,
        good().bytes()[:5] + b"\1" + good().bytes()[6:],
        18,
        "CRC-32C of contents",
        "",
        "",
    ),
    "E05 block": (
        errors.ChecksumError,
        good().bytes()[:24] + b"\1" + good().bytes()[25:],
        32,
        "CRC-32C of data block 0 (tensor 'w')",
        "",
        "",
    ),
    "E05 digest": (errors.ChecksumError, good().bytes(), None, "content digest", "", "0000000000000000"),
    "E06 name": (errors.LimitError, one(ONE, name="n" * 256), 14, "length of tensor name", "256", "at most 255"),
    "E06 contents": (
        errors.LimitError,
        File(length=(1 << 24) + 1).bytes(),
        6,
        "contents length",
        "16777217",
        "a length within the limit",
    ),
    "E07": (
        errors.MemoryLimitError,
        one(ONE, form=SPARSE, shape=(1 << 40, 1), stored=0),
        None,
        "tensors",
        "8,796,093,023,240 bytes",  # `indptr`, and the tensor's objects
        "at most 4,294,967,296 (max_memory)",
    ),
    "E08 varint": (
        errors.EncodingError,
        File(contents=b"\1\x82\0\0\0").bytes(),
        11,
        "section length",
        "an overlong varint",
        "the shortest form",
    ),
    "E08 long varint": (
        errors.EncodingError,
        File(contents=b"\1" + b"\xff" * 7).bytes(),
        11,
        "section length",
        "a varint over 6 bytes",
        "None",
    ),
    "E08 form": (errors.EncodingError, one(ONE, form=6), 15, "tensor form", "6", "below 6"),
    "E08 copy": (errors.EncodingError, one(ONE, form=5), 15, "kind of a copy", "37", "5"),
    "E08 UTF-8": (
        errors.EncodingError,
        one(ONE, name=b"\xed\xa0\x80"),
        14,
        "tensor name",
        "invalid bytes",
        "UTF-8 text",
    ),
    "E08 coding": (errors.EncodingError, one(b"\x80\0" + ONE), 22, "coding byte", "0x80", "one for a dense tensor"),
    "E08 padding": (errors.EncodingError, sparse(b"\1\x04", ONE, stored=1), 24, "padding", "bits set", "zero bits"),
    "E08 bool": (
        errors.EncodingError,
        File([raw_dense(b"\2", dtype=BOOL)]).bytes(),
        23,
        "values",
        "2",
        "0 or 1 for each bool",
    ),
    "E08 frequencies": (
        errors.EncodingError,
        one(bytes((PLANES, 0)) + bytes(3) + b"\2\0" + text(Bits().take()) + bytes(7)),
        22,
        "frequencies of values of 'w'",
        "a sum of 8388352",
        "4096",
    ),
    "E08 axis": (
        errors.EncodingError,
        one(bytes((PLANES, 0)) + bytes(3) + b"\x16\1\0\0", shape=(4,)),
        22,
        "axis of values of 'w'",
        "0 x 1",
        "a divisor of 4",
    ),
    "E08 tables": (errors.EncodingError, one(bytes((TABLES, 2))), 22, "kind of tables of 'w'", "2", "one for float32"),
    "E09 product": (
        errors.ShapeError,
        one(ONE, shape=(1 << 21, 1 << 20)),
        15,
        "shape",
        "(2097152, 1048576)",
        "at most 1099511627776 elements",
    ),
    "E09 stored": (
        errors.ShapeError,
        one(ONE, form=SPARSE, shape=(2, 3), stored=7),
        18,
        "entries",
        "7",
        "at most 6",
    ),
    "E10 name": (
        errors.DuplicateError,
        File([raw_dense(ONE), raw_dense(ONE)]).bytes(),
        18,
        "tensor name",
        "'w'",
        "each once",
    ),
    "E10 section": (
        errors.DuplicateError,
        File(sections=[(200, b""), (200, b"")]).bytes(),
        15,
        "section",
        "200",
        "each once",
    ),
    "E11 tensor": (
        errors.GraphError,
        File(sections=[(GRAPH, b"\1\2\0\1\1\0")]).bytes(),
        None,
        "node 0 (linear) weight",
        "0",
        "less than 0",
    ),
    "E11 itself": (
        errors.GraphError,
        File(sections=[(GRAPH, b"\1\2\0\1\x23\1")]).bytes(),
        None,
        "node 0 (relu) input",
        "-1",
        "0 to 0",
    ),
    "E12": (
        errors.HuffmanError,
        one(bytes((HUFFMAN | BLOCKS, 0)) + text(Bits().put(3, 0).put(2, 3).take()) + b"\0", form=SPARSE, shape=(2, 3)),
        24,
        "gap code lengths",
        "a Kraft sum of 0/4096",
        "exactly 1",
    ),
    "E13 values": (errors.StreamError, one(b"\0\0" + ONE + b"\0"), 22, "values", "5 bytes", "4 bytes"),
    "E13 gaps": (
        errors.StreamError,
        sparse(b"\0", ONE, stored=1),
        24,
        "gap symbols",
        "0",
        "1, and at most one more for each bit",
    ),
    "E14 gap": (
        errors.IndexRangeError,
        sparse(b"\2" + bytes((0b00_11,)), ONE, stored=1, shape=(1, 3)),
        24,
        "positions",
        "gaps that do not fit",
        "1 entry in 1 line",
    ),
    "E15": (
        errors.CodebookError,
        one(
            bytes((RAW, 0)) + text(Bits().put(8, 128).put(3, 1).take()) + b"\0",
            form=SPARSE_SHARED,
            dtype=INT8,
            shape=(2, 3),
        ),
        29,
        "codebook",
        "a zero",
        "no zero in a sparse tensor's codebook",
    ),
    "E16": (
        errors.WorkLimitError,
        # Each has 2^26 cells, which coder 3 visits one by one.
        File(
            [Entry(bytes((MIXING, 0)), f"{k}", form=SPARSE_SHARED, shape=(8192, 8192), stored=1) for k in range(512)]
        ).bytes(),
        None,
        "decoding all tensors",
        "",
        "at most 1,099,511,627,776 (max_work)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_error_says_what_is_wrong_and_where(name: str) -> None:
    kind, data, offset, field, got, expected = CASES[name]
    with pytest.raises(FormatError) as caught:
        if name == "E05 digest":
            dcformat.verify(data)
        dcformat.load(data)
    error = caught.value
    assert type(error) is kind
    assert error.code == name[:3] and error.offset == offset and error.field == field
    assert (got or str(error.got)) == str(error.got) and (expected or str(error.expected)) == str(error.expected)
    assert str(error).startswith(f"{error.headline}: {field}") and str(error).endswith(f" [{error.code}]")
    assert "\n" not in str(error)


def test_every_class_has_a_case() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FormatError)}
    # Other tests cover deltas that do not fit their base.
    assert {case[0] for case in CASES.values()} == kinds - {FormatError, errors.BaseError, errors.DeltaError}
    assert len({kind.code for kind in kinds}) == len(kinds) == 19
