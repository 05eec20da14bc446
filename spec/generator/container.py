"""Valid and invalid vectors of the container: sections 1 to 5, 7 and 8 of the specification."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

from reference_reader import Tensor

from generator.assembler import (
    CONSTANT,
    COPY,
    DENSE,
    DENSE_SHARED,
    SPARSE,
    SPARSE_SHARED,
    Item,
    assemble,
    f32,
    section,
    table,
    text,
    varint,
)
from generator.packed import Packed

VALUES = [0x3FC00000, 0xC0000000, 0x40500000]
ONE = 0x3F800000
RAW = struct.pack("<3I", *VALUES)

#: A valid vector: name, requirements, bytes, and the tensors that it must decode to.
Valid = tuple[str, str, bytes, dict[str, Tensor]]
#: An invalid vector: name, code, requirements, bytes.
Invalid = tuple[str, str, str, bytes]


def valid(
    name: str, items: Sequence[Item] = (), sections: Sequence[tuple[int, bytes]] = (), ids: str = "", minor: int = 0
) -> Valid:
    """Return a valid vector of assembled tensors."""
    return name, ids, assemble(items, sections, minor=minor), {item.name: item.tensor() for item in items}


def constant(name: str = "a", shape: tuple[int, ...] = (4,), bits: int = 0x3FC00000, **kw: object) -> Item:
    """Return a constant tensor of 1.5."""
    return Item(b"\0" + bits.to_bytes(4, "little"), CONSTANT, shape, [bits], name=name, **kw)  # type: ignore[arg-type]


def dense(name: str = "a", shape: tuple[int, ...] = (3,), **kw: object) -> Item:
    """Return a dense tensor of three values under coder 0."""
    return Item(b"\0\0" + RAW, DENSE, shape, VALUES, name=name, **kw)  # type: ignore[arg-type]


def copy(name: str, back: int, original: Item | None = None) -> Item:
    """Return a copy of the tensor `back` tensors before it, not counting copies."""
    return Item(b"", name=name, back=back, original=original)


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
    yield valid("container_self_test", [dense()], [(2, graph((5,), op(RELU))), (5, test)], "S3")
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


def labels(*names: str) -> bytes:
    """Section 3: labels."""
    return varint(len(names)) + b"".join(map(text, names))


def metadata(*pairs: tuple[str, str]) -> bytes:
    """Section 3: metadata."""
    return varint(len(pairs)) + b"".join(text(key) + text(value) for key, value in pairs)


# ------------------------------------------------------------------------------------------------------ graphs


def ones(name: str, *shape: int) -> Item:
    """Return a constant tensor, or a dense one if it has a single element."""
    if shape == (1,):
        return Item(b"\0\0" + f32(1.0), DENSE, shape, [0x3F800000], name=name)
    return constant(name, shape, 0x3F800000)


def graph(
    shape: tuple[int, ...], *operators: bytes, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> bytes:
    """Section 5: input, preprocessing, operators."""
    head = bytes([len(shape)]) + b"".join(map(varint, shape)) + varint(len(mean)) + f32(*mean, *std)
    return head + varint(len(operators)) + b"".join(operators)


def op(kind: int, *numbers: int) -> bytes:
    """Section 5: an operator: `kind` with the bits of the head, then the varints."""
    return bytes([kind]) + b"".join(map(varint, numbers))


LINEAR, CONV, RELU, MAX, AVG, GLOBAL_AVG, GLOBAL_MAX, FLATTEN, ADD, CONCAT, SOFTMAX = range(1, 12)
WIRED, BIAS, SPELLED = 32, 64, 128


def valid_graphs() -> Iterator[Valid]:
    """Graphs with each operator, its attributes and its defaults."""

    def file(name: str, items: list[Item], body: bytes) -> Valid:
        return valid(f"graph_{name}", items, [(2, body)])

    yield file("no_operators", [], graph((5,)))
    for kind, name in ((RELU, "relu"), (SOFTMAX, "softmax"), (FLATTEN, "flatten")):
        yield file(f"{name}", [], graph((5,), op(kind)))
    for kind, name in (
        (MAX, "max_pool"),
        (AVG, "avg_pool"),
        (GLOBAL_AVG, "global_avg_pool"),
        (GLOBAL_MAX, "global_max_pool"),
    ):
        yield file(f"{name}", [], graph((2, 5, 7), op(kind)))
    for name, flags in (("ceil", 1), ("plain", 0)):
        pools = [op(MAX | SPELLED, 3, 2, 2, 3, 1, 0, flags)]
        yield file(f"max_pool_{name}", [], graph((2, 6, 7), *pools))
    for flags in (1, 2, 3):
        yield file(f"avg_pool_flags_{flags}", [], graph((2, 6, 7), op(AVG | SPELLED, 2, 3, 3, 2, 1, 1, flags)))
    yield file("pool_ceil_drops_last", [], graph((1, 5, 5), op(MAX | SPELLED, 2, 2, 4, 4, 1, 1, 1)))
    yield file("linear", [ones("w", 3, 5)], graph((5,), op(LINEAR, 0)))
    yield file("linear_bias", [ones("w", 3, 5), ones("b", 3)], graph((5,), op(LINEAR | BIAS, 0, 1)))
    yield file("conv", [ones("w", 4, 2, 3, 3)], graph((2, 6, 6), op(CONV, 0)))
    attributes = (2, 1, 1, 2, 1, 2, 2)
    body = graph((2, 6, 6), op(CONV | BIAS | SPELLED, 0, 1, *attributes))
    yield file("conv_attributes", [ones("w", 4, 1, 3, 2), ones("b", 4)], body)
    yield file("add", [], graph((5,), op(RELU), op(ADD | WIRED, 2, 0, 1)))
    yield file("add_same", [], graph((5,), op(ADD | WIRED, 3, 0, 0, 0)))
    yield file("concat", [], graph((2, 3, 3), op(RELU), op(CONCAT | WIRED, 2, 1, 0)))
    yield file("branch", [], graph((5,), op(RELU), op(SOFTMAX | WIRED, 1), op(ADD | WIRED, 2, 0, 1)))
    yield file("preprocessing_1", [], graph((3, 4, 4), op(FLATTEN), mean=(0.5,), std=(0.25,)))
    yield file("preprocessing_3", [], graph((3, 4, 4), mean=(0.5, -1.0, 0.0), std=(0.25, -2.0, 1.0)))
    yield file("preprocessing_flat", [], graph((5,), mean=(0.5,), std=(0.25,)))
    yield file("preprocessing_0_1", [], graph((3, 4, 4), mean=(0.0,), std=(1.0,)))
    yield file("preprocessing_equal_means", [], graph((3, 4, 4), mean=(0.5,) * 3, std=(0.25, 0.25, 0.5)))
    yield file("preprocessing_equal_deviations", [], graph((3, 4, 4), mean=(0.0, -0.0, 0.0), std=(1.0,) * 3))
    network = [op(CONV | BIAS, 0, 1), op(RELU), op(MAX), op(FLATTEN), op(LINEAR | BIAS, 2, 3), op(SOFTMAX)]
    items = [ones("conv.w", 3, 1, 3, 3), ones("conv.b", 3), ones("fc.w", 10, 12), ones("fc.b", 10)]
    yield valid("graph_network", items, [(2, graph((1, 6, 6), *network)), (3, labels(*"0123456789"))])


def invalid_graphs() -> Iterator[Invalid]:
    """Graphs that a decoder must reject."""
    weight, bias = ones("w", 3, 5), ones("b", 3)
    kernel, grouped = ones("k", 4, 2, 3, 3), ones("g", 4, 1, 3, 3)
    items = [weight, bias, kernel, grouped, Item(b"\0\0", DENSE, (0, 5), [], name="none")]
    inf = float("inf")
    image = (2, 6, 6)
    cases: list[tuple[str, str, str, bytes]] = [
        ("rank_2", "E08", "G1", graph((5, 5))),
        ("rank_0", "E08", "G1", graph(())),
        ("operator_0", "E08", "G2", graph((5,), op(0))),
        ("operator_12", "E08", "G2", graph((5,), op(12))),
        ("bias_of_relu", "E08", "G2", graph((5,), op(RELU | BIAS, 0))),
        ("attributes_of_linear", "E08", "G2", graph((5,), op(LINEAR | SPELLED, 0, 1))),
        ("flags_of_max_pool", "E08", "G2", graph(image, op(MAX | SPELLED, 2, 2, 2, 2, 0, 0, 2))),
        ("flags_of_avg_pool", "E08", "G2", graph(image, op(AVG | SPELLED, 2, 2, 2, 2, 0, 0, 4))),
        ("default_input", "E08", "G3", graph((5,), op(RELU | WIRED, 0))),
        ("default_pool", "E08", "G3", graph(image, op(MAX | SPELLED, 2, 2, 2, 2, 0, 0, 0))),
        ("default_conv", "E08", "G3", graph(image, op(CONV | SPELLED, 2, 1, 1, 0, 0, 1, 1, 1))),
        ("input_beyond", "E11", "G4", graph((5,), op(RELU | WIRED, 1))),
        ("input_beyond_add", "E11", "G4", graph((5,), op(RELU), op(ADD | WIRED, 2, 0, 2))),
        ("weight_beyond", "E11", "G4", graph((5,), op(LINEAR, 5))),
        ("bias_beyond", "E11", "G4", graph((5,), op(LINEAR | BIAS, 0, 5))),
        ("add_of_one", "E11", "G5", graph((5,), op(RELU), op(ADD | WIRED, 1, 1))),
        ("add_of_none", "E11", "G5", graph((5,), op(ADD | WIRED, 0))),
        ("add_unwired", "E11", "G5", graph((5,), op(ADD))),
        ("concat_unwired", "E11", "G5", graph((5,), op(CONCAT))),
        ("input_of_nothing", "E09", "G6", graph((0,))),
        ("input_too_large", "E09", "G6", graph((1 << 20, 1 << 20, 2))),
        ("linear_weight_rank", "E09", "G6", graph((5,), op(LINEAR, 2))),
        ("linear_weight_empty", "E09", "G6", graph((5,), op(LINEAR, 4))),
        ("linear_input", "E09", "G6", graph((6,), op(LINEAR, 0))),
        ("linear_input_rank", "E09", "G6", graph((5, 1, 1), op(LINEAR, 0))),
        ("linear_bias", "E09", "G6", graph((5,), op(LINEAR | BIAS, 0, 0))),
        ("conv_weight_rank", "E09", "G6", graph(image, op(CONV, 0))),
        ("conv_input_rank", "E09", "G6", graph((5,), op(CONV, 2))),
        ("conv_channels", "E09", "G6", graph((3, 6, 6), op(CONV, 2))),
        ("conv_groups", "E09", "G6", graph((3, 6, 6), op(CONV | SPELLED, 3, 1, 1, 0, 0, 1, 1, 3))),
        ("conv_groups_0", "E09", "G6", graph(image, op(CONV | SPELLED, 2, 1, 1, 0, 0, 1, 1, 0))),
        ("conv_window", "E09", "G6", graph((2, 2, 6), op(CONV, 2))),
        ("conv_dilated_window", "E09", "G6", graph(image, op(CONV | SPELLED, 2, 1, 1, 0, 0, 1, 3, 1))),
        ("pool_input_rank", "E09", "G6", graph((5,), op(MAX))),
        ("pool_window", "E09", "G6", graph((2, 1, 6), op(AVG))),
        ("global_pool_input_rank", "E09", "G6", graph((5,), op(GLOBAL_AVG))),
        ("softmax_rank", "E09", "G6", graph(image, op(SOFTMAX))),
        ("add_shapes", "E09", "G6", graph(image, op(FLATTEN), op(ADD | WIRED, 2, 0, 1))),
        ("concat_shapes", "E09", "G6", graph(image, op(MAX), op(CONCAT | WIRED, 2, 0, 1))),
        ("value_too_large", "E09", "G6", graph((1 << 39,), op(CONCAT | WIRED, 3, 0, 0, 0))),
        ("preprocessing_count", "E09", "G7", graph((3, 4, 4), mean=(0.0, 1.0), std=(1.0, 2.0))),
        ("preprocessing_flat", "E09", "G7", graph((5,), mean=(0.0, 1.0, 2.0, 3.0, 4.0), std=(1.0,) * 5)),
        ("preprocessing_equal", "E08", "G9", graph((3, 4, 4), mean=(0.5,) * 3, std=(0.25,) * 3)),
        ("preprocessing_infinite", "E11", "G7", graph((5,), mean=(inf,), std=(1.0,))),
        ("preprocessing_std_nan", "E11", "G7", graph((5,), mean=(0.0,), std=(inf - inf,))),
        ("preprocessing_std_0", "E11", "G7", graph((5,), mean=(0.0,), std=(-0.0,))),
        ("conv_stride_0", "E11", "G8", graph(image, op(CONV | SPELLED, 2, 1, 0, 0, 0, 1, 1, 1))),
        ("conv_dilation_0", "E11", "G8", graph(image, op(CONV | SPELLED, 2, 1, 1, 0, 0, 0, 1, 1))),
        ("pool_kernel_0", "E11", "G8", graph(image, op(MAX | SPELLED, 0, 2, 2, 2, 0, 0, 0))),
        ("pool_stride_0", "E11", "G8", graph(image, op(AVG | SPELLED, 2, 2, 2, 0, 0, 0, 0))),
        ("pool_padding", "E11", "G8", graph(image, op(MAX | SPELLED, 3, 3, 1, 1, 2, 1, 0))),
        ("operators", "E06", "N2", graph((5,))[:-1] + varint((1 << 16) + 1)),
        ("inputs", "E06", "N2", graph((5,), op(ADD | WIRED, 65, *[0] * 65))),
        ("attribute", "E06", "N2", graph(image, op(MAX | SPELLED, 2, 2, (1 << 16) + 1, 2, 0, 0, 0))),
        ("ends_early", "E03", "N4", graph(image, op(MAX | SPELLED, 2, 2, 2, 2, 0, 0))),
        ("goes_on", "E04", "N5", graph((5,)) + b"\0"),
    ]
    for name, code, ids, body in cases:
        yield f"graph_{name}", code, ids, assemble(items, [(2, body)])


# ---------------------------------------------------------------------------------------- invalid: container


def invalid_container() -> Iterator[Invalid]:
    """Files that a decoder must reject by the rules of sections 1 to 3, 7 and 8."""
    good = assemble([dense()], [(3, labels("x"))])
    start = struct.unpack_from("<I", good, 6)[0] + 14
    yield "file_empty", "E01", "F1", b""
    yield "file_magic", "E01", "F1", b"\x88" + good[1:]
    yield "file_magic_cut", "E03", "F1 N4", good[:3]
    yield "file_major", "E02", "F2", good[:4] + b"\2" + good[5:]
    yield "file_contents_length", "E06", "F4", good[:6] + struct.pack("<I", (1 << 24) + 1) + good[10:]
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

    def bad(name: str, code: str, ids: str, *sections: tuple[int, bytes], tail: bytes = b"") -> Invalid:
        contents = b"".join(section(kind, body) for kind, body in sections)
        return name, code, ids, assemble([dense()], sections, contents=contents + tail)

    first = (1, table([dense()]))
    lab = (3, labels("x"))
    some = (2, graph((5,), op(RELU)))
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
    yield bad("section_unknown", "E02", "C4", first, (6, b""))
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
    yield lying("form_5", "E08", "T2", dense(), kind=b"\x25")
    yield lying("form_7", "E08", "T2", dense(), kind=b"\x27")
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
    yield "tensor_count_limit", "E06", "N2", assemble(contents=section(1, varint((1 << 16) + 1)))
    yield "tensor_table_ends_early", "E03", "N4", assemble(contents=section(1, varint(2) + dense().line(True)))
    large = [1] * 8192
    raw = struct.pack("<8192I", *large)
    halves = [Item(b"\0\0" + raw, DENSE, (8192,), large, name=name) for name in "ab"]
    yield "tensor_block_too_long", "E06", "T15", assemble(halves)
    for name, bits in (("infinite", 0x7F800000), ("nan", 0xFFC00001)):
        item = Item(b"\0\0" + bits.to_bytes(4, "little"), DENSE, (1,), [bits])
        yield f"value_dense_{name}", "E08", "T12", assemble([item])
        yield f"value_constant_{name}", "E08", "T12", assemble([constant(bits=bits)])
    half = Item(b"\0\0\0\x7c", DENSE, (1,), [0x7C00], dtype="float16")
    yield "value_float16_infinite", "E08", "T12", assemble([half])
    brain = Item(b"\0\0\x80\x7f", DENSE, (1,), [0x7F80], dtype="bfloat16")
    yield "value_bfloat16_infinite", "E08", "T12", assemble([brain])


def invalid_dense_payloads() -> Iterator[Invalid]:
    """Payloads without a codebook under coder 0: coding byte, chunking, values."""

    def raw(name: str, code: str, ids: str, payload: bytes, shape: tuple[int, ...] = (3,)) -> Invalid:
        return f"payload_{name}", code, ids, assemble([Item(payload, DENSE, shape, VALUES)])

    for byte, what in ((1, "coder_1"), (2, "coder_2"), (3, "coder_3"), (16, "transposed"), (32, "every_element"),
                       (64, "fillers"), (128, "reserved_bit")):  # fmt: skip
        item = Item(bytes([byte]) + RAW[:4], CONSTANT, (4,), VALUES[:1])
        yield f"payload_constant_{what}", "E08", "P2", assemble([item])
    yield "payload_constant_short", "E13", "P10", assemble([Item(b"\0" + RAW[:3], CONSTANT, (4,), VALUES[:1])])
    yield "payload_constant_long", "E13", "P10", assemble([Item(b"\0" + RAW[:5], CONSTANT, (4,), VALUES[:1])])
    yield raw("coder_4", "E02", "P1", b"\4\0" + RAW)
    yield raw("coder_15", "E02", "P1", b"\x0f\0" + RAW)
    yield raw("reserved_bit", "E08", "P2", b"\x80\0" + RAW)
    yield raw("dense_coder_1", "E08", "P2", b"\1\0" + RAW)
    yield raw("dense_coder_3", "E08", "P2", b"\3\0" + RAW)
    yield raw("dense_transposed", "E08", "P2", b"\x10\0" + RAW)
    yield raw("dense_every_element", "E08", "P2", b"\x20\0" + RAW)
    yield raw("dense_fillers", "E08", "P2", b"\x40\0" + RAW)
    yield raw("empty", "E03", "N4", b"")
    yield raw("lines_in_a_chunk", "E06", "N2", b"\0\3" + RAW)
    yield raw("chunk_table_ends_early", "E03", "N4", b"\0\2" + varint(8) + b"\x84")
    yield raw("more_chunks_than_bytes", "E06", "P11", b"\0\2" + varint(8))
    yield raw("chunk_ends_early", "E03", "N4", b"\0\2" + varint(8) + varint(5) + RAW)
    yield raw("chunks_go_on", "E04", "N5", b"\0\2" + varint(8) + varint(4) + RAW + b"\0")
    yield raw("values_short", "E13", "P10", b"\0\0" + RAW[:-1])
    yield raw("values_long", "E13", "P10", b"\0\0" + RAW + b"\0")
    yield raw("chunk_short", "E13", "P10", b"\0\2" + varint(7) + varint(5) + RAW)
    many = [1] * 17
    payload = b"\0\1" + varint(4) * 17 + struct.pack("<17I", *many)
    yield "payload_too_many_chunks", "E06", "P11", assemble([Item(payload, DENSE, (17,), many)])
