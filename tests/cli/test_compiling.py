"""Users see when kernels are compiled, and every verb that reads files works without a compiler."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from dcformat_cli import compiling
from dcformat_cli.compiling import Notices, all_kernels, count_kernels

from dcformat.jit import abi
from dcformat.jit.machine_code import store
from tests.cli.support import spawn

MODELS = Path(__file__).resolve().parents[2] / "models"
EXTREME = MODELS / "lenet-300-100-extreme.dcf"

BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
sys.argv[1:] = %r
from dcformat_cli.main import main
main()
"""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def _twelve_of_34(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "count_kernels", lambda: (12, 34))


@pytest.mark.usefixtures("_twelve_of_34")
def test_without_a_terminal_one_line_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices()
    for number, kernel in enumerate(("a.first", "a._second"), start=1):
        notices.compiling(kernel, number, True)
        notices.compiled()
    assert capsys.readouterr().err == (
        "compiling kernels once for this machine: 12 of 34 are saved, and a command compiles those that it needs\n"
    )


@pytest.mark.usefixtures("_twelve_of_34")
def test_on_a_terminal_the_line_moves_and_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    notices = Notices()
    for number, kernel in enumerate(("a.first", "a._second"), start=1):
        notices.compiling(kernel, number, number == 1)
        notices.compiled()
    assert isinstance(sys.stderr, _Terminal)
    assert sys.stderr.getvalue().split("\r\033[K") == [
        "", "compiling kernel 13 of 34, once for this machine (first) ...", "",
        "compiling kernel 2, for this run only (second) ...", "",
    ]  # fmt: skip


def test_kernels_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path))
    saved, total = count_kernels()
    assert (saved, total) == (0, len(all_kernels()))
    assert total >= 40


@pytest.mark.needs_compiler
@pytest.mark.skipif(not abi.layout_known(), reason="machine code is not kept on this platform")
def test_a_cache_that_cannot_be_used_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK", "DCFORMAT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path / "file"))
    done = spawn("verify", EXTREME)
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [
        "warning: compiled kernels cannot be saved, so every run is slow: "
        f"{tmp_path}/file/kernels: Not a directory (set DCFORMAT_CACHE_DIR to a folder that only you can write to)",
    ]


def _without_compiler(*arguments: object) -> str:
    done = spawn(BLOCKED % (list(map(str, arguments)),), python=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout.decode()


def test_missing_code_is_reported_if_some_came_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "shipped", lambda: str(tmp_path))
    Notices().missing("m.run")
    assert capsys.readouterr().err == ""
    (tmp_path / "0.kernel").touch()
    Notices().missing("m.run")
    assert capsys.readouterr().err.startswith("warning: no machine code of this installation fits kernel m.run")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.usefixtures("empty")
def test_without_a_compiler_warmup_lists_kernels() -> None:
    table = _without_compiler("warmup", "--list")
    assert "dcformat_runtime.kernels.interpreter.run" in table
    assert "0 of " in table


@pytest.mark.slow
def test_without_a_compiler_a_model_is_read_and_run(empty: Path, data: Path) -> None:
    assert ": good: " in _without_compiler("verify", EXTREME)
    _without_compiler("unpack", EXTREME, "-o", empty / "out.npz")
    assert (empty / "out.npz").stat().st_size > 10_000
    assert " of 200 test images right" in _without_compiler("run", EXTREME, "--data", data)


@pytest.mark.slow
@pytest.mark.usefixtures("empty")
def test_without_a_compiler_convolutions_are_run(data: Path) -> None:
    assert " of 200 test images right" in _without_compiler("run", MODELS / "lenet-5.dcf", "--data", data)


@pytest.mark.slow
@pytest.mark.usefixtures("empty")
def test_without_a_compiler_a_model_is_inspected() -> None:
    assert "mixing" in _without_compiler("inspect", EXTREME)
