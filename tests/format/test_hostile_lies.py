"""Well-formed files that state false counts, sizes, places and codes behind correct checksums."""

from __future__ import annotations

import struct
import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dcformat
from dcformat import errors, jit, layout
from dcformat.errors import FormatError
from tests.format.assembler import (
    ADAPTIVE,
    CONSTANT,
    DENSE,
    DENSE_SHARED,
    EVERY_ELEMENT,
    FILLERS,
    GRAPH,
    HUFFMAN,
    INT8,
    LABELS,
    METADATA,
    MIXING,
    RAW,
    SELF_TEST,
    SPARSE,
    SPARSE_SHARED,
    TRANSPOSED,
    Bits,
    Entry,
    File,
    one,
    text,
    varint,
)
from tests.format.strategies import COMPILED, examples, vectors

VECTORS = dict(vectors())
MEMORY = 1 << 20
#: The memory that reading any file takes: objects, tables, one copy of the contents.
CONSTANT_MEMORY = 2 << 20
ONE = struct.pack("<f", 1.0)
some = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

numbers = st.one_of(
    st.integers(0, 8), st.sampled_from([127, 128, 255, 256, 4095, 4096, 65535, 65536, 1 << 20, 1 << 31, 1 << 40]),
    st.integers(0, (1 << 42) - 1),
)  # fmt: skip


@cache
def kernels_ready() -> None:
    """Load or compile the kernels that reading needs: that takes memory once, independent of any file."""
    for name, data in VECTORS.items():
        if name.startswith(("float32", "model")):
            dcformat.verify(data)


def read(data: bytes, *, most: int = MEMORY) -> FormatError | None:
    """Read a file in every way, check that it takes little memory, and return the first error."""
    kernels_ready()
    tracemalloc.start()
    try:
        with dcformat.open(data, max_memory=most) as file:
            for name in file.names:
                file.tensor(name)
                file.usage(name)
            file.model()
            file.verify()
    except FormatError as error:
        return error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= most + 32 * len(data) + CONSTANT_MEMORY, f"{peak} bytes for a file of {len(data)}"
    return None


# --- every drawn file parses or is refused --------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draw a head or chunk: any bytes, or a stream of plain bits."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=24))
    bits = Bits()
    for width, value in draw(st.lists(st.tuples(st.integers(1, 32), st.integers(0, (1 << 32) - 1)), max_size=6)):
        bits.put(width, value & ((1 << width) - 1))
    return bits.take()


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    coder = draw(st.sampled_from([RAW, HUFFMAN, ADAPTIVE, MIXING]))
    flags = draw(st.sampled_from([0, 0, 0, TRANSPOSED, EVERY_ELEMENT, TRANSPOSED | EVERY_ELEMENT, FILLERS]))
    each = draw(st.one_of(st.just(0), st.integers(1, 3), numbers))
    out = bytes((coder | flags,)) + varint(each)
    if coder < ADAPTIVE and draw(st.booleans()):
        out += text(draw(streams()))
    if each:
        out += b"".join(varint(n) for n in draw(st.lists(numbers, max_size=6)))
    for part in draw(st.lists(st.one_of(numbers.map(varint), streams(), st.just(ONE)), max_size=3)):
        out += part
    return out


@st.composite
def entries(draw: st.DrawFn, name: str) -> Entry:
    payload = draw(payloads())
    return Entry(
        payload,
        draw(st.sampled_from([name, name, name, "t0", ""])),
        draw(st.sampled_from([CONSTANT, DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED, 7])),
        draw(st.integers(0, 3)),
        draw(st.one_of(st.lists(st.integers(0, 5), max_size=7), st.lists(numbers, max_size=4))),
        draw(numbers),
        draw(st.one_of(st.integers(0, 4), numbers)),
        draw(st.sampled_from([1.0, 0.5, 0.0, -1.0, float("inf"), float("nan")])),
        draw(st.sampled_from([None, None, True, False])),
        draw(st.one_of(st.none(), st.none(), numbers)),
    )


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    out = draw(st.sampled_from([b"\1\2\0", b"\3\3\4\4\0", b"\1\1\1" + ONE + ONE]))
    nodes = draw(st.lists(st.lists(st.integers(0, 255), max_size=10).map(bytes), max_size=6))
    return out + varint(draw(st.one_of(st.just(len(nodes)), numbers))) + b"".join(nodes)


@st.composite
def lying_files(draw: st.DrawFn) -> bytes:
    tensors = [draw(entries(f"t{k}")) for k in range(draw(st.integers(0, 3)))]
    kinds = st.sampled_from([GRAPH, LABELS, METADATA, SELF_TEST, 6, 128, 255])
    bodies = st.one_of(
        graphs(), st.binary(max_size=20), st.lists(numbers, max_size=5).map(lambda n: b"".join(map(varint, n)))
    )
    return File(
        tensors, draw(st.lists(st.tuples(kinds, bodies), max_size=3)), draw(st.one_of(st.none(), st.none(), numbers)),
        order=draw(st.booleans()), after=draw(st.sampled_from([b"", b"", b"\0", bytes(20)])),
    ).bytes()  # fmt: skip


@given(lying_files())
@settings(some, max_examples=examples(400))
def test_a_lying_file_is_refused_in_little_memory(data: bytes) -> None:
    read(data)


@given(st.binary(max_size=200))
@settings(some)
def test_any_bytes_at_all(data: bytes) -> None:
    assert isinstance(read(data), FormatError)
    assert isinstance(read(layout.MAGIC + b"\1\0" + data), FormatError)


# --- one lie at a time ----------------------------------------------------------------------------------------------


def head(bits: Bits) -> bytes:
    return text(bits.take())


GAPS1 = Bits().put(3, 0)
SHARED2: dict[str, int] = {"form": SPARSE_SHARED, "dtype": INT8}
#: Used, another length, one less; used, another, one more; used, another, one less.
OVERFULL = [(0, 1), (2, 0), (5, 1), (0, 1), (3, 0), (6, 0), (7, 0), (0, 1), (2, 0), (5, 1)]
LIES: dict[str, tuple[bytes, type[FormatError]]] = {
    "shape overflows": (one(ONE, shape=(1 << 40, 1 << 40)), errors.ShapeError),
    "dimension of 42 bits": (one(ONE, shape=((1 << 42) - 1,)), errors.LimitError),
    "zeros hide an overflow": (one(ONE, shape=(1 << 40, 0, 1 << 40)), errors.ShapeError),
    "rows without columns": (one(b"\0\0", form=SPARSE, shape=(1 << 40, 0)), errors.MemoryLimitError),
    "columns without rows": (
        one(bytes((TRANSPOSED, 0)) + head(GAPS1) + b"\0", form=SPARSE, shape=(0, (1 << 31) - 1)),
        errors.MemoryLimitError,
    ),
    "no columns, by columns": (one(bytes((TRANSPOSED, 0)), form=SPARSE, shape=(0, 1 << 31)), errors.LimitError),
    "dense, 2^40 elements": (one(b"\0\0", shape=(1 << 40,)), errors.MemoryLimitError),
    "sparse, 2^40 entries": (one(b"\0\0", form=SPARSE, shape=(1, 1 << 40), stored=1 << 40), errors.MemoryLimitError),
    "codebook of 10,000 in no bytes": (
        one(bytes((HUFFMAN, 0, 0)), form=DENSE_SHARED, shape=(2,), clusters=10_000, dtype=INT8),
        errors.CodebookError,
    ),
    "codebook of none": (one(b"\0\0", form=DENSE_SHARED, shape=(2,), clusters=0), errors.EncodingError),
    "every element of 2^31": (
        one(
            bytes((EVERY_ELEMENT, 0)) + head(Bits().put(8, 3)) + b"\0", shape=(1 << 11, 1 << 20), clusters=1, **SHARED2
        ),
        errors.LimitError,
    ),
    "every element by coder 2": (
        one(bytes((ADAPTIVE | EVERY_ELEMENT, 0)), shape=(1 << 11, 1 << 20), clusters=1, **SHARED2),
        errors.LimitError,
    ),
    "every element stored, one said": (
        one(bytes((EVERY_ELEMENT, 0)) + head(Bits().put(8, 3)) + b"\0", shape=(2, 3), stored=1, clusters=1, **SHARED2),
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
        one(bytes((RAW, 1)) + head(GAPS1) + bytes(4), form=SPARSE, shape=(2, 3), stored=1),
        errors.IndexRangeError,
    ),
    "entries of a chunk above the rest": (
        one(bytes((RAW, 1)) + head(GAPS1) + bytes((2, 0, 0, 0)), form=SPARSE, shape=(2, 3), stored=1),
        errors.LimitError,
    ),
    "gap symbols above elements": (
        one(bytes((RAW, 0)) + head(GAPS1) + varint(7), form=SPARSE, shape=(2, 3), stored=1),
        errors.LimitError,
    ),
    "gap symbols of no bits": (
        one(
            bytes((HUFFMAN, 0)) + head(Bits().put(3, 0).put(2, 1).put(1, 1)) + varint(1 << 20),
            form=SPARSE,
            shape=(1 << 10, 1 << 10),
            stored=0,
        ),
        errors.StreamError,
    ),
    "last gap symbol an escape": (
        one(bytes((RAW, 0)) + head(GAPS1) + bytes((2, 0b10)) + ONE, form=SPARSE, shape=(2, 3), stored=1),
        errors.IndexRangeError,
    ),
    "gap past the end": (
        one(bytes((RAW, 0)) + head(Bits().put(3, 2)) + bytes((1, 0b011)) + ONE, form=SPARSE, shape=(1, 3), stored=1),
        errors.IndexRangeError,
    ),
    "filler that is no filler": (
        one(
            bytes((RAW | FILLERS, 0)) + head(Bits().put(8, 3).put(3, 0)) + bytes((2, 0b0010)),
            shape=(2, 3),
            stored=1,
            clusters=1,
            **SHARED2,
        ),
        errors.IndexRangeError,
    ),
    "a stored zero": (
        one(bytes((RAW, 0)) + head(GAPS1) + bytes((1, 0)) + bytes(4), form=SPARSE, shape=(2, 3), stored=1),
        errors.EncodingError,
    ),
    "codebook id out of range": (
        one(
            bytes((RAW, 0)) + head(Bits().put(8, 100).steps(2)) + b"\3",
            form=DENSE_SHARED,
            dtype=INT8,
            shape=(1,),
            clusters=3,
        ),
        errors.IndexRangeError,
    ),
    "codebook past the last value": (
        one(
            bytes((RAW, 0)) + head(Bits().put(8, 254).steps(2)) + b"\0",
            form=DENSE_SHARED,
            dtype=INT8,
            shape=(1,),
            clusters=3,
        ),
        errors.CodebookError,
    ),
    "unfinished code": (
        one(
            bytes((HUFFMAN, 0)) + head(Bits().put(3, 0).put(2, 2).adaptive([(0, 0), (0, 0)], 30)) + b"\0",
            form=SPARSE,
            shape=(2, 3),
        ),
        errors.HuffmanError,
    ),
    "code lengths 1, 2 and 1": (
        one(
            bytes((HUFFMAN, 0)) + head(Bits().put(3, 1).put(2, 2).adaptive(OVERFULL, 30)) + b"\0",
            form=SPARSE,
            shape=(2, 3),
        ),
        errors.HuffmanError,
    ),
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
    "pool without a stride": (File(sections=[(GRAPH, b"\3\1\4\4\0\1\x84\2\2\0\0\0\0\0")]).bytes(), errors.GraphError),
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
    assert isinstance(read(data, most=2 << 30 if kind is errors.StreamError else MEMORY), kind)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
def test_values_in_no_bytes() -> None:
    """An empty stream is known to be too short before it is decoded."""
    error = read(one(bytes((ADAPTIVE, 0)), shape=(400_000,)), most=32 << 20)
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


@pytest.mark.parametrize("name", [n for n in VECTORS if "float32" in n and "chunked" in n] + ["model-small"])
def test_decoding_memory_is_bounded_by_max_memory(name: str) -> None:
    """With the smallest `max_memory` that suffices, reading takes no more than that plus a constant."""
    low, high = 0, 1 << 22
    while low < high:
        middle = (low + high) // 2
        try:
            dcformat.load(VECTORS[name], max_memory=middle)
            high = middle
        except errors.MemoryLimitError:
            low = middle + 1
    assert 0 < low < 1 << 20
    read(VECTORS[name], most=low)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("form", ["dense", "dense-shared", "sparse", "sparse-shared"])
def test_large_tensors_stay_within_the_limit(form: str) -> None:
    """The bound is close to the arrays' true size: measured memory stays just below it."""
    from dcformat.codecs.memory import working_bytes
    from dcformat.codecs.payload_layout import parse_payload
    from tests.format import strategies

    jit.warm(jit.kernels())  # the compiler's memory does not count
    random = np.random.default_rng(3)
    made = strategies.tensor(random, "t", (200, 300), "float32", form, clusters=17, grid=True)
    for way in strategies.ways(made, 30):
        data = strategies.dumps_as(dcformat.Model({"t": made}), way)
        with dcformat.open(data, max_memory=None) as file:
            file.tensor("t")
            info = file.info("t")
            payload = file._payload(info)
            tracemalloc.start()
            file.tensor("t")
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        bound = working_bytes(parse_payload(info, payload))
        assert peak <= bound + (1 << 17) + len(payload), str(way)
        assert bound <= 60 * info.decoded_bytes + (1 << 21), str(way)
