"""Later processes load the machine code of kernels without Numba, and only if it is right."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcformat import jit
from dcformat.jit import abi
from dcformat.jit.machine_code import image, keys, store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

pytestmark = pytest.mark.skipif(not abi.layout_known(), reason="machine code is not kept on this platform")

REPORT = """
import json, sys
import numpy as np
from dcformat import jit
from machine_kernels import simple as k
kernels = [k.total, k.scale, k.steps, k.fill, k.mean, k.has]
try:
    jit.warm(kernels)
    values = np.arange(5, dtype=np.int64)
    matrix = np.ones((2, 3), np.float32)
    k.scale(matrix, 2.0, 0.5, True)
    filled = np.zeros(3000, np.uint8)
    k.fill(filled, 9)
    out = dict(
        total=int(k.total(values, 2)), matrix=matrix.tolist(), steps=int(k.steps(10, 3)), filled=filled.sum().item(),
        mean=float(k.mean(np.array([1.0, 2.0]))), has=[bool(k.has(filled, 9)), bool(k.has(filled, 8))],
    )
except Exception as error:
    out = dict(error=type(error).__name__, text=str(error))
print(json.dumps(dict(out=out, states=[x.state for x in kernels], numba="numba" in sys.modules)))
"""
RIGHT = {
    "total": 70, "matrix": [[2.5] * 3] * 2, "steps": 36, "filled": 27000, "mean": 1.5, "has": [True, False],
}  # fmt: skip


def run(cache, script=REPORT, where=HERE, **env):
    """Run a script in a new process with the cache below `cache`; return what it printed."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "DCFORMAT_", "XDG_"))}
    paths = os.pathsep.join(str(p) for p in (where, ROOT))
    ours |= {"PYTHONPATH": paths, "DCFORMAT_CACHE_DIR": str(cache), **env}
    done = subprocess.run([sys.executable, "-c", script], env=ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return a cache folder that a process has filled."""
    cache = tmp_path_factory.mktemp("cache")
    first = run(cache)
    assert first["out"] == RIGHT
    assert first["states"] == ["compiled"] * 6
    return cache


@pytest.fixture
def cache(filled, tmp_path):
    """Return a copy of `filled`, which a test may damage."""
    shutil.copytree(filled / "kernels", tmp_path / "kernels")
    return tmp_path


def files(cache):
    return sorted((cache / "kernels").glob("*.kernel"))


def test_a_later_process_runs_saved_code_without_numba(filled):
    later = run(filled, DCFORMAT_CACHE="only")
    assert later == {"out": RIGHT, "states": ["saved"] * 6, "numba": False}


def test_files_are_the_users_own_and_none_is_left_half_written(filled):
    assert stat.S_IMODE((filled / "kernels").stat().st_mode) == 0o700
    assert len(files(filled)) == len(list((filled / "kernels").iterdir())) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(filled)} == {0o600}


SHIPPED = """
import sys
from dcformat.jit.machine_code import store
from dcformat import jit
class Told(jit.Observer):
    names = []
    def damaged(self, kernel):
        self.names.append(kernel)
jit.observe(Told())
store.shipped = lambda: sys.argv[1]
""" + REPORT.replace("print(json.dumps(dict(", "print(json.dumps(dict(damaged=Told.names, ")


def run_shipped(shipped, cache):
    """Run kernels that came with the package, for a user whose own folder is `cache` and who has no compiler."""
    script = "import sys; sys.argv[1:] = [" + repr(str(shipped)) + "]; sys.modules['numba'] = None\n" + SHIPPED
    return run(cache, script)


def test_code_that_came_with_the_package_needs_no_folder_and_no_compiler(cache, tmp_path):
    for path in [cache / "kernels", *files(cache)]:
        path.chmod(path.stat().st_mode | stat.S_IWGRP)  # as trusted as the package's modules, whatever the umask was
    result = run_shipped(cache / "kernels", tmp_path / "none")
    assert result == {"damaged": [], "out": RIGHT, "states": ["saved"] * 6, "numba": True}
    assert not (tmp_path / "none").exists()


def test_damaged_code_that_came_with_the_package_is_reported_and_not_used(cache, tmp_path):
    for path in files(cache)[1:]:
        path.write_bytes(path.read_bytes()[:-1])
    result = run_shipped(cache / "kernels", tmp_path / "none")
    assert len(result["damaged"]) == 5
    assert result["out"] == RIGHT
    assert sorted(result["states"]) == ["python"] * 5 + ["saved"]


BACKGROUND = """
import json, sys, time
from dcformat import jit
from machine_kernels import simple as k
kernels = [k.total, k.scale]
assert not any(kernel.ready() for kernel in kernels)
made = jit.BackgroundCompilation(kernels)
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


def test_the_other_process_imports_nothing_from_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "llvmlite.py").write_text("raise ImportError('from the current directory')")
    leave = f"import os; os.chdir({str(tmp_path / 'here')!r})\nimport sys; sys.path.remove('')\n"
    assert run(tmp_path / "cache", leave + BACKGROUND) == {"ready": [True, True], "numba": False}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "exchanged"])
def test_damaged_files_are_not_used_and_are_replaced(cache, damage):
    before = {path: path.read_bytes() for path in files(cache)}
    names = list(before)
    for path, other in zip(names, names[1:] + names[:1], strict=True):
        data = bytearray(before[path])
        data[-20] ^= 1
        bad = {"flipped": bytes(data), "truncated": before[path][:-1], "empty": b"", "exchanged": before[other]}
        path.write_bytes(bad[damage])
    again = run(cache)
    assert again["out"] == RIGHT
    assert again["states"] == ["compiled"] * 6
    assert {path: path.read_bytes() for path in files(cache)} == before


@pytest.mark.parametrize("what", ["folder", "file"])
def test_files_that_others_can_write_are_not_trusted(cache, what):
    for path in [cache / "kernels"] if what == "folder" else files(cache):
        path.chmod(path.stat().st_mode | stat.S_IWGRP)
    result = run(cache, DCFORMAT_CACHE="only")
    assert result["out"]["error"] == "KernelMissingError"


def test_files_that_belong_to_others_are_not_trusted(cache, monkeypatch):
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(cache))
    key = bytes.fromhex(files(cache)[0].name[:64])
    assert store.read(key, None) is not None
    if os.geteuid() == 0:
        os.chown(files(cache)[0], 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert store.read(key, None) is None


def test_links_are_not_followed_to_a_file(cache):
    for path in files(cache):
        path.rename(path.with_suffix(".real"))
        path.symlink_to(path.with_suffix(".real"))
    assert run(cache, DCFORMAT_CACHE="only")["out"]["error"] == "KernelMissingError"


def test_an_impossible_folder_is_not_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/none")):
        assert run(place)["states"] == ["compiled"] * 6


def test_the_cache_can_be_forbidden_and_forced(tmp_path):
    assert run(tmp_path, DCFORMAT_CACHE="off")["states"] == ["compiled"] * 6
    assert not list(tmp_path.iterdir())
    only = run(tmp_path, DCFORMAT_CACHE="only")["out"]
    assert only == {
        "error": "KernelMissingError",
        "text": "kernel machine_kernels.simple.total: expected saved code, found none (DCFORMAT_CACHE=only)",
    }
    assert run(tmp_path, DCFORMAT_CACHE="never")["out"]["error"] == "ValueError"


def test_without_numba_a_kernel_is_python(tmp_path):
    hidden = "import sys; sys.modules['numba'] = None\n" + REPORT
    result = run(tmp_path, hidden)
    assert result["out"] == RIGHT
    assert result["states"] == ["python"] * 6


def test_without_numba_anybodys_code_will_do(cache):
    hidden = "from dcformat.jit.machine_code import keys; keys.compiler = lambda: None\n" + REPORT
    assert run(cache, hidden, DCFORMAT_CACHE="only")["states"] == ["saved"] * 6


def test_another_compiler_compiles_anew(cache):
    other = "from dcformat.jit.machine_code import keys; keys.compiler = lambda: 'numba 9.9'\n" + REPORT
    assert run(cache, other, DCFORMAT_CACHE="only")["out"]["error"] == "KernelMissingError"


def test_another_processor_compiles_anew(cache, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(Path("/proc/cpuinfo").read_text().replace(" fpu ", " "))
    other = f"from dcformat.jit import cpuinfo; cpuinfo.PATH = {str(info)!r}\n" + REPORT
    assert run(cache, other, DCFORMAT_CACHE="only")["out"]["error"] == "KernelMissingError"
    info.write_text("")
    before = files(cache)
    assert run(cache, other)["states"] == ["compiled"] * 6
    assert files(cache) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "stale"),
    [
        ("simple.py", "FACTOR = 3", "FACTOR = 4", "total"),
        ("simple.py", "[10, 20, 30]", "[11, 20, 30]", "total"),
        ("simple.py", "values[i] * factor, i + 1", "factor * values[i], i + 1", "total"),
        ("simple.py", "0.5, True", "0.5, True", ""),
        ("simple.py", "float64(const float64[::1])", "float64(float64[::1])", "mean"),
        ("simple.py", "10 * len(values)", "20 * len(values)", ""),
        ("simple.py", "@shared", "@device", "has"),
        ("ir.py", "builder.shl(args[0], args[0].type(1))", "builder.add(args[0], args[0])", "steps"),
        ("simple.py", "Return the sum of the values", "Return the total of the values", "total"),
    ],
)
def test_a_changed_kernel_has_another_key(tmp_path, file, old, new, stale):
    script = "import json; from machine_kernels import simple; from dcformat import jit\n"
    script += "print(json.dumps({k.__name__: k.key('x86-64-v3').hex() for k in jit.kernels()}))"
    shutil.copytree(HERE / "machine_kernels", tmp_path / "machine_kernels")
    before = run(tmp_path, script, where=tmp_path)
    path = tmp_path / "machine_kernels" / file
    path.write_text(path.read_text().replace(old, new))
    after = run(tmp_path, script, where=tmp_path)
    assert [name for name in before if before[name] != after[name]] == ([stale] if stale else [])


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


def test_writers_at_once_never_show_a_part(tmp_path, monkeypatch):
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path))
    key = bytes(32)
    whole = [image.Image(bytes([n]) * 30000, 5, ((8, "memset"),)) for n in range(4)]
    threads = [
        threading.Thread(target=lambda i=i: [store.write(key, "c", i.pack(key)) for _ in range(50)]) for i in whole
    ]
    store.write(key, "c", whole[0].pack(key))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        data = store.read(key, "c")
        assert data is not None
        assert image.unpack(data, key) in whole


IMAGE = image.Image(bytes(range(64)), 3, ((8, "memset"), (16, "Py_IncRef")))


@given(st.data())
def test_a_file_with_any_bit_changed_is_refused(data):
    packed = bytearray(IMAGE.pack(bytes(32)))
    assert image.unpack(bytes(packed), bytes(32)) == IMAGE
    bit = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[bit // 8] ^= 1 << bit % 8
    assert image.unpack(bytes(packed), bytes(32)) is None
    assert image.unpack(bytes(IMAGE.pack(bytes(32)))[: data.draw(st.integers(0, len(packed) - 1))], bytes(32)) is None


def test_the_default_folder_is_what_platformdirs_says(monkeypatch):
    import platformdirs

    monkeypatch.delenv("DCFORMAT_CACHE_DIR", raising=False)
    for value in (None, "", "/tmp/elsewhere"):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert store.folder() == str(Path(platformdirs.user_cache_dir("dcformat")) / "kernels")


def test_the_compilers_version_is_found_without_importing_it():
    from importlib.metadata import version

    expected = f"llvmlite {version('llvmlite')} numba {version('numba')} numpy {np.__version__}"
    assert keys.compiler() == expected


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
