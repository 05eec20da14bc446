"""Tensors coded piece by piece: the same bytes as in one piece, and the same elements, chunk by chunk."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import dcformat
from dcformat import layout, piecewise
from dcformat.assembly import CodedTensor, write_file
from dcformat.codecs import Mode
from dcformat.codecs.payload_layout import Coding
from dcformat.codecs.value_block_writer import write_block
from dcformat.errors import ChecksumError, MemoryLimitError, TrailingDataError, TruncatedError, WorkLimitError
from dcformat.model import STORAGE, Model
from dcformat.read_back import ReadBackError
from tests.format.assembler import RAW, SPARSE_SHARED, one, varint
from tests.format.strategies import dumps_as, tensor, way

Array = npt.NDArray[Any]

pytestmark = pytest.mark.needs_compiler


class InMemory:
    """The elements of an array."""

    def __init__(self, values: Array, dtype: str, scale: float = 1.0) -> None:
        self.name, self.shape, self.dtype, self.scale = "w", values.shape, dtype, scale
        self._flat = np.ascontiguousarray(values, STORAGE[dtype]).reshape(-1)

    def read(self, start: int, stop: int) -> Array:
        return self._flat[start:stop]


def packed(elements: InMemory, mode: Mode) -> bytes:
    """Return a file whose only tensor was coded in pieces, the last chunk first."""
    found = piecewise.survey(elements, mode)
    numbers = range(len(found.chunks))
    chunks = {number: piecewise.code_chunk(elements, found, number) for number in reversed(numbers)}
    parts = [b""] + [chunks[number].data for number in numbers]
    parts[0] = found.front([len(part) for part in parts[1:]], [chunks[number].stored for number in numbers])
    out = io.BytesIO()
    tensor = CodedTensor("w", found.digest, bytes(found.head), sum(map(len, parts)), lambda: parts)
    size = write_file([tensor], [], mode, out)
    assert size == len(out.getvalue())
    return out.getvalue()


def values(kind: str, shape: tuple[int, int] = (1100, 1000)) -> tuple[Array, str]:
    """Return elements of one kind and their dtype: two chunks of them, unless `shape` is larger."""
    random = np.random.default_rng(7)
    normal = random.standard_normal(shape).astype(np.float32)
    some = random.random(shape)
    codebook = random.standard_normal(16).astype(np.float32)
    codes = random.integers(0, 16, shape)
    return {
        "dense": (normal, "float32"),
        "sparse": (np.where(some < 0.6, normal, np.float32(0)), "float32"),
        "shared": (codebook[codes], "float32"),
        "sparse shared": (np.where(some < 0.8, codebook[codes], np.float32(0)), "float32"),
        "many shared": (random.standard_normal(700).astype(np.float32)[random.integers(0, 700, shape)], "float32"),
        "bfloat16": ((normal.view("<u4") >> 16).astype("<u2"), "bfloat16"),
        "int8": (random.integers(-90, 90, shape), "int8"),
        "int64": (random.integers(0, 999, shape), "int64"),
        "four axes": (normal.reshape(100, -1, 20, 25), "float32"),
        "vector": (normal.reshape(-1), "float32"),
        "sparse vector": (np.where(some < 0.02, normal, np.float32(0)).reshape(-1), "float32"),
        "one row": (np.where(some < 0.1, normal, np.float32(0)).reshape(1, -1), "float32"),
        "alike": (np.ones(shape, np.float32), "float32"),
        "zeros": (np.zeros(shape, np.float16), "float16"),
        "nearly empty": (np.where(some < 0.00002, normal, np.float32(0)), "float32"),
    }[kind]


KINDS = (
    "dense", "sparse", "shared", "sparse shared", "many shared", "bfloat16", "int8", "int64", "four axes", "vector",
    "sparse vector", "one row", "alike", "zeros", "nearly empty",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_give_the_bytes_of_the_whole(kind: str) -> None:
    array, dtype = values(kind)
    made = packed(InMemory(array, dtype), "fast")
    whole = dcformat.from_dense("w", array.astype(STORAGE[dtype]), dtype)
    if kind != "nearly empty":  # whose columns take fewer bytes, but only rows can be coded in pieces
        assert made == dcformat.dumps(dcformat.Model({"w": whole}))
    dcformat.verify(made)
    with dcformat.open(made) as file:
        assert b"".join(piece.tobytes() for piece in file.pieces("w")) == array.astype(STORAGE[dtype]).tobytes()


@pytest.mark.parametrize("kind", ["sparse shared", "shared", "bfloat16"])
def test_other_coders(kind: str) -> None:
    array, dtype = values(kind)
    made = packed(InMemory(array, dtype), "small")
    dcformat.verify(made)
    with dcformat.open(made) as file:
        assert b"".join(piece.tobytes() for piece in file.pieces("w")) == array.astype(STORAGE[dtype]).tobytes()
    assert len(made) <= len(packed(InMemory(array, dtype), "fast"))


def test_negative_zeros_and_scales_are_kept() -> None:
    array = np.where(np.random.default_rng(1).random((900, 1200)) < 0.5, np.float32(-0.0), np.float32(1.5))
    made = dcformat.load(packed(InMemory(array, "float32"), "fast")).tensors["w"]
    assert np.array_equal(made.to_dense().view(np.uint32), array.view(np.uint32))
    codes = np.random.default_rng(1).integers(-8, 8, (900, 1200)).astype(np.int8)
    tensor = dcformat.load(packed(InMemory(codes, "int8", 0.25), "fast")).tensors["w"]
    assert tensor.scale == 0.25 and np.array_equal(tensor.to_dense(), codes)


def test_a_chunk_that_does_not_read_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    array, _ = values("dense")
    elements = InMemory(array, "float32")
    found = piecewise.survey(elements, "fast")

    def damaged(part: Array, *_: object) -> bytes:
        return write_block(-part.reshape(-1), "float32", "fast")

    monkeypatch.setattr(piecewise, "encode_values", damaged)
    with pytest.raises(ReadBackError, match="w: expected the same values when read back, found others"):
        piecewise.code_chunk(elements, found, 0)


@pytest.mark.needs_compiler
def test_integers_are_predicted_chunk_by_chunk() -> None:
    steps = np.random.default_rng(1).integers(-5, 6, (40, 64))
    walk = np.clip(np.cumsum(steps, axis=1), -128, 127).astype(np.int8)
    found = piecewise.survey(InMemory(walk, "int8", 0.5), "tiny")
    assert found.coding == Coding(layout.CODER_PREDICTION)
    assert np.array_equal(dcformat.load(packed(InMemory(walk, "int8", 0.5), "tiny")).tensors["w"].to_dense(), walk)


def large_file() -> bytes:
    return packed(InMemory(values("dense", (1600, 1500))[0], "float32"), "fast")


def test_chunks_are_decoded_within_a_fraction_of_the_memory() -> None:
    made = large_file()
    with dcformat.open(io.BytesIO(made), max_memory=30_000_000) as file:
        assert sum(len(piece) for piece in file.pieces("w")) == 2_400_000
        with pytest.raises(MemoryLimitError):
            file.tensor("w")
    with dcformat.open(io.BytesIO(made), max_memory=4_000_000) as file, pytest.raises(MemoryLimitError):
        list(file.pieces("w"))
    with dcformat.open(io.BytesIO(made), max_work=1_000_000) as file, pytest.raises(WorkLimitError):
        list(file.pieces("w"))


def test_damage_is_found_before_anything_is_decoded() -> None:
    made = bytearray(large_file())
    made[len(made) // 2] ^= 1
    with dcformat.open(bytes(made)) as file, pytest.raises(ChecksumError):
        next(file.pieces("w"))


def test_a_file_that_changes_between_check_and_decoding() -> None:
    class Altered(io.BytesIO):
        """A file whose bytes change once all have been read."""

        far = 0

        def read(self, size: int | None = -1) -> bytes:
            start = self.tell()
            data = super().read(size)
            if start < self.far and start + len(data) > len(made) // 2 > start and len(data) > 1000:
                return data[:900] + bytes([data[900] ^ 1]) + data[901:]
            self.far = max(self.far, start)
            return data

    made = large_file()
    with dcformat.open(Altered(made)) as file, pytest.raises(dcformat.FormatError):
        list(file.pieces("w"))


def pieces(data: bytes) -> Array:
    with dcformat.open(data) as file:
        return np.concatenate(list(file.pieces(file.names[0])))


def test_chunks_of_other_sizes_than_the_payload() -> None:
    """Two rows of 20,000 numbers, in a chunk each."""
    values = np.arange(40_000, dtype="<f4")

    def chunked(first: int, second: int) -> bytes:
        table = varint(first) + varint(second)
        return one(bytes((RAW,)) + varint(1) + table + values.tobytes(), shape=(2, 20_000))

    assert np.array_equal(pieces(chunked(80_000, 80_000)), values)
    with pytest.raises(TruncatedError, match=r"payload: .*160,008"):
        pieces(chunked(80_000, 80_001))
    with pytest.raises(TrailingDataError, match=r"payload: .*160,007"):
        pieces(chunked(80_000, 79_999))


def test_a_beginning_longer_than_the_payload() -> None:
    """The head of the chunks would be longer than the first read, and than the whole payload."""
    payload = bytes((1,)) + varint(1) + varint(1 << 21) + bytes(1 << 20)
    data = one(payload, form=SPARSE_SHARED, shape=(50, 50), stored=9, codebook_size=3)
    with pytest.raises(TruncatedError, match=r"head .*: expected 2,097,152 bytes, found 1,048,576"):
        pieces(data)


def test_a_transposed_payload_is_decoded_at_once() -> None:
    made = tensor(np.random.default_rng(1), "t", (200, 300), "float32", "sparse", density=0.6)
    data = dumps_as(Model({"t": made}), way(1, transposed=True, blocks=True))
    assert np.array_equal(pieces(data), made.to_dense().reshape(-1))
