"""Later processes load the machine code of kernels without Numba, and only if it is right."""

import os
import shutil
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcformat.jit import abi
from dcformat.jit.machine_code import image, keys, store
from tests.jit.processes import HERE, REPORT, RIGHT, files, run

pytestmark = pytest.mark.skipif(not abi.layout_known(), reason="machine code is not kept on this platform")


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
    lacking = []
    def missing(self, kernel):
        self.lacking.append(kernel)
jit.observe(Told())
store.shipped = lambda: sys.argv[1]
""" + REPORT.replace("print(json.dumps(dict(", "print(json.dumps(dict(damaged=Told.names, missing=Told.lacking, ")


def run_shipped(shipped, cache):
    """Run kernels that came with the package, for a user whose own folder is `cache` and who has no compiler."""
    script = "import sys; sys.argv[1:] = [" + repr(str(shipped)) + "]; sys.modules['numba'] = None\n" + SHIPPED
    return run(cache, script)


def test_code_that_came_with_the_package_needs_no_folder_and_no_compiler(cache, tmp_path):
    for path in [cache / "kernels", *files(cache)]:
        path.chmod(path.stat().st_mode | stat.S_IWGRP)  # as trusted as the package's modules, for any umask
    result = run_shipped(cache / "kernels", tmp_path / "none")
    assert result == {"damaged": [], "missing": [], "out": RIGHT, "states": ["saved"] * 6, "numba": True}
    assert not (tmp_path / "none").exists()


def test_damaged_code_that_came_with_the_package_is_reported_and_not_used(cache, tmp_path):
    for path in files(cache)[1:]:
        path.write_bytes(path.read_bytes()[:-1])
    result = run_shipped(cache / "kernels", tmp_path / "none")
    assert len(result["damaged"]) == 5
    assert len(result["missing"]) == 1  # reported once in a process
    assert result["out"] == RIGHT
    assert sorted(result["states"]) == ["python"] * 5 + ["saved"]


def test_code_that_is_missing_or_foreign_is_reported_if_nothing_can_compile_it(cache, tmp_path):
    missing, foreign, *_ = files(cache)
    foreign.write_bytes(missing.read_bytes())
    missing.unlink()
    result = run_shipped(cache / "kernels", tmp_path / "none")
    assert (len(result["damaged"]), len(result["missing"])) == (1, 1)
    assert result["out"] == RIGHT
    assert sorted(result["states"]) == ["python"] * 2 + ["saved"] * 4


def test_damaged_files_are_not_used_and_are_replaced(cache):
    before = {path: path.read_bytes() for path in files(cache)}
    flipped, cut, empty, one, other, longer = before
    flipped.write_bytes(bytes(before[flipped][:-20]) + bytes([before[flipped][-20] ^ 1]) + before[flipped][-19:])
    cut.write_bytes(before[cut][:-1])
    empty.write_bytes(b"")
    one.write_bytes(before[other])
    other.write_bytes(before[one])
    longer.write_bytes(before[longer] + b"x")
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


ONE = """
import json
import numpy as np
from machine_kernels import simple as k
print(json.dumps([int(k.has(np.arange(9, dtype=np.uint8), 8)), k.has.state]))
"""


@pytest.mark.slow
def test_an_impossible_folder_is_not_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/none")):
        assert run(place, ONE) == [1, "compiled"]


@pytest.mark.slow
def test_the_cache_can_be_forbidden_and_forced(tmp_path):
    assert run(tmp_path, ONE, DCFORMAT_CACHE="off") == [1, "compiled"]
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


@pytest.mark.slow
def test_another_processor_compiles_anew(cache, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(Path("/proc/cpuinfo").read_text().replace(" fpu ", " "))
    other = f"from dcformat.jit import cpuinfo; cpuinfo.PATH = {str(info)!r}\n" + REPORT
    assert run(cache, other, DCFORMAT_CACHE="only")["out"]["error"] == "KernelMissingError"
    info.write_text("")
    before = files(cache)
    assert run(cache, other.replace(REPORT, ONE)) == [1, "compiled"]
    assert files(cache) == before


KEYS = """
import json
from machine_kernels import simple
from dcformat import jit
print(json.dumps({k.__name__: k.key("x86-64-v3").hex() for k in jit.kernels()}))
"""


@pytest.fixture(scope="module")
def keys_before(tmp_path_factory):
    return run(tmp_path_factory.mktemp("keys"), KEYS)


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
def test_a_changed_kernel_has_another_key(tmp_path, keys_before, file, old, new, stale):
    shutil.copytree(HERE / "machine_kernels", tmp_path / "machine_kernels")
    path = tmp_path / "machine_kernels" / file
    path.write_text(path.read_text().replace(old, new))
    after = run(tmp_path, KEYS, where=tmp_path)
    assert [name for name in keys_before if keys_before[name] != after[name]] == ([stale] if stale else [])


def test_writers_at_once_never_show_a_part(tmp_path, monkeypatch):
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path))
    key = bytes(32)
    whole = [image.CodeImage(bytes([n]) * 30000, 5, ((8, "memset"),)) for n in range(4)]
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


IMAGE = image.CodeImage(bytes(range(64)), 3, ((8, "memset"), (16, "Py_IncRef")))


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
