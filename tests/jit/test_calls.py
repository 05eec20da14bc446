"""Kernels take only arguments of their types, and are compiled when that is worth it."""

import threading

import pytest

from dcformat import jit
from dcformat.jit import abi
from tests.jit.processes import REPORT, RIGHT, files, run

pytestmark = pytest.mark.skipif(not abi.layout_known(), reason="machine code is not kept on this platform")

BACKGROUND = """
import json, sys, time
from dcformat.jit import background
from machine_kernels import simple as k
kernels = [k.total, k.scale]
assert not any(kernel.ready() for kernel in kernels)
made = background.BackgroundCompilation(kernels)
assert made.possible() and made.start()
while not made.ended():
    time.sleep(0.05)
print(json.dumps(dict(ready=[kernel.ready() for kernel in kernels], numba="numba" in sys.modules)))
"""


@pytest.mark.parametrize("writable", [True, False])
def test_another_process_can_compile(tmp_path, writable):
    cache = tmp_path / "cache"
    if not writable:
        cache.write_text("")
    assert run(cache, BACKGROUND, TMPDIR=str(tmp_path)) == {"ready": [True, True], "numba": False}
    assert not list(tmp_path.glob("dcformat-*")), "the folder of a process remains"
    assert not writable or len(files(cache)) == 2


@pytest.mark.slow
def test_the_other_process_imports_nothing_from_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "llvmlite.py").write_text("raise ImportError('from the current directory')")
    leave = f"import os; os.chdir({str(tmp_path / 'here')!r})\nimport sys; sys.path.remove('')\n"
    assert run(tmp_path / "cache", leave + BACKGROUND) == {"ready": [True, True], "numba": False}


WRONG = """
import json
import numpy as np
from machine_kernels import simple as k
a = np.arange(6, dtype=np.int64)
f = np.ones((2, 3), np.float32)
frozen = f.copy(); frozen.flags.writeable = False
odd = np.frombuffer(bytes(49), np.uint8)[1:].view(np.int64)
cases = [
    lambda: k.total(a.astype(np.int32), 1), lambda: k.total(a[::2], 1), lambda: k.total(a.reshape(2, 3), 1),
    lambda: k.total(a.tolist(), 1), lambda: k.total(a, 1.5), lambda: k.total(a), lambda: k.total(a, None),
    lambda: k.total(a.astype(">i8"), 1), lambda: k.total(odd, 1), lambda: k.scale(f, 1.0, 0.0, 1),
    lambda: k.scale(frozen, 1.0, 0.0, True), lambda: k.scale(f.T, 1.0, 0.0, True), lambda: k.scale(f, "1", 0.0, True),
    lambda: k.total(a, 2**63), lambda: k.steps(3, 0),
]
out = []
for case in cases:
    try:
        out.append(["returned", str(case())])
    except Exception as error:
        out.append([type(error).__name__, str(error)])
f.tolist()
print(json.dumps(out))
"""


def test_arguments_of_other_types_are_refused(filled):
    found = run(filled, WRONG, DCFORMAT_CACHE="only")
    assert [kind for kind, _ in found] == ["TypeError"] * 13 + ["OverflowError", "RuntimeError"]
    array = "kernel machine_kernels.simple.total, argument 0: expected C-contiguous 1-dimensional int64 array, found "
    assert found[0][1] == array + "1-dimensional int32 array"
    assert found[1][1] == array + "1-dimensional int64 array, not C-contiguous"
    assert found[3][1] == array + "list"
    assert found[5][1] == "kernel machine_kernels.simple.total: expected 2 arguments, found 1"
    assert found[10][1].endswith("found 2-dimensional float32 array, read-only")


ALIKE = """
import json
import numpy as np
from machine_kernels import simple as k
class Mine(np.ndarray): pass
a = np.arange(5, dtype=np.int64)
frozen = a.copy(); frozen.flags.writeable = False
mine = np.ones((2, 3), np.float32).view(Mine)
k.scale(mine, 3, np.float64(0.0), np.True_)
same = [a, frozen, a.view(Mine), a.astype(np.longlong), a.view(np.dtype("i8", metadata={"a": 1}))]
print(json.dumps([[int(k.total(x, np.int8(2))) for x in same], mine.tolist(), int(k.total(a[:0], True))]))
"""


def test_arguments_that_mean_the_same_are_accepted(filled):
    assert run(filled, ALIKE, DCFORMAT_CACHE="only") == [[70] * 5, [[3.0] * 3] * 2, 10]


@pytest.mark.slow
@pytest.mark.parametrize(("variable", "state"), [("NUMBA_DISABLE_JIT", "python"), ("NUMBA_BOUNDSCHECK", "numba")])
def test_numbas_switches_bypass_the_cache(filled, tmp_path, variable, state):
    result = run(tmp_path, **{variable: "1"})
    assert result["out"] == RIGHT
    assert result["states"] == [state] * 6
    assert not list(tmp_path.iterdir())


def test_bounds_checks_check_bounds(tmp_path):
    script = (
        "import json, numpy as np\nfrom dcformat.jit import kernel\n"
        "@kernel('int64(const int64[::1], int64)')\n"
        "def take(values, i):\n    return values[i]\n"
        "a = np.arange(3, dtype=np.int64); a.flags.writeable = False\n"
        "try:\n    print(json.dumps([int(take(a, 2)), int(take(a, 3))]))\n"
        "except IndexError:\n    print(json.dumps('IndexError'))\n"
    )
    assert run(tmp_path, script, NUMBA_BOUNDSCHECK="1") == "IndexError"


UNSAVABLE = """
import json, sys
import numpy as np
from dcformat.jit import kernel
@kernel("float64(float64)")
def calls_out(x):
    return np.cosh(x)
calls_out.resolve()
print(json.dumps([float(calls_out(0.0)), calls_out.state]))
"""


def test_a_kernel_that_cannot_be_saved_runs_through_numba(tmp_path):
    assert run(tmp_path, UNSAVABLE) == [1.0, "numba"]
    assert not list(tmp_path.rglob("*.kernel"))


def test_to_ask_whether_a_kernel_is_ready_compiles_nothing(filled, tmp_path):
    script = (
        "import json, sys\nfrom machine_kernels import simple as k\nfrom dcformat import jit\n"
        "print(json.dumps([k.total.ready(), k.mean.ready(), jit.can_compile(), 'numba' in sys.modules]))"
    )
    assert run(filled, script) == [True, True, True, False]
    assert run(tmp_path, script) == [False, False, True, False]


def test_short_work_does_not_wait_for_the_compiler(tmp_path, filled):
    script = (
        "import json, sys\nimport numpy as np\nfrom machine_kernels import simple as k\n"
        "out = [int(k.total(np.arange(n, dtype=np.int64), 2)) for n in (5, 10, 200000)]\n"
        "print(json.dumps([out[:2], k.total.state, 'numba' in sys.modules]))"
    )
    short = script.replace("200000", "7")
    assert run(tmp_path, short) == [[70, 280], "unresolved", False]
    assert not list(tmp_path.iterdir())
    assert run(tmp_path, script) == [[70, 280], "compiled", True]
    assert run(tmp_path, short) == [[70, 280], "saved", False]


@pytest.mark.slow
def test_threads_and_processes_at_once(tmp_path):
    together = (
        "import threading\ngo = [threading.Thread(target=k.total.resolve) for _ in range(4)]\n"
        "[t.start() for t in go]; [t.join() for t in go]\ntry:"
    )
    script = REPORT.replace("try:", together)
    results = []
    threads = [threading.Thread(target=lambda: results.append(run(tmp_path, script))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result["out"] for result in results] == [RIGHT] * 3
    assert run(tmp_path, DCFORMAT_CACHE="only")["out"] == RIGHT
    assert not list(tmp_path.rglob("*.partial"))


def test_signatures_outside_the_notation_are_refused():
    for bad in (
        "int64",
        "int32(int64)",
        "void(int32)",
        "void(float32[:])",
        "void(float32[::1, :])",
        "void(str)",
        "void(,)",
    ):
        with pytest.raises(ValueError, match="kernel"):
            jit.kernel(bad)(lambda: None)
