"""Output files are complete, or do not exist."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import dcformat
from dcformat.errors import FormatError
from dcformat.files import check_output, replacing
from dcformat.model import Model, Tensor
from tests.format.strategies import small_model


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcf"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_model_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    dcformat.save(small_model(), path)
    before = path.read_bytes()
    bad = Tensor("w", (1,), "float32", np.array([1], "<f8"))
    with pytest.raises(FormatError):
        dcformat.save(Model({"w": bad}), path)
    assert path.read_bytes() == before == dcformat.dumps(small_model())
    assert len(list(tmp_path.iterdir())) == 1


def test_permissions_are_kept_and_new_ones_follow_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    path.chmod(0o640)
    with replacing(path) as file:
        file.write(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "b") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["missing/a.dcf", "file/a.dcf", "."])
def test_where_nothing_can_be_written_the_error_names_the_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    for attempt in (check_output, lambda path: replacing(path).__enter__()):
        with pytest.raises(OSError) as caught:
            attempt(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_device_is_written_to_as_it_is() -> None:
    dcformat.save(small_model(), "/dev/null")
    assert Path("/dev/null").is_char_device()


WRITER = """
import sys
from dcformat.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(sys.argv[2].encode())
    file.flush()
    print("open", flush=True)
    sys.stdin.readline()
"""


def writer(path: Path, text: str) -> subprocess.Popen[str]:
    """Start a process that has written half of a file and waits."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), text], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_left_by_a_killed_writer_are_removed_by_the_next(tmp_path: Path) -> None:
    path, other = tmp_path / "a.dcf", tmp_path / "a.dcf.old"
    for target in (path, other):
        with writer(target, "dead") as process:
            process.kill()
    (tmp_path / ".a.dcf.notes.partial").write_bytes(b"somebody's")
    assert len(names(tmp_path)) == 3
    with replacing(path) as file:
        file.write(b"new")
    left = names(tmp_path)
    assert left[0] == ".a.dcf.notes.partial" and left[1].startswith(".a.dcf.old.") and left[2:] == ["a.dcf"]
    check_output(other)
    assert names(tmp_path) == [".a.dcf.notes.partial", "a.dcf"]


def test_a_live_writer_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    with writer(path, "second") as process:
        check_output(path)
        with replacing(path) as file:
            file.write(b"first")
        assert path.read_bytes() == b"first" and len(names(tmp_path)) == 2
        process.communicate("go on\n")
        assert process.returncode == 0
    assert path.read_bytes() == b"second" and names(tmp_path) == ["a.dcf"]


def test_many_writers_of_one_file_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"

    def write(number: int) -> None:
        for _ in range(20):
            with replacing(path) as file:
                file.write(bytes((number,)) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(set(path.read_bytes())) == 1 and path.stat().st_size == 1000 and names(tmp_path) == ["a.dcf"]


def test_the_umask_is_not_touched_and_private_files_are_private_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"secret")
    path.chmod(0o600)

    def umask(_: int) -> int:
        raise AssertionError("the umask belongs to the whole process")

    monkeypatch.setattr(os, "umask", umask)
    with replacing(path) as file:
        file.write(b"more secret")
        (temporary,) = (found for found in tmp_path.iterdir() if found != path)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    path.write_bytes(b"old")
    program = (
        "import resource, signal, sys\nfrom dcformat.files import replacing\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    with replacing(sys.argv[1]) as file:\n        file.write(bytes(5000))\n"
        "except OSError as error:\n    print(error.filename)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path}\n" and path.read_bytes() == b"old" and names(tmp_path) == ["a.dcf"]


@pytest.mark.parametrize("name", ["a" * 250, "\N{HIRAGANA LETTER A}" * 80])
def test_long_names(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as file:
        file.write(b"x")
    assert names(tmp_path) == [name]


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="loop"), replacing(tmp_path / "loop") as file:
        file.write(b"x")
    assert names(tmp_path) == ["loop"]
