"""Valid and invalid vectors of the container: sections 1 to 5, 7 and 8 of the specification."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from generator.assembler import (
    COPY,
    DENSE,
    DENSE_SHARED,
    SPARSE,
    SPARSE_SHARED,
    Item,
    assemble,
    f32,
    labels,
    metadata,
    section,
    table,
    text,
    varint,
)
from generator.graph_bytes import Op, graph, op
from generator.packed import Packed
from generator.samples import ONE, RAW, VALUES, Invalid, Valid, constant, copy, dense, valid

# ------------------------------------------------------------------------------------------ valid: container


def valid_container() -> Iterator[Valid]:
    """Files of each feature of sections 2 to 4."""
    yield valid("container_empty")
    yield valid("container_minor_version", [dense()], ids="F3", minor=255)
    yield valid("container_blocks_shared", [dense(), constant("b"), dense("c")])
    yield valid("container_blocks_separate", [dense(), constant("b", begins=True), dense("c", begins=True)])
    yield valid(
        "container_ignorable_sections", [dense()], [(3, labels("yes")), (131, b"\0\xff kept"), (255, b"")], "C3"
    )
    yield valid("container_labels", [dense()], [(3, labels("zero", "", "deux", "ねこ"))])
    yield valid("container_metadata", [dense()], [(4, metadata(("a", ""), ("recipe", "x" * 300), ("zebra", "ö")))])
    test = varint((1 << 32) - 1) + varint(1024) + bytes(range(8))
    yield valid("container_self_test", [dense()], [(2, graph((5,), op(Op.RELU))), (5, test)], "S3")
    yield valid("tensor_name_longest", [dense("ñ" * 127 + "x"), dense("\0")])
    yield valid("tensor_rank_0", [Item(b"\0\0" + RAW[:4], DENSE, (), VALUES[:1])])
    yield valid("tensor_rank_7", [dense(shape=(1, 1, 1, 1, 1, 1, 3))])
    yield valid("tensor_size_0", [Item(b"\0\0", DENSE, (3, 0, 1 << 37), [])])
    yield valid("tensor_constant_2_40", [constant(shape=(1 << 20, 1 << 20))])
    yield valid("tensor_constant_negative_zero", [constant(bits=1 << 31)])
    yield valid("tensor_constant_zero", [constant(bits=0, shape=(2, 2))])
    yield valid("tensor_dense_zeros", [Item(b"\0\0" + f32(0.0, -0.0, 1e-45), DENSE, (3, 1), [0, 1 << 31, 1])])
    yield valid("tensor_dense_chunks", [Item(b"\0\2" + varint(8) + varint(4) + RAW, DENSE, (3,), VALUES)])
    first, second = dense(), constant("b")
    items = [first, copy("c", 1, first), second, copy("d", 1, second), copy("e", 2, first), dense("f", begins=True)]
    yield valid("tensor_copies", items, ids="T16 T17")
    whole = Item(b"\0\0\1\2\3", DENSE, (3,), [1, 2, 3], dtype="int8", scale=0.5)
    yield valid("tensor_copy_of_int8", [whole, copy("b", 1, whole)])
    most = [i << 8 for i in range(16)]
    raw = b"\0\1" + varint(4) * 16 + struct.pack("<16I", *most)
    yield valid("tensor_dense_most_chunks", [Item(raw, DENSE, (16, 1), most)])


# ---------------------------------------------------------------------------------------- invalid: container


def invalid_container() -> Iterator[Invalid]:
    """Files that a decoder must reject by the rules of sections 1 to 3, 7 and 8."""
    yield from invalid_files()
    yield from invalid_sections()


def invalid_files() -> Iterator[Invalid]:
    """Files whose prefix, length, checksums or digest a decoder must reject."""
    good = assemble([dense()], [(3, labels("x"))])
    start = struct.unpack_from("<I", good, 6)[0] + 14
    yield "file_empty", "E01", "F1", b""
    yield "file_magic", "E01", "F1", b"\x88" + good[1:]
    yield "file_magic_cut", "E03", "F1 N4", good[:3]
    yield "file_major", "E02", "F2", good[:4] + b"\2" + good[5:]
    yield "file_contents_length", "E06", "F4", good[:6] + struct.pack("<I", (1 << 24) + 1) + good[10:]
    yield "file_contents_most", "E03", "F4 N4", good[:6] + struct.pack("<I", 1 << 24) + good[10:]
    yield "file_packed_length", "E06", "F4", good[:6] + struct.pack("<I", (1 << 31) + (1 << 24) + 1) + good[10:]
    yield "file_cut_in_digest", "E03", "F5", good[:-1]
    yield "file_cut_in_block", "E03", "F5", good[: start + 5]
    yield "file_cut_in_prefix", "E03", "N4", good[:9]
    yield "file_cut_in_contents", "E03", "N4", good[:12]
    yield "file_too_long", "E04", "F5", good + b"\0"
    for name, at in (("prefix", 5), ("contents", 12), ("contents_checksum", start - 1), ("block", start + 4)):
        yield f"checksum_{name}", "E05", "F6", flipped(good, at)
    yield "checksum_of_block", "E05", "F6", flipped(good, len(good) - 9)
    yield "digest", "E05", "D1", flipped(good, len(good) - 1)
    yield "digest_values", "E05", "D1", assemble([dense()], digest=assemble([constant()])[-8:])


def invalid_sections() -> Iterator[Invalid]:
    """Files with a section that a decoder must reject, or whose sections do not fit each other."""

    def bad(name: str, code: str, ids: str, *sections: tuple[int, bytes], tail: bytes = b"") -> Invalid:
        contents = b"".join(section(kind, body) for kind, body in sections)
        return name, code, ids, assemble([dense()], sections, contents=contents + tail)

    first = (1, table([dense()]))
    lab = (3, labels("x"))
    some = (2, graph((5,), op(Op.RELU)))
    yield bad("varint_long_form", "E08", "N1", first, tail=b"\3\x83\0\1\1x")
    yield bad("varint_seven_bytes", "E08", "N1", first, tail=b"\3\x83\x80\x80\x80\x80\x80\0")
    yield bad("varint_seven_bytes_of_7", "E08", "N1", first, tail=b"\3\x83\x80\x80\x80\x80\x80\1")
    yield bad("varint_limit", "E06", "N2", first, (3, varint((1 << 16) + 1)))
    yield bad("section_limit", "E06", "N2", first, tail=b"\3" + varint((1 << 24) + 1))
    yield bad("label_limit", "E06", "N2", first, (3, varint(1) + varint(1025) + b"x" * 1025))
    yield bad("metadata_limit", "E06", "N2", first, (4, varint(1025)))
    yield bad("metadata_key_limit", "E06", "N2", first, (4, metadata(("k" * 256, ""))))
    yield bad("samples_limit", "E06", "N2", first, some, (5, varint(1) + varint(1025) + bytes(8)))
    yield bad("seed_limit", "E06", "N2", first, some, (5, varint(1 << 32) + varint(1) + bytes(8)))
    for name, raw in (
        ("latin_1", b"\xe9"),
        ("overlong", b"\xc0\xaf"),
        ("surrogate", b"\xed\xa0\x80"),
        ("cut", b"\xe2\x82"),
    ):
        yield bad(f"text_{name}", "E08", "N3", first, (3, varint(1) + varint(len(raw)) + raw))
    yield bad("section_ends_early", "E03", "N4", first, (3, varint(2) + text("x")))
    yield bad("section_longer_than_contents", "E03", "N4", first, tail=b"\3\x05\1\1x")
    yield bad("section_without_length", "E03", "N4", first, tail=b"\3")
    yield bad("table_goes_on", "E04", "N5", (1, first[1] + b"\0"))
    yield bad("labels_go_on", "E04", "N5", first, (3, labels("x") + b"\0"))
    yield bad("metadata_goes_on", "E04", "N5", first, (4, metadata(("k", "")) + b"\0"))
    yield bad("self_test_goes_on", "E04", "N5", first, some, (5, b"\1\1" + bytes(9)))
    yield bad("sections_descend", "E08", "C1", first, (4, metadata(("k", ""))), lab)
    yield bad("section_twice", "E10", "C2", first, lab, lab)
    yield bad("section_unknown", "E02", "C4", first, (7, b""))
    yield bad("section_unknown_127", "E02", "C4", first, (127, b""))
    yield bad("section_0", "E02", "C4", (0, b""), first)
    yield bad("table_missing", "E08", "C5", lab)
    yield bad("contents_of_nothing", "E08", "C5")
    yield bad("labels_none", "E08", "C6", first, (3, labels()))
    yield bad("metadata_none", "E08", "C6", first, (4, metadata()))
    yield bad("keys_descend", "E08", "C7", first, (4, metadata(("z", ""), ("b", ""))))
    yield bad("keys_descend_in_bytes", "E08", "C7", first, (4, metadata(("\U00010000", ""), ("\uffff", ""))))
    yield bad("key_twice", "E10", "C8", first, (4, metadata(("k", "1"), ("k", "2"))))
    yield bad("key_empty", "E08", "C9", first, (4, metadata(("", "1"))))
    yield bad("samples_0", "E08", "S2", first, some, (5, b"\1\0" + bytes(8)))
    yield bad("self_test_without_graph", "E08", "S3", first, (5, b"\1\1" + bytes(8)))


def flipped(data: bytes, at: int) -> bytes:
    """Return the data with the lowest bit of one byte flipped."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# ------------------------------------------------------------------------------------- invalid: tensor table


def invalid_table() -> Iterator[Invalid]:
    """Files whose tensor table a decoder must reject."""

    def lying(vector: str, code: str, ids: str, item: Item, **lies: bytes) -> Invalid:
        item.lies = lies
        return f"tensor_{vector}", code, ids, assemble([item])

    yield "tensor_name_twice", "E10", "T1", assemble([dense(), constant("b"), dense()], digest=bytes(8))
    yield lying("form_6", "E08", "T2", dense(), kind=b"\x26")
    yield lying("dimension", "E06", "N2", dense(), shape=varint((1 << 40) + 1))
    yield lying("elements", "E09", "T5", dense(shape=(3, 1)), shape=varint(1 << 40) + varint(2))
    yield lying("elements_beside_0", "E09", "T5", dense(shape=(3, 1, 1)), shape=varint(1 << 40) + varint(2) + b"\0")
    big = b"\xff\xff\xff\xff\xff\x1f"
    yield lying("elements_overflow", "E09", "T5", dense(shape=(1, 1, 3)), shape=big * 3)
    yield lying("constant_of_one", "E08", "T6", constant(), shape=b"\1")
    yield lying("constant_of_none", "E08", "T6", constant(), shape=b"\0")
    sparse = Item(bytes(4), SPARSE, (2, 3), [], [])
    yield lying("entries", "E09", "T7", sparse, stored=b"\7")
    for form, name in ((DENSE_SHARED, "dense"), (SPARSE_SHARED, "sparse")):
        item = Item(bytes(4), form, (2, 3), [0] * 6, [] if form == SPARSE_SHARED else None, codebook=1)
        yield lying(f"codebook_0_{name}", "E08", "T8", item, codebook=b"\0")
    item = Item(bytes(4), SPARSE_SHARED, (2, 3), [], [], codebook=1)
    yield lying("codebook_limit", "E06", "N2", item, codebook=varint((1 << 16) + 1))
    for name, scale in (("0", 0.0), ("negative", -1.0), ("infinite", float("inf")), ("nan", float("nan"))):
        item = Item(b"\0\0\1\2\3", DENSE, (3,), [1, 2, 3], dtype="int8", scale=scale)
        yield f"tensor_scale_{name}", "E08", "T9", assemble([item])
    yield lying("block_of_none", "E08", "T10", dense(), length=varint(2 * 14))
    yield lying("name_empty", "E08", "T14", dense(), name=b"\0")
    yield lying("name_limit", "E06", "N2", dense(), name=varint(256) + b"n" * 256)
    yield lying("memory", "E07", "T11", dense(), shape=varint(1 << 40))
    bomb = Packed((3,), dict.fromkeys(range(3), ONE), DENSE_SHARED).item()
    yield lying("memory_of_nothing", "E07", "T11", bomb, shape=varint(1 << 40))
    yield from invalid_copies()
    yield "tensor_count_limit", "E06", "N2", assemble(contents=section(1, varint((1 << 16) + 1)))
    yield "tensor_table_ends_early", "E03", "N4", assemble(contents=section(1, varint(2) + dense().line(True)))
    large = [1] * 8192
    raw = struct.pack("<8192I", *large)
    halves = [Item(b"\0\0" + raw, DENSE, (8192,), large, name=name) for name in "ab"]
    yield "tensor_block_too_long", "E06", "T15", assemble(halves)


def invalid_copies() -> Iterator[Invalid]:
    """Files with copies of nothing, and with copies whose kind says more than that."""
    for name, items in (
        ("first", [copy("a", 1)]),
        ("of_itself", [dense(), copy("b", 0)]),
        ("beyond_the_table", [dense(), copy("b", 2)]),
        ("among_copies", [dense(), copy("b", 1), copy("c", 2)]),
    ):
        yield f"tensor_copy_{name}", "E14", "T17", assemble(items, digest=bytes(8))
    yield "tensor_copy_limit", "E06", "N2", assemble([dense(), copy("b", (1 << 16) + 1)], digest=bytes(8))
    for name, kind in (("dtype", COPY | 1 << 3), ("rank", COPY | 1 << 5)):
        item = replace(copy("b", 1), lies={"kind": bytes([kind])})
        yield f"tensor_copy_kind_{name}", "E08", "T16", assemble([dense(), item], digest=bytes(8))
