"""Reading from any source, tensor by tensor, in several threads, and from sources that misbehave."""

from __future__ import annotations

import io
import mmap
import os
import threading
import tracemalloc
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dcformat
from dcformat import layout
from dcformat.codecs.payload_layout import Coding
from dcformat.errors import ChecksumError, FormatError, MemoryLimitError, NotDcfError, StreamError, TruncatedError
from dcformat.model import Model, Tensor
from tests.format.assembler import ADAPTIVE, one
from tests.format.strategies import COMPILED, Way, dumps_as, same, small_model, tensor

DATA = dcformat.dumps(small_model())


def large_model() -> Model:
    """Return a model of tensors that are too large to share a block."""
    made = [
        Tensor(name, (50, 500), "float32", np.arange(k, 25_000 + k, dtype="<f4")) for k, name in enumerate("abc", 1)
    ]
    return Model({t.name: t for t in made})


class Pipe(io.RawIOBase):
    """A source that cannot seek and returns a few bytes at a time."""

    def __init__(self, data: bytes, step: int = 7) -> None:
        self.source, self.step, self.given = io.BytesIO(data), step, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part = self.source.read(self.step if size < 0 else min(size, self.step))
        self.given += len(part)
        return part


class Counted(io.BytesIO):
    """A file that records which of its bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        begin = self.tell()
        data = super().read(size)
        self.reads.append((begin, len(data)))
        return data


class Short(io.BytesIO):
    """A file that returns at most three bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 3) if size is not None and size >= 0 else 3)


def sources(path: Path) -> dict[str, Callable[[], Any]]:
    return {
        "path": lambda: path, "text": lambda: str(path), "bytes": lambda: DATA, "bytearray": lambda: bytearray(DATA),
        "memoryview": lambda: memoryview(DATA), "strided": lambda: memoryview(DATA + DATA[::-1])[: len(DATA)],
        "backwards": lambda: memoryview(DATA[::-1])[::-1], "array": lambda: array("B", DATA),
        "numpy": lambda: np.frombuffer(DATA, np.uint8), "BytesIO": lambda: io.BytesIO(DATA),
        "short reads": lambda: Short(DATA), "pipe": lambda: Pipe(DATA), 
    }  # fmt: skip


def check(model: Model) -> None:
    expected = small_model()
    assert list(model.tensors) == list(expected.tensors)
    assert all(same(model.tensors[name], expected.tensors[name]) for name in expected.tensors)
    assert (model.graph, model.labels, model.metadata) == (expected.graph, expected.labels, expected.metadata)
    assert (model.self_test, model.extensions) == (expected.self_test, expected.extensions)


@pytest.mark.parametrize("kind", sources(Path()))
def test_every_kind_of_source(tmp_path: Path, kind: str) -> None:
    (tmp_path / "m.dcf").write_bytes(DATA)
    make = sources(tmp_path / "m.dcf")[kind]
    check(dcformat.load(make()))
    dcformat.verify(make())
    with dcformat.open(make()) as file:
        assert file.size == len(DATA) and file.version == (1, 0)
        assert same(file.tensor("fc2"), small_model().tensors["fc2"])


@pytest.mark.parametrize("mapped", [False, True])
def test_a_path(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "m.dcf"
    path.write_bytes(DATA)
    with dcformat.open(path, mmap=mapped) as file:
        check(file.model())
        file.verify()
        expected = small_model()
        assert (file.graph, file.labels, file.metadata) == (expected.graph, expected.labels, expected.metadata)
        assert (file.self_test, file.extensions) == (expected.self_test, expected.extensions)
    assert file.path == str(path)


def test_a_map_of_its_own() -> None:
    with mmap.mmap(-1, len(DATA)) as mapped:
        mapped[:] = DATA
        check(dcformat.load(mapped))  # type: ignore[arg-type]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_that_shrinks_is_noticed(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "m.dcf"
    path.write_bytes(dcformat.dumps(large_model()))
    with dcformat.open(path, mmap=mapped) as file:
        file.tensor("a")
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(TruncatedError, match=r"m\.dcf"):
            file.tensor("c")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_that_takes_too_much_memory_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def feed() -> None:
        with suppress(BrokenPipeError), path.open("wb", buffering=0) as pipe:
            pipe.write(DATA + bytes(16 << 20))

    writer = threading.Thread(target=feed, daemon=True)
    writer.start()
    with pytest.raises(MemoryLimitError, match=r"pipe: .*found over 1,048,576 bytes \[E07\]"):
        dcformat.load(path, max_memory=1 << 20)
    writer.join(60)
    assert not writer.is_alive()


@pytest.mark.parametrize("mapped", [False, True])
def test_an_empty_file_and_one_of_another_kind(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "m.dcf"
    for data in (b"", b"\x89", b"\x89PNG and so on, for more than a few bytes"):
        path.write_bytes(data)
        kind = TruncatedError if data == b"\x89" else NotDcfError
        with pytest.raises(kind) as caught:
            dcformat.open(path, mmap=mapped)
        assert caught.value.path == str(path) and str(path) in str(caught.value)


def test_other_objects_than_sources_raise_a_type_error() -> None:
    for source in (None, 7, io.StringIO("text"), object()):
        with pytest.raises(TypeError):
            dcformat.load(source)  # type: ignore[arg-type]


def test_a_missing_file_and_a_folder_are_the_systems_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError):
            dcformat.load(path)


def test_a_file_may_begin_in_the_middle_of_another() -> None:
    outer = io.BytesIO(b"before" + DATA)
    outer.seek(6)
    check(dcformat.load(outer))


def test_a_pipe_of_another_kind_is_not_read_to_its_end() -> None:
    pipe = Pipe(b"no" * 100_000, step=1 << 16)
    with pytest.raises(NotDcfError):
        dcformat.load(pipe)  # type: ignore[arg-type]
    assert pipe.given < 100


def test_a_pipe_is_read_no_further_than_the_memory_allows() -> None:
    pipe = Pipe(DATA + bytes(16 << 20), step=1 << 20)
    with pytest.raises(MemoryLimitError):
        dcformat.load(pipe, max_memory=1 << 20)  # type: ignore[arg-type]
    assert pipe.given <= 4 << 20


def test_a_file_that_has_no_bytes_ready() -> None:
    class Empty(io.BytesIO):
        def read(self, size: int | None = -1) -> Any:
            return None

    with pytest.raises(BlockingIOError):
        dcformat.load(Empty(DATA))


def test_one_tensor_is_read_without_the_others() -> None:
    model = large_model()
    source = Counted(dcformat.dumps(model))
    with dcformat.open(source) as file:
        opened = sum(size for _, size in source.reads)
        assert opened < 200
        source.reads.clear()
        assert same(file.tensor("b"), model.tensors["b"])
        info = file.info("b")
        assert sum(size for _, size in source.reads) == info.payload_bytes + layout.CRC_BYTES
        source.reads.clear()
        assert file.info("c").stored == 25_000 and not source.reads


def test_a_damaged_tensor_does_not_keep_others_from_being_read() -> None:
    model = large_model()
    data = bytearray(dcformat.dumps(model))
    data[len(data) // 2] ^= 1
    with dcformat.open(bytes(data)) as file:
        assert same(file.tensor("a"), model.tensors["a"])
        assert same(file.tensor("c"), model.tensors["c"])
        with pytest.raises(ChecksumError):
            file.tensor("b")
        with pytest.raises(ChecksumError):
            file.verify()


def test_small_tensors_share_a_block_and_a_checksum() -> None:
    random = np.random.default_rng(0)
    made = [tensor(random, f"t{k}", (10,), "float32", "dense") for k in range(20)]
    with dcformat.open(dcformat.dumps(Model({t.name: t for t in made}))) as file:
        assert {file.info(name).block for name in file.names} == {0}


def test_bytes_as_they_are() -> None:
    values = np.arange(5, dtype=np.float32)
    data = dcformat.dumps(Model({"a": dcformat.from_dense("a", values), "b": dcformat.from_dense("b", values)}))
    with dcformat.open(data) as file:
        assert file.read(2, 9) == data[2:11]
        payload = file.payload("a")
        assert file.info("b").copy_of == "a" and file.payload("b") == payload
        assert len(payload) == file.info("a").payload_bytes and payload in data


def test_unknown_names() -> None:
    with dcformat.open(DATA) as file:
        for ask in (file.tensor, file.info, file.usage):
            with pytest.raises(KeyError):
                ask("none")


@pytest.mark.parametrize("from_file", [False, True])
def test_threads_may_share_a_file(tmp_path: Path, from_file: bool) -> None:
    model = large_model()
    path = tmp_path / "m.dcf"
    dcformat.save(model, path)
    barrier = threading.Barrier(8)
    with dcformat.open(path if from_file else path.read_bytes()) as file, ThreadPoolExecutor(8) as pool:

        def ask(name: str) -> bool:
            barrier.wait()
            return same(file.tensor(name), model.tensors[name])

        assert all(pool.map(ask, ["a", "b", "c", "a", "b", "c", "a", "b"]))


@pytest.mark.parametrize("coder", [0, 1, 2])
def test_threads_decode_the_chunks_of_a_tensor(coder: int) -> None:
    random = np.random.default_rng(6)
    made = tensor(random, "t", (12, 70), "float32", "sparse-shared")
    data = dumps_as(Model({"t": made}), Way(Coding(coder), each=2))
    for threads in (1, 2, 5):
        assert same(dcformat.load(data, threads=threads).tensors["t"], made)


def test_max_memory_counts_what_is_decoded_and_what_decoding_needs() -> None:
    model = large_model()
    data = dcformat.dumps(model)
    with dcformat.open(data) as file:
        each = file.info("a").decoded_bytes
        assert each == 100_000 and file.decoded_bytes == 3 * each
    with dcformat.open(data, max_memory=each - 1) as file, pytest.raises(MemoryLimitError):
        file.tensor("a")
    with pytest.raises(MemoryLimitError):
        dcformat.load(data, max_memory=3 * each - 1)
    with pytest.raises(MemoryLimitError):
        dcformat.load(data, max_memory=3 * each)
    with dcformat.open(data, max_memory=7 * each) as file:
        file.tensor("a")
        file.verify()
    dcformat.load(data, max_memory=None)


def test_the_ledger_and_the_usage_add_up() -> None:
    for mode in ("fast", "small"):
        data = dcformat.dumps(small_model(), mode=mode)
        with dcformat.open(data) as file:
            assert sum(row.bytes for row in file.ledger()) == file.size == len(data)
            for name in file.names:
                usage = file.usage(name)
                bits = usage.index_bits + usage.code_bits + usage.codebook_bits + usage.table_bits
                assert bits == pytest.approx(8 * file.info(name).payload_bytes)


def test_tensors_do_not_share_memory_with_the_source() -> None:
    """The arrays are not views of the source, so later changes of it do not reach them."""
    source = bytearray(dcformat.dumps(large_model()))
    found = dcformat.load(source).tensors["a"]
    before = found.data.copy()
    source[:] = bytes(len(source))
    assert (found.data == before).all() and found.data.flags.writeable


def test_errors_are_values_and_formats() -> None:
    assert issubclass(FormatError, ValueError)
    with pytest.raises(dcformat.FormatError):
        dcformat.load(b"nothing")


def test_no_values_take_no_bytes_of_a_coder() -> None:
    made = dcformat.load(one(bytes((ADAPTIVE, 0)), shape=(0,))).tensors["w"]
    assert made.shape == (0,) and made.values().dtype == np.float32
    with pytest.raises(StreamError, match=r"values .*: expected none for no values, found 1 byte "):
        dcformat.load(one(bytes((ADAPTIVE, 0)) + b"x", shape=(0,)))


def test_a_tensor_of_no_bytes_of_payload() -> None:
    empty = Tensor("e", (0, 5), "float32", np.empty(0, "<f4"))
    assert same(dcformat.load(dcformat.dumps(Model({"e": empty}))).tensors["e"], empty)


def changed_in_place() -> dict[str, Callable[[Path], tuple[Any, Callable[[int], None]]]]:
    """Yield sources whose bytes others can change, each with a function that flips a bit of a byte."""

    def of_path(path: Path) -> tuple[Any, Callable[[int], None]]:
        path.write_bytes(dcformat.dumps(large_model()))

        def turn(at: int) -> None:
            with path.open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes((byte ^ 1,)))

        return path, turn

    def of_bytes(wrap: Callable[[bytearray], Any]) -> Callable[[Path], tuple[Any, Callable[[int], None]]]:
        def make(_: Path) -> tuple[Any, Callable[[int], None]]:
            data = bytearray(dcformat.dumps(large_model()))

            def turn(at: int) -> None:
                data[at] ^= 1

            return wrap(data), turn

        return make

    return {
        "path": of_path,
        "bytearray": of_bytes(lambda data: data),
        "memoryview": of_bytes(memoryview),
        "read-only view": of_bytes(lambda data: memoryview(data).toreadonly()),
        "numpy": of_bytes(lambda data: np.frombuffer(data, np.uint8)),
    }


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", changed_in_place() if COMPILED else ["path", "bytearray"])
def test_data_is_checked_each_time_it_is_read(tmp_path: Path, kind: str, mapped: bool) -> None:
    model = large_model()
    source, turn = changed_in_place()[kind](tmp_path / "m.dcf")
    with dcformat.open(source, mmap=mapped) as file:
        before = file.tensor("b")
        file.verify()
        turn(file.size // 2)
        assert same(before, model.tensors["b"]) and same(file.tensor("a"), model.tensors["a"])
        for read in (lambda: file.tensor("b"), file.model, file.verify, lambda: file.usage("b")):
            with pytest.raises(ChecksumError, match="data block 1"):
                read()
        turn(file.size // 2)
        assert same(file.tensor("b"), model.tensors["b"])


def test_bytes_that_nobody_can_change_are_not_copied() -> None:
    data = dcformat.dumps(large_model())
    with dcformat.open(data) as file:
        tracemalloc.start()
        assert file.work("a") > 0 and file.work("b") > 0
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert taken < file.info("a").payload_bytes // 2
