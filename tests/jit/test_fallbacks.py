"""If compiling, saving or loading kernels fails, they still run, the log names the failure, and no process waits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from dcformat.jit import abi
from dcformat.jit.machine_code import store
from tests.jit.processes import HERE, REPORT, RIGHT, ROOT, run

pytestmark = [
    pytest.mark.slow,  # the tests start processes that compile kernels
    pytest.mark.skipif(not abi.layout_known(), reason="machine code is not kept on this platform"),
]

FAILING = """
import json, logging, sys
import numpy as np
from unittest import mock
from dcformat import jit
from dcformat.jit.compiler import code_generation, elf
from dcformat.jit.machine_code import image, loader, store
from machine_kernels import simple

lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger("dcformat.jit").addHandler(Lines())
logging.getLogger("dcformat.jit").setLevel(logging.INFO)

def state(*patches):
    lines.clear()
    kernel = jit.Kernel(simple.total.python, simple.total.signature)
    for patch in patches:
        patch.start()
    try:
        result = kernel(np.arange(5, dtype=np.int64), 2)
    finally:
        mock.patch.stopall()
    return [int(result), kernel.state, [line.partition(": ")[2] for line in lines if "(" in line]]

def failing(where, name, error):
    return mock.patch.object(where, name, side_effect=error)

numba = sys.modules["numba"]
out = dict(
    link=state(failing(code_generation, "compile_image", elf.LinkError("it calls cosh"))),
    private=state(failing(code_generation, "compile_image", AttributeError("no _internal_codegen"))),
    type=state(failing(code_generation, "compile_image", TypeError("compile_extra"))),
    memory=state(failing(code_generation, "compile_image", MemoryError())),
    absent=state(mock.patch.dict(sys.modules, {"dcformat.jit.compiler.code_generation": None})),
    pack=state(mock.patch.object(image.CodeImage, "pack", side_effect=ValueError("a name"))),
    write=state(failing(store, "write", OSError("disk full"))),
    both=state(failing(code_generation, "compile_image", RuntimeError("a")), failing(numba, "njit", RuntimeError("b"))),
    load=state(failing(loader, "load", OSError("no executable memory"))),
    read=state(failing(store, "read", UnicodeDecodeError("ascii", b"", 0, 1, "bad"))),
)
print(json.dumps(out))
"""


def test_if_our_compiler_fails_numba_runs_the_kernel_and_then_python(tmp_path: Path) -> None:
    found = run(tmp_path, FAILING)
    assert {name: result for name, (result, _, _) in found.items()} == dict.fromkeys(found, 70)
    states = {name: state for name, (_, state, _) in found.items()}
    assert states == {
        "link": "numba", "private": "numba", "type": "numba", "memory": "numba", "absent": "numba", "pack": "numba",
        "write": "compiled", "load": "numba", "both": "python", "read": "compiled",
    }  # fmt: skip
    ours = "cannot be compiled to machine code that is saved"
    assert found["link"][2] == [f"{ours} (LinkError: it calls cosh)"]
    assert found["private"][2] == [f"{ours} (AttributeError: no _internal_codegen)"]
    assert found["both"][2] == [f"{ours} (RuntimeError: a)", "Numba cannot compile it (RuntimeError: b)"]
    assert found["load"][2] == ["its machine code cannot be loaded (OSError: no executable memory)"]


@pytest.mark.parametrize("text", ["raise ImportError('Numba needs NumPy 2.2 or less')", "raise RuntimeError('broken')"])
def test_a_broken_numba_counts_as_missing(tmp_path: Path, text: str) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(text)
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + REPORT
    found = run(tmp_path, script)
    assert found["out"] == RIGHT
    assert found["states"] == ["python"] * 6


def test_an_import_hook_that_refuses_numba_counts_as_missing(tmp_path: Path) -> None:
    blocked = (
        "import sys\nclass Refuse:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('numba', 'llvmlite'):\n            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    assert run(tmp_path, blocked + REPORT)["states"] == ["python"] * 6


# --- folders in which nothing can be saved ----------------------------------------------------------------------


def _reason(monkeypatch: pytest.MonkeyPatch, place: Path) -> str:
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(place))
    with pytest.raises(OSError) as caught:
        store.check()
    with pytest.raises(OSError) as again:
        store.write(bytes(32), "c", b"data")
    assert str(again.value) == str(caught.value)
    return str(caught.value).removeprefix(f"{place}/kernels: ")


def test_a_folder_that_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert _reason(monkeypatch, tmp_path / "file") == "Not a directory"
    assert _reason(monkeypatch, Path("/proc/none")) == "No such file or directory"
    (tmp_path / "open" / "kernels").mkdir(parents=True)
    (tmp_path / "open" / "kernels").chmod(0o777)
    assert _reason(monkeypatch, tmp_path / "open") == "others may write to it (mode 777)"


def test_a_folder_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path / "kernels", 12345, -1)
        assert _reason(monkeypatch, tmp_path) == "belongs to another user (uid 12345)"
    else:
        (tmp_path / "kernels").chmod(0o500)
        assert _reason(monkeypatch, tmp_path) == "may not be written to"


def test_without_a_home_there_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCFORMAT_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(OSError, match=r"^there is no home directory"):
        store.check()


OBSERVED = """
import json
from dcformat import jit
from machine_kernels import simple as k
events = []
class Note(jit.Observer):
    def compiling(self, kernel, number, saved):
        events.append([kernel.rpartition(".")[2], number, saved])
    def compiled(self):
        events.append("done")
    def unsaved(self, reason):
        events.append(reason.rpartition(": ")[2])
jit.observe(Note())
jit.warm([k.total, k.mean])
print(json.dumps(events))
"""


def test_an_observer_is_told_of_each_kernel_and_once_of_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    assert run(tmp_path, OBSERVED) == [["total", 1, True], "done", ["mean", 2, True], "done"]
    assert run(tmp_path, OBSERVED) == []
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file", OBSERVED) == [
        "Not a directory", ["total", 1, False], "done", ["mean", 2, False], "done",
    ]  # fmt: skip


def test_without_an_observer_a_folder_that_cannot_be_used_is_logged_and_nothing_printed(tmp_path: Path) -> None:
    script = (
        "import contextlib, io, json, logging\nfrom dcformat import jit\nfrom machine_kernels import simple as k\n"
        "lines = []\nh = logging.Handler()\nh.emit = lambda r: lines.append((r.levelname, r.getMessage()))\n"
        "logging.getLogger('dcformat').addHandler(h)\n"
        "with contextlib.redirect_stderr(io.StringIO()) as printed:\n    jit.warm([k.total, k.mean])\n"
        "print(json.dumps([lines, printed.getvalue()]))"
    )
    (tmp_path / "file").write_text("")
    text = f"compiled kernels cannot be saved ({tmp_path}/file/kernels: Not a directory)"
    assert run(tmp_path / "file", script) == [[["WARNING", text]], ""]


# --- processes that are killed, fork, or run threads ------------------------------------------------------------


def test_killing_a_process_while_it_compiles_leaves_a_usable_cache(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}", "DCFORMAT_CACHE_DIR": str(tmp_path)}
    script = "import sys\nfrom dcformat import jit\nfrom machine_kernels import simple as k\njit.warm(jit.kernels())"
    process = subprocess.Popen([sys.executable, "-c", script], env=env)
    while not list(tmp_path.rglob("*.kernel")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(tmp_path)["out"] == RIGHT
    assert run(tmp_path, DCFORMAT_CACHE="only")["states"] == ["saved"] * 6


def test_half_written_files_of_killed_processes_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path))
    store.check()
    old, fresh = tmp_path / "kernels" / ".1-ab.partial", tmp_path / "kernels" / ".2-cd.partial"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    written = store.write(bytes(32), "c", b"data")
    assert sorted((tmp_path / "kernels").iterdir()) == sorted([fresh, Path(written)])


#: Lets a thread of the program that follows wait in the compiler until `go`.
HOLD = """
import json, os, threading
import numpy as np
from dcformat import jit
from machine_kernels import simple as k
begun, go = threading.Event(), threading.Event()
class Hold(jit.Observer):
    def compiling(self, kernel, number, saved):
        begun.set()
        go.wait()
jit.observe(Hold())
"""
FORKED = """
thread = threading.Thread(target=k.total.resolve)
thread.start()
begun.wait()
child = os.fork()
if not child:
    result = k.total(np.arange(5, dtype=np.int64), 2) + k.steps(10, 3)
    os._exit(int(result == 106 and (k.total.state, k.steps.state) == ("python", "python")))
status = os.waitpid(child, 0)[1]
go.set()
thread.join()
print(json.dumps([os.waitstatus_to_exitcode(status), k.total.state]))
"""


def test_a_child_forked_while_a_thread_compiles_runs_kernels_in_python(tmp_path: Path) -> None:
    # The child does not have that thread, so it must not wait for a lock that the thread holds.
    assert run(tmp_path, HOLD + FORKED, PYTHONWARNINGS="ignore") == [1, "compiled"]


WAITING = """
thread = threading.Thread(target=k.steps.resolve)
thread.start()
begun.wait()
answers = [k.steps.ready(), k.mean.ready(), k.total.ready()]
go.set()
thread.join()
print(json.dumps([answers, k.steps.ready()]))
"""


def test_asking_whether_a_kernel_is_ready_never_waits_for_the_compiler(tmp_path: Path) -> None:
    assert run(tmp_path, HOLD + WAITING) == [[False, False, False], True]


def test_the_installed_numba_is_in_the_range_that_pyproject_states_and_needs_no_fallback(tmp_path: Path) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        stated = tomllib.load(file)["project"]["dependencies"]
    (numba,) = [text for text in stated if text.startswith("numba")]
    least, below = (tuple(map(int, bound.split("."))) for bound in re.fullmatch(r"numba>=(.+),<(.+)", numba).groups())  # type: ignore[union-attr]
    assert least <= tuple(map(int, version("numba").split(".")[:2])) < below
    assert run(tmp_path, REPORT)["states"] == ["compiled"] * 6
