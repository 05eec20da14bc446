"""The table of contents is read as it was written; no number is trusted, and every byte is accounted for."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcformat import contents
from dcformat.contents import TensorInfo, parse, parse_entry
from dcformat.contents_writer import EntryHead, assemble, small_sections, table_entry
from dcformat.dense import from_dense
from dcformat.errors import EncodingError, FormatError, LimitError, MemoryLimitError, TruncatedError
from dcformat.graph import Graph, ReLU
from dcformat.model import Model, SelfTest, Tensor
from tests.format.assembler import DENSE, INT8, SELF_TEST, SPARSE_SHARED, Entry, File, one
from tests.format.strategies import DTYPES, FORMS, small_model, tensor, tensors


def info_of(made: Tensor, payload_bytes: int = 5) -> TensorInfo:
    return parse(assemble([table_entry(made, payload_bytes, True)], [])).tensors[0]


@given(tensors(), st.integers(0, (1 << 41) - 1))
def test_an_entry_is_read_back(made: Tensor, payload_bytes: int) -> None:
    info = info_of(made, payload_bytes)
    assert (info.name, info.shape, info.dtype, info.scale) == (made.name, made.shape, made.dtype, made.scale)
    assert (info.size, info.rows, info.columns) == (made.size, made.rows, made.columns)
    assert info.form == ("constant" if made.is_constant else "sparse" if made.is_sparse else "dense")
    assert info.stored == len(made.data) and info.payload_bytes == payload_bytes
    assert info.codebook_size == (0 if made.codebook is None else len(made.codebook))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("codebook_size", [3, 200, 300])
def test_decoded_bytes_are_those_of_the_arrays(dtype: str, form: str, codebook_size: int) -> None:
    made = tensor(np.random.default_rng(1), "t", (17, 23), dtype, form, codebook_size=codebook_size)
    arrays = (made.data, made.codebook, made.indptr, made.indices)
    assert info_of(made).decoded_bytes == sum(a.nbytes for a in arrays if a is not None)


@given(st.binary(max_size=120))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        found = parse(data)
    except FormatError:
        return
    assert sum(found.blocks) == sum(info.payload_bytes for info in found.tensors)


@pytest.mark.parametrize("length", range(200))
def test_contents_cut_short(length: int) -> None:
    table = [table_entry(t, 100, k == 0) for k, t in enumerate(small_model().tensors.values())]
    whole = assemble(table, small_sections(small_model()))
    if length < len(whole):
        cut = whole[:length]
        try:
            found = parse(cut)
        except FormatError:
            return
        # Whole sections may be missing from the end; the file's length and checksum reveal that.
        assert len(found.tensors) == 3 and assemble(table, [])[: len(cut)] == cut[: len(assemble(table, []))]


def test_offsets_and_blocks() -> None:
    entries = [Entry(b"", name, length=length, fresh=fresh) for name, length, fresh in
               (("a", 10, True), ("b", 5, False), ("c", 70_000, True), ("d", 1, True), ("e", 2, False))]  # fmt: skip
    found = parse(File(entries).plain_contents())
    assert found.blocks == (15, 70_000, 3)
    assert [(i.block, i.offset) for i in found.tensors] == [(0, 0), (0, 10), (1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize("before, after", [(1 << 16, 0), (1 << 15, 1 << 15), ((1 << 16) + 1, 0), (1, 1 << 16)])
def test_a_block_of_several_tensors_is_at_most_64_kilobytes(before: int, after: int) -> None:
    data = File([Entry(b"", "a", length=before), Entry(b"", "b", fresh=False, length=after)]).plain_contents()
    if before + after <= 1 << 16:
        assert parse(data).blocks == (before + after,)
    else:
        with pytest.raises(LimitError, match="data block of several tensors"):
            parse(data)


def test_contents_just_within_the_limits_are_read() -> None:
    parse(File([Entry(b"", "n" * 255, shape=(1,) * 7)]).plain_contents())
    parse(File([Entry(b"", shape=(1 << 40, 0))]).plain_contents())
    parse(File([Entry(b"", shape=(1 << 20, 1 << 20))]).plain_contents())
    parse(File([Entry(b"", form=SPARSE_SHARED, shape=(2,), stored=2, codebook_size=1 << 16)]).plain_contents())
    parse(File([Entry(b"", dtype=INT8, scale=1e-45)]).plain_contents())
    many = File([Entry(b"", f"{k}", form=DENSE, length=0) for k in range(3000)])
    assert len(parse(many.plain_contents()).tensors) == 3000


@pytest.mark.parametrize("seed, samples", [(0, 1), ((1 << 32) - 1, 1 << 10)])
def test_the_self_test_is_read_back(seed: int, samples: int) -> None:
    model = Model({}, Graph.sequential((4,), (ReLU((0,)),)), self_test=SelfTest(seed, samples, b"12345678"))
    assert parse(assemble([], small_sections(model))).self_test == model.self_test


def test_a_self_test_without_a_graph_is_refused() -> None:
    data = File(sections=[(SELF_TEST, b"\0\1" + bytes(8))]).plain_contents()
    with pytest.raises(
        EncodingError, match=r"self-test: expected a graph to run it on, found no graph \[E16|self-test"
    ):
        parse(data)


def test_sections_are_kept_as_they_are() -> None:
    model = small_model()
    table = [table_entry(t, 1, k == 0) for k, t in enumerate(model.tensors.values())]
    found = parse(assemble(table, small_sections(model)))
    again = Model(model.tensors, found.graph, found.labels, found.metadata, found.self_test, found.extensions)
    assert small_sections(again) == small_sections(model)


def test_the_size_of_a_shape_never_overflows() -> None:
    for shape in ((1 << 40,) * 8, (0, *(1 << 40,) * 7), (1 << 20, 1 << 20, 2)):
        with pytest.raises(FormatError, match="shape"):
            contents.check_size(shape)
    contents.check_size((0, 1 << 40))
    assert prod((0, 1 << 40)) == 0


def test_memory_is_refused_before_payloads_are_looked_at() -> None:
    import dcformat

    data = one(b"", shape=(1 << 30,), length=1)
    with pytest.raises(TruncatedError):
        dcformat.open(data)  # the file is too short for the payload of any tensor
    data = one(b"\0", shape=(1 << 30,))
    with dcformat.open(data, max_memory=1 << 20) as file, pytest.raises(MemoryLimitError):
        file.tensor("w")


def test_an_entry_alone() -> None:
    made = from_dense("w", np.array([[0, 1.5, 0], [0, 0, -2]], np.float32))
    info = parse_entry(bytes(EntryHead.of(made)), 17)
    assert (info.name, info.shape, info.dtype, info.form) == ("w", (2, 3), "float32", "sparse")
    assert (info.stored, info.codebook_size, info.payload_bytes, info.block) == (2, 0, 17, 0)
