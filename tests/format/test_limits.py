"""The budgets for memory and work, which are checked before anything is allocated or computed."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dcformat
from dcformat import jit, layout
from dcformat.codecs.memory import contents_bytes
from dcformat.codecs.work import contents_steps, hashing_steps
from dcformat.errors import MemoryLimitError, NotDcfError, WorkLimitError
from dcformat.model import Model, Tensor
from tests.format.assembler import (
    CONSTANT,
    GRAPH,
    MIXING,
    SPARSE_SHARED,
    Entry,
    File,
    one,
    varint,
)
from tests.format.strategies import COMPILED, dumps_as, same, tensor, way
from tests.format.test_reader import Pipe, large_model

ONE = struct.pack("<f", 1.0)
MEBI = 1 << 20
#: The number 1, 2^28 times, in about 43 bytes: a gibibyte when dense.
CONSTANT_28 = one(b"\0" + ONE, form=CONSTANT, shape=(1 << 28,))
ROWS_28 = one(b"\0\0", shape=(1 << 28, 0))


def peak(function: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def least(function: Callable[[int], Any]) -> int:
    """Return the smallest budget with which `function` succeeds."""
    low, high = 0, 1 << 28
    while low < high:
        middle = (low + high) // 2
        try:
            function(middle)
            high = middle
        except MemoryLimitError:
            low = middle + 1
    return low


def forms() -> list[Tensor]:
    random = np.random.default_rng(3)
    shape = (30, 20_000)  # several pieces
    made = [
        tensor(random, form, shape, "float32", form, codebook_size=9) for form in ("dense", "dense-shared", "sparse")
    ]
    made.append(tensor(random, "sparse-shared", shape, "float16", "sparse-shared", codebook_size=9))
    made.append(Tensor("constant", shape, "int8", np.array([3], "|i1")))
    made.append(Tensor("zeros", shape, "float32", np.zeros(1, "<f4")))
    return made


def plainly(made: Tensor) -> np.ndarray:
    """Return the dense form, made one entry at a time."""
    values = made.data if made.codebook is None else made.codebook[made.data]
    if made.indptr is None or made.indices is None:
        return np.resize(values, made.size).reshape(made.shape)
    out = np.zeros((made.rows, made.columns), values.dtype)
    for row in range(made.rows):
        for entry in range(int(made.indptr[row]), int(made.indptr[row + 1])):
            out[row, made.indices[entry]] = values[entry]
    return out.reshape(made.shape)


# --- the dense and the CSR form -------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", forms(), ids=lambda made: made.name)
def test_the_dense_form_and_its_pieces_have_the_right_values(made: Tensor) -> None:
    expected = plainly(made)
    found = made.to_dense()
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    pieces = list(made.pieces())
    assert [len(piece) for piece in pieces] == [1 << 18, 1 << 18, 600_000 - (2 << 18)]
    assert np.array_equal(np.concatenate(pieces), expected.reshape(-1))


@pytest.mark.parametrize("made", forms(), ids=lambda made: made.name)
def test_the_csr_form_has_the_right_values(made: Tensor) -> None:
    expected = plainly(made)
    indptr, indices, values = made.to_csr()
    assert indptr.dtype == np.int64 and indices.dtype == np.int32 and values.dtype == expected.dtype
    there = expected.view(f"u{expected.itemsize}") != 0  # a negative zero is a value
    assert np.diff(indptr).tolist() == np.count_nonzero(there, axis=1).tolist()
    assert np.array_equal(indices, np.nonzero(there)[1])
    assert np.array_equal(values, expected[there])


@pytest.mark.parametrize("made", forms(), ids=lambda made: made.name)
def test_both_forms_take_the_counted_memory(made: Tensor) -> None:
    for convert in (made.to_dense, made.to_csr):
        low = least(lambda max_memory, convert=convert: convert(max_memory=max_memory))  # type: ignore[misc]
        assert peak(lambda convert=convert, low=low: convert(max_memory=low)) <= low + 8 * MEBI  # type: ignore[misc]
        convert(max_memory=None)


def test_the_dense_form_is_counted_to_the_byte() -> None:
    made = Tensor("c", (3, 5), "float32", np.ones(1, "<f4"))
    assert made.to_dense(max_memory=60).tolist() == [[1.0] * 5] * 3
    with pytest.raises(MemoryLimitError, match=r"dense form of tensor 'c': expected at most 59 .*found 60 bytes"):
        made.to_dense(max_memory=59)


def test_a_constant_is_never_expanded_unless_somebody_asks() -> None:
    def read() -> Tensor:
        with dcformat.open(CONSTANT_28, max_memory=MEBI) as file:
            file.usage("w")
            return file.model().tensors["w"]

    made = read()
    assert made.nnz == 1 << 28 and peak(read) < MEBI
    for convert in (made.to_dense, made.to_csr):
        with pytest.raises(MemoryLimitError):
            convert(max_memory=64 * MEBI)
    with pytest.raises(MemoryLimitError):
        made.to_csr()  # 4 GiB of values, `indices` and `indptr`
    assert peak(lambda: next(iter(made.pieces()))) < 4 * MEBI


def test_rows_without_columns() -> None:
    made = dcformat.load(ROWS_28, max_memory=MEBI).tensors["w"]
    assert made.to_dense(max_memory=0).shape == (1 << 28, 0)
    with pytest.raises(MemoryLimitError):
        made.to_csr(max_memory=1 << 30)
    few = Tensor("w", (3, 0), "float32", np.empty(0, "<f4"))
    assert [part.tolist() for part in few.to_csr()] == [[0, 0, 0, 0], [], []]


# --- reading --------------------------------------------------------------------------------------------------------


def test_the_digest_of_empty_rows_takes_no_more_than_they_do() -> None:
    made = Tensor("w", (1 << 21, 3), "float32", np.empty(0, "<f4"), None, np.zeros((1 << 21) + 1, np.int64),
                  np.empty(0, np.int32))  # fmt: skip
    data = dcformat.dumps(Model({"w": made}))
    assert len(data) < 100
    dcformat.verify(data)
    assert peak(lambda: dcformat.verify(data)) < 2 * 8 * (1 << 21) + 4 * MEBI


def test_a_stream_that_was_read_to_its_end_counts() -> None:
    data = dcformat.dumps(large_model())  # 150,000 bytes
    max_memory = 850_000
    dcformat.load(data, max_memory=max_memory)
    with pytest.raises(MemoryLimitError, match=f"at most {max_memory:,} "):
        dcformat.load(Pipe(data, step=1 << 16), max_memory=max_memory)  # type: ignore[arg-type]


@pytest.mark.slow
def test_contents_count() -> None:
    count = layout.MAX_NODES
    data = File(sections=[(GRAPH, b"\1\4\0" + varint(count) + b"\3" * count)]).bytes()
    need = contents_bytes(int.from_bytes(data[6:10], "little"), packed=False)
    assert peak(lambda: dcformat.open(data, max_memory=need)) <= need + (4 << 20)
    with pytest.raises(MemoryLimitError, match=f"contents: expected at most {need - 1:,} "):
        dcformat.open(data, max_memory=need - 1)


def test_running_out_of_memory_is_a_memory_limit() -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if size is not None and size > 1000:
                raise MemoryError
            return super().read(size)

    data = dcformat.dumps(large_model())
    with dcformat.open(Full(data), max_memory=None) as file:
        for read in (lambda: file.tensor("a"), file.model, file.verify, lambda: file.usage("a"), file.work):
            with pytest.raises(MemoryLimitError, match="no more memory"):
                read()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such devices")
def test_devices_are_read_no_further_than_their_first_bytes() -> None:
    for mapped in (False, True):
        with pytest.raises(NotDcfError, match=r"/dev/zero: not a .dcf file: .*found 00000000"):
            dcformat.open("/dev/zero", mmap=mapped)
    with open("/dev/zero", "rb") as device, pytest.raises(NotDcfError, match="found 00000000"):  # noqa: PTH123
        dcformat.load(device)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no such files")
def test_files_that_say_they_are_empty_are_read() -> None:
    with pytest.raises(NotDcfError, match="found 4c696e75"):  # "Linu"
        dcformat.load("/proc/version")


# --- accounting -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("coder", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_accounting_takes_the_counted_memory(coder: int) -> None:
    jit.warm(kernel for kernel in jit.kernels() if kernel.name.startswith("dcformat.codecs."))
    made = tensor(np.random.default_rng(1), "w", (300, 500), "float32", "sparse-shared", codebook_size=5)
    data = dumps_as(Model({"w": made}), way(coder))

    def account(max_memory: int) -> None:
        with dcformat.open(data, max_memory=max_memory) as file:
            file.usage("w")

    low = least(account)
    with dcformat.open(data, max_memory=low) as file:
        assert peak(lambda: file.usage("w")) <= low
        assert file.usages() == {"w": file.usage("w")}


# --- work -----------------------------------------------------------------------------------------------------------


def test_work_is_compared_with_the_budget_before_it_is_done() -> None:
    model = large_model()
    data = dcformat.dumps(model)
    with dcformat.open(data) as file:
        each, together = file.work("a"), file.work()
        hashed = sum(hashing_steps(file.info(name)) for name in file.names)
    assert 3 * 25_000 < together <= 3 * each + 100
    with dcformat.open(data, max_work=each) as file:
        assert same(file.tensor("a"), model.tensors["a"])
        with pytest.raises(
            WorkLimitError, match=f"decoding all tensors: expected at most {each:,} .*found {together:,} st"
        ):
            file.model()
        with pytest.raises(WorkLimitError):
            file.verify()
        with pytest.raises(WorkLimitError):
            file.usage("a")
    with dcformat.open(data, max_work=each - 1) as file, pytest.raises(WorkLimitError, match="decoding tensor 'a'"):
        file.tensor("a")
    dcformat.load(data, max_work=together)
    dcformat.verify(data, max_work=together + hashed)
    with pytest.raises(WorkLimitError, match="verifying the file"):
        dcformat.verify(data, max_work=together + hashed - 1)
    dcformat.load(data, max_work=None)


def test_work_counts_cells_that_hold_nothing() -> None:
    entry = Entry(bytes((MIXING, 0)), form=SPARSE_SHARED, shape=(8192, 8192), stored=1)
    with dcformat.open(File([entry]).bytes()) as file:
        assert file.work("w") > 20 * (1 << 26)
    with pytest.raises(WorkLimitError):
        dcformat.load(File([entry]).bytes(), max_work=1 << 30)


def test_work_counts_decisions_by_the_bytes_that_hold_them() -> None:
    """A short stream can hold few decisions, however many elements a tensor claims."""
    entry = Entry(bytes((2, 0)), form=SPARSE_SHARED, shape=(1 << 20, 1 << 19), stored=1)
    with dcformat.open(File([entry]).bytes()) as file:
        assert file.work("w") < 1 << 28


def test_contents_are_work_too() -> None:
    model = large_model()
    for mode in ("fast", "small"):
        data = dcformat.dumps(model, mode=mode)
        with pytest.raises(WorkLimitError, match="contents"):
            dcformat.open(data, max_work=1000)
    count = layout.MAX_NODES
    data = File(sections=[(GRAPH, b"\1\4\0" + varint(count) + b"\3" * count)]).bytes()
    need = contents_steps(int.from_bytes(data[6:10], "little"), packed=False)
    assert len(dcformat.load(data, max_work=need).graph.nodes) == count  # type: ignore[union-attr]
    with pytest.raises(WorkLimitError):
        dcformat.load(data, max_work=need - 1)


def test_names_without_tensors_have_no_work() -> None:
    with dcformat.open(CONSTANT_28) as file, pytest.raises(KeyError):
        file.work("none")
    with dcformat.open(dcformat.dumps(Model({}))) as file:
        assert file.work() == 0
