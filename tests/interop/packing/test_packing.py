"""Checkpoints are packed tensor by tensor, to the same bytes however the work is divided, and resume after failures."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_interop import UnfitError, read_checkpoint
from dcformat_interop.packing import units
from dcformat_interop.packing.origin import origin_section
from dcformat_interop.packing.packed_files import INDEX_NAME, PackedFiles, opened_files, write_one, write_shards
from dcformat_interop.packing.restore import restore
from dcformat_interop.packing.shards import find_shards
from dcformat_interop.packing.workers import Processes, ThisProcess, WorkerError

import dcformat
from dcformat.codecs import Mode
from tests.interop.packing.checkpoints import INDEX, contents, safetensors, write
from tests.interop.packing.packings import Counting, pack, packing


def test_the_bytes_are_those_of_save(tmp_path: Path) -> None:
    everything = write(tmp_path / "in", 1)
    file = tmp_path / "in" / "model-00001-of-00001.safetensors"
    work = packing(file)
    with work.journal(None) as journal, (tmp_path / "a.dcf").open("wb") as out:
        work.run(ThisProcess(), journal, lambda _: None)
        write_one(work.coded(journal), "fast", {}, (), out)
    read = read_checkpoint(file)
    tensors = {n: dcformat.from_dense(n, t.values, t.dtype) for n, t in read.tensors.items()}
    assert (tmp_path / "a.dcf").read_bytes() == dcformat.dumps(dcformat.Model(tensors))
    assert list(tensors) == list(everything)


@pytest.mark.parametrize("mode", ["fast", "small"])
def test_shards_come_back_byte_for_byte(tmp_path: Path, mode: Mode) -> None:
    write(tmp_path / "in")
    pack(tmp_path / "in", tmp_path / "a.dcf", mode=mode)
    dcformat.verify(tmp_path / "a.dcf")
    (tmp_path / "back").mkdir()
    with dcformat.open(tmp_path / "a.dcf") as file:
        content = PackedFiles("a.dcf", [file])
        origin = content.origin()
        assert origin is not None
        written = restore(content, origin, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "in")
    assert written[-1].name == INDEX


def test_several_processes_give_the_same_bytes(tmp_path: Path, separately: None) -> None:
    write(tmp_path / "in")
    engine = Processes(2)
    try:
        assert pack(tmp_path / "in", tmp_path / "a", engine) == pack(tmp_path / "in", tmp_path / "b")
    finally:
        engine.close()


def test_a_large_tensor_is_coded_in_chunks(tmp_path: Path) -> None:
    shape = (4200, 4000)
    values = np.random.default_rng(3).integers(0, 3, shape).astype(np.uint16)
    (tmp_path / "big.safetensors").write_bytes(safetensors({"small": values[0], "big": values}))
    engine = Counting()
    made = pack(tmp_path / "big.safetensors", tmp_path / "a.dcf", engine)
    assert [type(unit).__name__ for unit in engine.units[:2]] == ["WholeTensors", "SurveyOfTensor"]
    numbers = [unit.number for unit in engine.units[2:] if isinstance(unit, units.ChunkOfTensor)]
    assert numbers == list(range(len(numbers))) and len(numbers) > 8
    with dcformat.open(made) as file:
        assert b"".join(piece.tobytes() for piece in file.pieces("big")) == values.tobytes()
    # Interrupted within the tensor: the survey is done again, finished chunks are not.
    with pytest.raises(WorkerError):
        pack(tmp_path / "big.safetensors", tmp_path / "b.dcf", Counting(7), tmp_path / "j")
    again = Counting()
    assert pack(tmp_path / "big.safetensors", tmp_path / "b.dcf", again, tmp_path / "j") == made
    assert [type(unit).__name__ for unit in again.units] == ["SurveyOfTensor"] + ["ChunkOfTensor"] * (len(numbers) - 5)


def test_a_shard_that_changes_meanwhile(tmp_path: Path) -> None:
    write(tmp_path / "in")
    work = packing(tmp_path / "in")
    os.utime(tmp_path / "in" / "model-00002-of-00003.safetensors", ns=(1, 1))
    with (
        work.journal(None) as journal,
        pytest.raises(UnfitError, match=r"00002-of.*: 1\.weight: expected the file to"),
    ):
        work.run(ThisProcess(), journal, lambda _: None)


class Interrupting:
    """Interrupts this process while it is sent to another."""

    def __reduce__(self) -> tuple[type[int], tuple[()]]:
        signal.raise_signal(signal.SIGINT)
        return int, ()


def test_an_interrupt_while_workers_start_is_not_lost() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Processes(2, Interrupting())  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGINT, before)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_reported() -> None:
    engine = Processes(2, signal.raise_signal)  # type: ignore[arg-type]
    try:
        engine.submit(signal.SIGKILL)  # type: ignore[arg-type]
        with pytest.raises(WorkerError, match=r"killed by signal 9 \(SIGKILL\).*fewer --jobs"):
            engine.wait()
    finally:
        engine.close()


def test_workers_of_a_killed_process_end_in_silence() -> None:
    lines = (
        "import os, time",
        "from dcformat_interop.packing.workers import Processes",
        "engine = Processes(2, time.sleep)",
        "engine.submit(0.2)",
        "engine.submit(0.2)",
        "os._exit(3)",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # The pipe ends with the last process that could write.
    made = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, env=environment, check=False)
    assert (made.returncode, made.stdout, made.stderr) == (3, b"", b"")


def test_an_error_in_a_worker_is_the_same_here(tmp_path: Path) -> None:
    write(tmp_path / "in")
    work = packing(tmp_path / "in")
    os.utime(tmp_path / "in" / "model-00001-of-00003.safetensors", ns=(1, 1))
    engine = Processes(1)
    try:
        with work.journal(None) as journal, pytest.raises(UnfitError) as error:
            work.run(engine, journal, lambda _: None)
    finally:
        engine.close()
    assert error.value.expected == "the file to stay unchanged while it is packed"


def test_memory_is_counted_for_all_jobs(tmp_path: Path) -> None:
    write(tmp_path / "in")
    work = packing(tmp_path / "in", max_memory=70_000)
    with work.journal(None) as journal:
        work.run(ThisProcess(), journal, lambda _: None)
    engine = Processes(2)
    try:
        with work.journal(None) as journal, pytest.raises(UnfitError, match="in 2 jobs"):
            work.run(engine, journal, lambda _: None)
    finally:
        engine.close()


def test_what_is_unusual_is_noted(tmp_path: Path) -> None:
    zeros = np.zeros(640, np.float32)
    zeros[:10] = -0.0
    many = np.where(np.arange(64) % 2, np.float32(-0.0), np.float32(2))
    arrays = {
        "few": zeros, "many": many, "nan": np.array([1, np.nan], np.float32), "small": np.array([1e-40, 1], np.float32),
        "x_mask": np.array([0, 1, 1], np.float32),
        "w_orig": np.array([5, 6], np.float32), "w_mask": np.array([0, 1], np.float32),
    }  # fmt: skip
    (tmp_path / "a.safetensors").write_bytes(safetensors(arrays))
    (tmp_path / "b.safetensors").write_bytes(safetensors({"u": np.array([1], np.float32)}))
    work = packing(tmp_path, skip=("u",))
    with work.journal(None) as journal:
        work.run(ThisProcess(), journal, lambda _: None)
        texts = [note.text for note in work.notes(journal)]
        with (tmp_path / "out").open("wb") as out:
            write_one(work.coded(journal), "fast", {}, (), out)
    assert texts == [
        "folded 1 pruning mask (NAME_orig, NAME_mask) into the weights",
        "left out as asked: 1 entry: u",
        "kept, but NaN or infinite in some places: 1 entry: nan (1 place)",
        "kept, although they look like pruning masks without weights: 1 entry: x_mask",
        "stored 32 negative zeros as positive zero (--exact keeps the sign)",
        "1 denormal value (slow on most processors) in small",
    ]
    assert not work.selection.is_whole
    tensors = dcformat.load(tmp_path / "out").tensors
    assert tensors["w"].to_dense().tolist() == [0, 6]
    assert np.signbit(tensors["few"].to_dense()).sum() == 10 and not np.signbit(tensors["many"].to_dense()).any()


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    def refused(arrays: Any, message: str) -> None:
        (tmp_path / "a.safetensors").write_bytes(safetensors(arrays))
        with pytest.raises(UnfitError, match=message):
            work = packing(tmp_path / "a.safetensors")
            with work.journal(None) as journal:
                work.run(ThisProcess(), journal, lambda _: None)

    two = np.array([1, 2], np.float32)
    refused({"w_orig": two, "w_mask": two}, "w_mask: expected a mask of zeros and ones, found other values")
    refused({"w_orig": two, "w_mask": two[:1]}, r"expected a mask of shape \(2,\), found \(1,\)")
    refused({"w_orig": two, "w_mask": two, "w": two}, "expected no 'w' beside it, found one")
    refused({}, "expected at least one tensor of .*, found none")


def test_output_in_several_files(tmp_path: Path) -> None:
    write(tmp_path / "in")
    work = packing(tmp_path / "in")
    (tmp_path / "out").mkdir()
    with work.journal(None) as journal:
        work.run(ThisProcess(), journal, lambda _: None)
        origin = [origin_section(find_shards(tmp_path / "in"))]
        files = write_shards(work.coded(journal), "fast", {}, origin, tmp_path / "out", 6000)
    count = len(files) - 1
    assert [path.name for path in files[:-1]] == [f"model-{n + 1:05}-of-{count:05}.dcf" for n in range(count)]
    assert files[-1].name == INDEX_NAME
    assert len(files) > 3
    for path in files[:-1]:
        dcformat.verify(path)
        assert path.stat().st_size < 9000
    (tmp_path / "back").mkdir()
    for name in ("out", f"out/{INDEX_NAME}"):
        with opened_files(tmp_path / name) as content:
            found = content.origin()
            assert found is not None
            restore(content, found, tmp_path / "back")
        assert contents(tmp_path / "back") == contents(tmp_path / "in")
    index = json.loads(files[-1].read_bytes())
    left = {name: file for name, file in index["weight_map"].items() if file != files[0].name}
    (tmp_path / "out" / INDEX_NAME).write_text(json.dumps({**index, "weight_map": left}))
    stated = index["metadata"]["total_size"]
    with (
        pytest.raises(UnfitError, match=f"bytes of tensors, as its files have, found total_size {stated}"),
        opened_files(tmp_path / "out"),
    ):
        pass
    with opened_files(tmp_path / "out", partial=True) as content:
        assert set(content.names) == set(left)
    (tmp_path / "out" / INDEX_NAME).write_text(json.dumps(index))
    files[1].rename(tmp_path / "gone")
    with pytest.raises(UnfitError, match="which the index names"), opened_files(tmp_path / "out"):
        pass
    files[0].rename(files[1])
    (tmp_path / "gone").rename(files[0])
    with pytest.raises(UnfitError, match="where the index has it"), opened_files(tmp_path / "out"):
        pass
    with pytest.raises(UnfitError, match="a directory with an index"), opened_files(tmp_path / "in"):
        pass


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [("w" * 256, (1,), "a name of 1 to 255 bytes"), ("w", (1,) * 8, "at most 7 dimensions")],
)
def test_a_tensor_that_a_file_cannot_hold_is_refused_before_any_is_packed(
    tmp_path: Path, name: str, shape: tuple[int, ...], expected: str
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"b": np.ones(3, np.float32), name: np.ones(shape, np.float32)}))
    with pytest.raises(UnfitError) as error:
        packing(path)
    assert error.value.expected == expected and error.value.path == str(path)
    assert [each.name for each in packing(path, skip=(name,)).selection.elements] == ["b"]
