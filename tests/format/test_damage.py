"""Every damaged bit is found and named by tensor, and the tensors that are whole can still be read."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

import dcformat
from dcformat.dense import from_dense
from dcformat.errors import FormatError, MemoryLimitError, TruncatedError
from dcformat.files import replacing
from dcformat.model import Model
from tests.format.strategies import COMPILED


def model() -> Model:
    source = np.random.default_rng(0)
    sparse = np.where(source.random((9, 30)) < 0.2, source.standard_normal((9, 30)), 0).astype("<f4")
    tensors = {
        "sparse": from_dense("sparse", sparse),
        "shared": from_dense("shared", source.choice([0.0, 0.5, -1.5], (20, 10)).astype("<f4")),
        "dense": from_dense("dense", source.standard_normal((3, 5)).astype("<f4")),
        # A block holds at most 64 KiB of several tensors, so this one has its own block.
        "large": from_dense("large", source.integers(0, 256, (257, 256), np.uint8), "uint8"),
        "last": from_dense("last", source.standard_normal(7).astype("<f2"), "float16"),
    }
    return Model(tensors, metadata={"k": "v"})


# Trying every way to code the large tensor takes a quarter of a minute where kernels run as Python.
WHOLE = dcformat.dumps(model(), mode="small" if COMPILED else "fast")
with dcformat.open(WHOLE) as _file:
    #: The front, then the first and the last byte of each data block with its checksum, and the names of its tensors.
    NAMES = _file.names
    FRONT = len(WHOLE) - 8 - sum(_file.info(name).payload_bytes for name in NAMES) - 4 * 3
    SIZES = [sum(_file.info(name).payload_bytes for name in NAMES if _file.info(name).block == n) + 4 for n in range(3)]
    HELD = [[name for name in NAMES if _file.info(name).block == n] for n in range(3)]


def damaged(data: bytes | bytearray) -> dict[str, FormatError]:
    with dcformat.open(data, partial=True) as file:
        return file.damaged()


def owner(position: int) -> int | None:
    """Return the block that holds a byte; None for the front and the digest."""
    begin = FRONT
    for block, size in enumerate(SIZES):
        if begin <= position < begin + size:
            return block
        begin += size
    return None


def test_the_blocks_are_as_the_tests_need_them() -> None:
    assert HELD == [["sparse", "shared", "dense"], ["large"], ["last"]]
    assert FRONT + sum(SIZES) + 8 == len(WHOLE)


def bits() -> list[int]:
    """Return every bit of the file but those in the middle of the large tensor, of which every 101st."""
    begin = FRONT + SIZES[0]
    middle = range(8 * (begin + 64), 8 * (begin + SIZES[1] - 64))
    return [bit for bit in range(8 * len(WHOLE)) if bit not in middle or bit % 101 == 0]


@pytest.mark.parametrize("step", [53, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_found_and_named_by_tensor(step: int) -> None:
    for bit in bits()[::step]:
        altered = bytearray(WHOLE)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError) as caught:
            dcformat.verify(altered)
        block = owner(bit // 8)
        if block is not None:
            for name in HELD[block]:
                assert f"'{name}'" in str(caught.value), bit


def test_all_other_tensors_are_whole() -> None:
    for bit in bits()[::97]:
        altered = bytearray(WHOLE)
        altered[bit // 8] ^= 1 << bit % 8
        block = owner(bit // 8)
        if block is not None:
            assert list(damaged(altered)) == HELD[block], bit
        elif bit // 8 >= FRONT:
            assert damaged(altered) == {}, bit


def test_every_truncation_leaves_the_tensors_before_it() -> None:
    ends = np.cumsum([FRONT, *SIZES])
    for length in [*range(int(FRONT), int(FRONT) + 300, 7), *ends.tolist(), *(ends - 1).tolist(), len(WHOLE) - 1]:
        if length < FRONT:
            continue
        lost = [name for block, names in enumerate(HELD) for name in names if ends[block + 1] > length]
        found = damaged(WHOLE[:length])
        assert list(found) == lost, length
        assert all(isinstance(error, TruncatedError) for error in found.values())
        with pytest.raises(TruncatedError):
            dcformat.open(WHOLE[:length])


def test_a_tensor_that_may_be_whole_is_not_called_damaged() -> None:
    with dcformat.open(WHOLE, max_memory=30_000) as file, pytest.raises(MemoryLimitError):
        file.damaged()


def test_many_tensors_of_a_block_are_counted() -> None:
    many = Model({f"t{n}": from_dense(f"t{n}", np.arange(n, n + 3, dtype="<f4")) for n in range(20)})
    altered = bytearray(dcformat.dumps(many))
    altered[-20] ^= 1
    with pytest.raises(FormatError, match=r"data block 0 \(tensors 't0', .*, 't7' and 12 more\)"):
        dcformat.verify(altered)


class Full(io.RawIOBase):
    """A disk with room for a few bytes."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: Any) -> int:
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        return self.file.write(data)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    from dcformat.writer import write

    small = Model({name: made for name, made in model().tensors.items() if name != "large"})
    size = len(dcformat.dumps(small, mode="small"))
    path = tmp_path / "a.dcf"
    path.write_bytes(b"precious")
    for room in (0, 5, 100, size - 9, size - 1):
        with pytest.raises(OSError, match="No space left on device") as caught, replacing(path) as file:
            write(small, Full(file, room), mode="small")  # type: ignore[arg-type]
        assert caught.value.filename == str(path)
        assert path.read_bytes() == b"precious"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.dcf"]


@pytest.mark.slow
def test_two_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    ways = ["fast", "small"] * 4
    threads = [threading.Thread(target=lambda mode=mode: dcformat.save(model(), path, mode=mode)) for mode in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in (WHOLE, dcformat.dumps(model()))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.dcf"]
