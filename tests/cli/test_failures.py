"""Failures outside the files: full disks, closed pipes, places that cannot be written to."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from dcformat_cli.failures import MissingExtraError, UnfitError, describe
from dcformat_cli.main import cli

from dcformat import DcfFile
from dcformat.errors import ChecksumError, FormatError
from tests.cli.support import PACK, Invoke, command, environment, read_terminal, refused, spawn

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is Linux's")


def arguments_for(verb: str, npz: Path, dcf: Path, out: Path) -> list[object]:
    if verb == "pack":
        return [*PACK, npz, "-f", "-o", out.with_suffix(".dcf") if out != FULL else out]
    return ["unpack", dcf, "-f", "-o", out.with_suffix(".npz")]


@needs_full
def test_a_full_disk_under_the_output(dcf: Path, npz: Path) -> None:
    result = spawn(*PACK, npz, "-o", FULL, "--architecture", "lenet-300-100")
    assert result.returncode == 1
    assert result.stderr.decode() == "dcformat: /dev/full: the disk is full\n"


@needs_full
@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_a_full_disk_under_stdout(dcf: Path, verb: str) -> None:
    with FULL.open("wb") as out:
        result = spawn(verb, dcf, stdout=out)
    assert result.returncode == 1
    assert result.stderr.decode() == "dcformat: output: the disk is full\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
@pytest.mark.parametrize("verb", ["pack", "unpack"])
def test_an_output_that_cannot_be_written_leaves_the_old_file(
    invoke: Invoke, npz: Path, dcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str,
    verb: str,
) -> None:  # fmt: skip
    make = os.open

    def fail(path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code), path)
        return make(path, flags, *args, **kwargs)

    arguments = arguments_for(verb, npz, dcf, tmp_path / "out")
    out = Path(str(arguments[-1]))
    out.write_bytes(b"precious")
    monkeypatch.setattr(os, "open", fail)
    refused(invoke(*arguments), f"{out}: {words}")
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize("verb", ["pack", "unpack"])
def test_a_disk_that_fills_up_while_writing(
    invoke: Invoke, npz: Path, dcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = arguments_for(verb, npz, dcf, tmp_path / "out")
    out = Path(str(arguments[-1]))
    out.write_bytes(b"precious")
    monkeypatch.setattr(os, "fsync", fail)
    refused(invoke(*arguments), f"{out}: the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() == b"precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        refused(invoke(*PACK, npz, "-o", tmp_path / "a.dcf"), "a.dcf: permission denied")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="/proc is Linux's")
@pytest.mark.parametrize("verb", ["inspect", "verify", "diff"])
def test_an_input_that_cannot_be_read_is_named(invoke: Invoke, dcf: Path, verb: str) -> None:
    """Nothing is mapped at the beginning of the memory of a process, so reading this file fails there."""
    other = [dcf] if verb == "diff" else []
    refused(invoke(verb, *other, "/proc/self/mem"), "/proc/self/mem: Input/output error")


def test_missing_output_directories(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    refused(invoke(*PACK, npz, "-o", tmp_path / "no" / "a.dcf"), f"{tmp_path}/no: no such file or directory")
    (tmp_path / "file").write_bytes(b"")
    refused(
        invoke(*PACK, npz, "-o", tmp_path / "file" / "a.dcf"),
        f"{tmp_path}/file: a file, where a directory is expected",
    )
    refused(invoke(*PACK, npz, "-o", tmp_path), f"{tmp_path}: a directory, where a file is expected")


def test_a_pipe_that_nobody_reads(dcf: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = spawn("inspect", dcf, stdout=writer)
    finally:
        os.close(writer)
    assert result.returncode == 1
    assert result.stderr == b""


def test_a_link_is_followed_and_permissions_stay(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target.dcf", tmp_path / "link.dcf"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert invoke(*PACK, npz, "-f", "-o", link).exit_code == 0
    assert link.is_symlink()
    assert target.read_bytes() != b"old"
    assert target.stat().st_mode & 0o777 == 0o640


def test_without_stdin_stdout_and_terminal(dcf: Path) -> None:
    result = spawn("verify", dcf, stdin=subprocess.DEVNULL)
    assert result.returncode == 0
    assert result.stderr == b""


def test_on_a_terminal(dcf: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("inspect", dcf), stdout=slave, stderr=slave, stdin=slave, env={**environment(), "TERM": "xterm"}
    )
    os.close(slave)
    shown = read_terminal(master)
    assert process.wait(timeout=60) == 0
    assert b"\x1b[1m" in shown
    assert f"{dcf.stat().st_size:,}".encode() in shown


def test_interrupted_in_the_middle(invoke: Invoke, dcf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DcfFile, "usages", interrupt)
    refused(invoke("inspect", dcf), "dcformat: interrupted", code=130)


def test_our_own_bugs_are_reported_in_one_line(invoke: Invoke, dcf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*args: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(DcfFile, "usages", fault)
    line = refused(invoke("inspect", dcf), "unexpected ZeroDivisionError: two\\nlines", "--debug")
    assert line.startswith("dcformat: ")
    assert isinstance(CliRunner().invoke(cli, ["--debug", "inspect", str(dcf)]).exception, ZeroDivisionError)


def test_unknown_verbs_and_options(invoke: Invoke, dcf: Path) -> None:
    refused(invoke("squash"), "No such command 'squash'", code=2)
    refused(invoke("inspect", dcf, "--colour"), "--colour", "see dcformat inspect --help", code=2)
    assert invoke("--version").stdout.startswith("dcformat ")


@pytest.mark.parametrize(
    "verb", ["compress", "pack", "unpack", "inspect", "verify", "run", "bench", "warmup", "sweep", "study"]
)
def test_every_verb_has_help(invoke: Invoke, verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: dcformat {verb}")
    assert verb in invoke("--help").stdout


def test_descriptions() -> None:
    checksum = ChecksumError("contents", got="ab", expected="cd", offset=3)
    checksum.path = "a.dcf"
    assert describe(checksum) == "a.dcf: damaged: contents at byte 3: expected cd, found ab [E05]"
    assert isinstance(checksum, FormatError)
    assert describe(UnfitError("f", "one", "two", "what")) == "f: what: expected one, found two"
    assert describe(MissingExtraError("x needs y")) == "x needs y"
    assert describe(MemoryError()) == "out of memory"
    assert describe(OSError(errno.EIO, "Input/output error", b"\xff.dcf")) == "\udcff.dcf: Input/output error"
    assert describe(OSError(errno.ENOSPC, "No space left")) == "output: the disk is full"
    assert describe(OSError(errno.EIO, "Input/output error")) == "an input or the output: Input/output error"
    assert describe(ValueError("from elsewhere")).startswith("unexpected ValueError: from elsewhere")


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", ""], ["verify", "a.dcf", "--base", ""], ["diff", "", "a.dcf"], ["diff", "a.dcf", ""],
        ["run", "a.dcf", "--input", ""], ["run", "a.dcf", "--data", ""], ["bench", "a.dcf", "--input", ""],
        ["compress", "lenet-5", "-o", "a.dcf", "--checkpoint", ""], ["export", "c", "a.dcf", "-o", ""],
        ["warmup", "--into", ""], ["sweep", "--out", ""], ["study", "layers", "--out", ""], ["doctor", ""],
    ],
)  # fmt: skip
def test_an_empty_name(invoke: Invoke, arguments: list[str]) -> None:
    refused(invoke(*arguments), "expected the name of a file, found an empty one", code=2)


def test_a_directory_with_a_model(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    (tmp_path / "model.dcf").write_bytes(dcf.read_bytes())
    for verb in ("inspect", "verify"):
        result = invoke(verb, tmp_path)
        assert result.exit_code == 0 and result.stdout.startswith(str(tmp_path)), result.stderr


def test_urls_of_files_that_are_not_dcf(invoke: Invoke, tmp_path: Path) -> None:
    for verb in (["pack", "-o", tmp_path / "a.dcf"], ["doctor"], ["run", "a.dcf", "--input"]):
        refused(invoke(*verb, "https://example.org/a.npz"), "https://example.org/a.npz", "download it first", code=2)
