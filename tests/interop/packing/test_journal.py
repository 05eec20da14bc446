"""An interrupted packing continues from its journal, which is trusted only as far as its checksums are right."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dcformat_interop.packing.checkpoint_packing import PackingProgress
from dcformat_interop.packing.journal import BusyError, Journal
from dcformat_interop.packing.shards import find_shards
from dcformat_interop.packing.workers import Executor, ThisProcess, WorkerError

from tests.interop.packing.checkpoints import write
from tests.interop.packing.packings import Counting, pack, packing

MARK = "dcformat journal\n"


def test_an_interrupted_packing_goes_on(tmp_path: Path, separately: None) -> None:
    everything = list(write(tmp_path / "in"))
    whole = pack(tmp_path / "in", tmp_path / "a")
    first, second = Counting(8), Counting()
    with pytest.raises(WorkerError, match="failed as asked"):
        pack(tmp_path / "in", tmp_path / "b", first, tmp_path / "b.journal")
    assert {"b.journal", "b.journal.data"} <= {path.name for path in tmp_path.iterdir()}
    assert pack(tmp_path / "in", tmp_path / "b", second, tmp_path / "b.journal") == whole
    assert first.names == everything[:8] and second.names == everything[8:]
    assert {path.name for path in tmp_path.iterdir()} == {"in", "a", "b"}


def test_progress_is_in_bytes_and_tells_what_was_kept(tmp_path: Path, separately: None) -> None:
    everything = write(tmp_path / "in")
    total = sum(array.nbytes for array in everything.values())
    seen = list[PackingProgress]()

    def run(engine: Executor) -> None:
        work = packing(tmp_path / "in")
        with work.journal(tmp_path / "j") as journal:
            work.run(engine, journal, seen.append)

    with pytest.raises(WorkerError):
        run(Counting(5))
    assert seen[0] == PackingProgress(0, total, 0) and seen[-1].done == seen[-1].total - sum(
        array.nbytes for array in list(everything.values())[5:]
    )
    kept = seen[-1].done
    seen.clear()
    run(ThisProcess())
    assert seen[0] == PackingProgress(kept, total, kept) and seen[-1] == PackingProgress(total, total, kept)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(MARK) + 5] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("harm", "name", "again"),
    [(flip, "j.data", 1), (cut, "j.data", 1), (cut, "j", 1), (Path.unlink, "j.data", 8), (Path.unlink, "j", 8)],
)
def test_what_is_kept_is_proved_by_its_checksum(
    tmp_path: Path, separately: None, harm: Callable[[Path], None], name: str, again: int
) -> None:
    write(tmp_path / "in")
    whole = pack(tmp_path / "in", tmp_path / "a")
    with pytest.raises(WorkerError):
        pack(tmp_path / "in", tmp_path / "b", Counting(8), tmp_path / "j")
    harm(tmp_path / name)
    engine = Counting()
    assert pack(tmp_path / "in", tmp_path / "b", engine, tmp_path / "j") == whole
    assert len(engine.names) == 21 - 8 + again


def test_other_options_or_a_changed_shard_begin_anew(tmp_path: Path, separately: None) -> None:
    write(tmp_path / "in")
    with pytest.raises(WorkerError):
        pack(tmp_path / "in", tmp_path / "b", Counting(10), tmp_path / "j")
    # The first shard changes, so that only the three finished tensors of the second are kept.
    first = tmp_path / "in" / "model-00001-of-00003.safetensors"
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(bytes(data))
    os.utime(first, ns=(1, 1))
    engine = Counting(12)
    with pytest.raises(WorkerError):
        pack(tmp_path / "in", tmp_path / "b", engine, tmp_path / "j")
    assert engine.names[:7] == names_of(first)
    engine = Counting()
    with packing(tmp_path / "in", mode="small").journal(tmp_path / "j") as journal:
        assert journal.restarted and not journal.tensors


def names_of(path: Path) -> list[str]:
    return [entry.name for entry in find_shards(path).shards[0].layout.entries]


def test_two_writers_at_once(tmp_path: Path) -> None:
    write(tmp_path / "in")
    first = packing(tmp_path / "in").journal(tmp_path / "j")
    with pytest.raises(BusyError, match="another process is packing to this output"):
        packing(tmp_path / "in").journal(tmp_path / "j")
    first.close()
    packing(tmp_path / "in").journal(tmp_path / "j").close()


def test_a_journal_with_lines_of_other_kinds(tmp_path: Path) -> None:
    write(tmp_path / "in")
    for text in ("", "[1]\n", "{}\n{}\n", "\x00", '{"options": 1}\n{"tensor": 5}\n', "\xff\n"):
        (tmp_path / "j").write_bytes((MARK + text).encode("latin-1"))
        with packing(tmp_path / "in").journal(tmp_path / "j") as journal:
            assert isinstance(journal, Journal) and not journal.tensors


@pytest.mark.parametrize("name", ["j", "j.data"])
def test_files_that_no_journal_left(tmp_path: Path, name: str) -> None:
    write(tmp_path / "in")
    for content in (b"mine", b"dcformat journey\n", bytes(100), b'{"options":{}}\n'):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileExistsError, match=rf"not a journal .* move or rename it: '.*/{name}'"):
            packing(tmp_path / "in").journal(tmp_path / "j")
        assert (tmp_path / name).read_bytes() == content
        assert {path.name for path in tmp_path.iterdir()} == {"in", name}


def test_files_of_a_journal_cut_short_in_their_first_line(tmp_path: Path) -> None:
    write(tmp_path / "in")
    (tmp_path / "j").write_bytes(b"dcfor")
    (tmp_path / "j.data").write_bytes(b"dcf")
    with packing(tmp_path / "in").journal(tmp_path / "j") as journal:
        assert not journal.restarted and journal.put(b"one").offset == len(MARK)
    assert (tmp_path / "j.data").read_bytes() == MARK.encode() + b"one"


def test_a_neighbour_of_the_journal_stays(tmp_path: Path) -> None:
    write(tmp_path / "in")
    (tmp_path / "j.new").write_bytes(b"mine")
    pack(tmp_path / "in", tmp_path / "out", journal=tmp_path / "j")
    assert (tmp_path / "j.new").read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "j.new"}


def test_a_journal_with_lines_that_no_packing_wrote(tmp_path: Path) -> None:
    write(tmp_path / "in")
    work = packing(tmp_path / "in")
    with work.journal(tmp_path / "j") as journal:
        work.run(ThisProcess(), journal, lambda _: None)
    text = (tmp_path / "j").read_text()
    mark, options, *_, last = text.splitlines()
    line = json.loads(last)
    for changes in ({"parts": [[at, 1, "0"]]} for at in (10**30, -1, "0", None)):
        (tmp_path / "j").write_text(f"{mark}\n{options}\n{json.dumps(line | changes)}\n{'[' * 100_000}")
        with work.journal(tmp_path / "j") as journal:
            assert not journal.tensors and not journal.chunks
    unknown = {"tensor": "unknown", "chunk": 0, "file": None, "parts": [], "stored": 0}
    (tmp_path / "j").write_text(f"{mark}\n{options}\n{json.dumps(unknown)}\n")
    with work.journal(tmp_path / "j") as journal:
        assert not journal.tensors and not journal.chunks
    # A line too long to be one of a journal is not read as a whole.
    (tmp_path / "j").write_text(f"{mark}\n{options}\n{last[:-1]}{' ' * (17 << 20)}}}\n")
    with work.journal(tmp_path / "j") as journal:
        assert journal.restarted is False and not journal.tensors
