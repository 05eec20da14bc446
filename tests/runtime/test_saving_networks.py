"""The second process that loads a file saves its network, and the folder of saved networks stays small."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import dcformat_runtime
import numpy as np
import pytest
from dcformat_runtime import prepared, session_maker
from dcformat_runtime.backends import checked_options
from dcformat_runtime.preparing import saved_networks

import dcformat
from dcformat import jit
from dcformat.errors import FormatError
from dcformat.graph import Graph, Transpose
from dcformat.jit import settings
from dcformat.jit.machine_code import store
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from tests.runtime.example_networks import mlp

pytestmark = [
    pytest.mark.needs_compiler,
    pytest.mark.skipif(settings.mode() != "native", reason="no machine code is saved"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
SEEDS = count(1)
START = """
import sys
import numpy as np
import dcformat_runtime
session = dcformat_runtime.load(sys.argv[1], threads=1, deterministic=sys.argv[2] == "exact")
y = session(np.ones((1, 9), np.float32))
ours = [name for name in ("dcformat.reader", "dcformat_runtime.preparing") if name in sys.modules]
print(*ours, y.tobytes().hex())
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache that holds the machine code of all kernels that a small network needs, and save networks there."""
    path = tmp_path / "warm.dcf"
    dcformat.save(mlp(9, 4).model(), path)
    dcformat_runtime.load(path, threads=1, backend="numba")(np.ones((2, 9), np.float32))
    folder = tmp_path / "cache" / "kernels"
    folder.mkdir(0o700, parents=True)
    for kernel in jit.kernels():
        code = kernel.path() if kernel.state in ("saved", "compiled") else None
        if code is not None:
            shutil.copy(code, folder)
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DCFORMAT_CACHE", "auto")
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file with a network that this process has not loaded yet."""
    dcformat.save(mlp(9, 4, seed=next(SEEDS)).model(), tmp_path / "net.dcf")
    return tmp_path / "net.dcf"


def earlier(path: Path, **options: Any) -> None:
    """Load a file in another process."""
    child = os.fork()
    if not child:
        dcformat_runtime.load(path, **options)
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)


def is_saved(path: Path, deterministic: bool = False) -> bool:
    options = checked_options(1, deterministic, "auto", DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK)
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("DCFORMAT_CACHE", "kernels")  # looking must not save
        return prepared.find(str(path), options) is not None


def networks(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".kernel")


def test_the_third_process_takes_what_the_second_saved(cache: Path, path: Path) -> None:
    def start(kind: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "runtime")))}
        arguments = [sys.executable, "-c", START, str(path), kind]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    *first, result = start("fast")
    assert first == ["dcformat.reader"]
    assert networks(cache) == ["loads"]
    assert start("fast") == ["dcformat.reader", "dcformat_runtime.preparing", result]
    assert start("fast") == [result]
    *exact, result = start("exact")
    assert exact == ["dcformat.reader"]
    assert start("exact") == ["dcformat.reader", "dcformat_runtime.preparing", result]
    assert start("exact") == [result]
    (one, other) = saved_networks()
    assert {one.file, other.file} == {str(path) for path in cache.glob("*.network")}
    assert one.made_of == other.made_of == str(path)
    assert stat.S_IMODE(Path(one.file).stat().st_mode) == 0o600


def test_the_session_that_saves_is_an_ordinary_one(cache: Path, path: Path) -> None:
    x = np.ones((3, 9), np.float32)
    expected = dcformat_runtime.load(path.read_bytes())(x)
    earlier(path)
    session = dcformat_runtime.load(path)
    assert is_saved(path)
    assert np.array_equal(session(x), expected)
    assert np.array_equal(dcformat_runtime.load(path)(x), expected)
    path.unlink()
    assert np.array_equal(session(x), expected)


def test_one_process_and_its_children_save_nothing(cache: Path, path: Path) -> None:
    for _ in range(3):
        dcformat_runtime.load(path)
        earlier(path)
    assert networks(cache) == ["loads"]


@pytest.mark.parametrize("value", ["kernels", "off"])
def test_a_setting_leaves_no_trace(cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DCFORMAT_CACHE", value)
    earlier(path)
    dcformat_runtime.load(path)
    assert networks(cache) == []
    assert settings.cache() == {"kernels": "auto", "off": "off"}[value]


@pytest.mark.parametrize("options", [{"backend": "numpy"}, {"max_memory": 1 << 24}, {"max_work": 1 << 30}])
def test_sessions_that_take_no_saved_network_leave_no_trace(cache: Path, path: Path, options: dict[str, Any]) -> None:
    for _ in range(2):
        earlier(path, **options)
    assert networks(cache) == []


def test_only_files_leave_a_trace(cache: Path, path: Path, tmp_path: Path) -> None:
    dcformat_runtime.load(path.read_bytes())
    dcformat_runtime.load(dcformat.load(path))
    (tmp_path / "empty.dcf").write_bytes(b"")
    earlier_names = networks(cache)
    for _ in range(2):
        with pytest.raises(FormatError, match="empty"):
            dcformat_runtime.load(tmp_path / "empty.dcf")
    assert networks(cache) == earlier_names == []


def test_what_cannot_be_saved_is_loaded_as_before(cache: Path, tmp_path: Path, path: Path) -> None:
    several, damaged = tmp_path / "several.dcf", tmp_path / "damaged.dcf"
    dcformat.save(dcformat.Model({}, Graph.sequential((2, 3), (Transpose((0,), (1, 0)),))), several)
    earlier(several)
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    assert np.array_equal(dcformat_runtime.load(several)(x), x.transpose(0, 2, 1))
    damaged.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError) as plain:
        dcformat_runtime.load(damaged, backend="numpy")
    name = prepared.name_of(damaged.stat().st_size, damaged.read_bytes()[-prepared.TAIL :], False)
    child = os.fork()
    if not child:
        os._exit(store.loaded_before(name))
    assert os.waitpid(child, 0) == (child, 0)
    with pytest.raises(FormatError) as found:
        dcformat_runtime.load(damaged)
    assert str(found.value) == str(plain.value)
    assert str(damaged) in str(found.value)
    assert networks(cache) == ["loads"]


def test_a_network_too_large_to_be_read_back_is_not_saved(
    cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_BYTES", 2000)
    assert path.stat().st_size < 2000
    earlier(path)
    dcformat_runtime.load(path)
    assert networks(cache) == ["loads"]


def not_writable(cache: Path) -> None:
    cache.chmod(0o777)


def not_a_folder(cache: Path) -> None:
    shutil.rmtree(cache)
    cache.write_text("")


def a_link(cache: Path) -> None:
    (cache / "loads").symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [not_writable, not_a_folder, a_link])
def test_a_cache_that_cannot_be_used_is_no_obstacle(
    cache: Path, path: Path, spoil: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    expected = dcformat_runtime.load(path.read_bytes())(np.ones((1, 9), np.float32))
    spoil(cache)
    earlier(path)
    assert np.array_equal(dcformat_runtime.load(path)(np.ones((1, 9), np.float32)), expected)
    assert not is_saved(path)
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_leaves_nothing_behind(cache: Path, path: Path) -> None:
    earlier(path)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        os._exit(dcformat_runtime.load(path)(np.ones((1, 9), np.float32)).shape != (1, 4))
    assert os.waitpid(child, 0) == (child, 0)
    assert networks(cache) == ["loads"]
    dcformat_runtime.load(path)
    assert is_saved(path)


def test_one_of_several_processes_saves(cache: Path, path: Path) -> None:
    data = path.read_bytes()
    name = prepared.name_of(len(data), data[-prepared.TAIL :], False)
    claimed = cache / f".{name}.partial"
    claimed.write_bytes(b"")
    earlier(path)
    earlier(path)
    assert networks(cache) == [claimed.name, "loads"]
    os.utime(claimed, (0, 0))  # its process was killed
    earlier(path)
    earlier(path)
    assert networks(cache) == [name, "loads"]


def test_what_became_stale_is_saved_again(cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier(path)
    earlier(path)
    assert is_saved(path)
    stamp = prepared.stamp()
    monkeypatch.setattr(prepared, "stamp", lambda: (stamp[0], bytes(32)))
    assert not is_saved(path)
    earlier(path)
    assert is_saved(path)


def test_the_bytes_that_were_decoded_are_those_whose_network_is_saved(cache: Path, path: Path, tmp_path: Path) -> None:
    data, options = path.read_bytes(), checked_options(1, False, "auto", None, None)
    dcformat.save(mlp(9, 4, seed=next(SEEDS)).model(), path)  # as if another process replaced the file in the meantime
    session = session_maker.load_and_save(str(path), data, options)
    assert not is_saved(path)
    (tmp_path / "before.dcf").write_bytes(data)
    assert is_saved(tmp_path / "before.dcf")
    x = np.ones((1, 9), np.float32)
    assert np.array_equal(session(x), dcformat_runtime.load(tmp_path / "before.dcf")(x))


def test_the_networks_that_were_used_last_are_kept(
    cache: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_NETWORKS", 3)
    paths = [tmp_path / f"{number}.dcf" for number in range(4)]
    for day, each in enumerate(paths, start=1):
        dcformat.save(mlp(9, 4, seed=next(SEEDS)).model(), each)
        dcformat_runtime.prepare(each)
        for saved in saved_networks():
            if saved.made_of == str(each):
                os.utime(saved.file, (day * 86400, day * 86400))
        if day == 3:
            dcformat_runtime.load(paths[0])  # used again, after the others were saved
    assert [is_saved(each) for each in paths] == [True, False, True, True]
    size = saved_networks()[0].bytes
    monkeypatch.setattr(store, "MAX_NETWORK_BYTES", 5 * size // 2)
    earlier(path)
    dcformat_runtime.load(path)
    assert is_saved(path)
    assert len(saved_networks()) == 2


def test_a_use_is_noted_once_a_day(cache: Path, path: Path) -> None:
    dcformat_runtime.prepare(path)
    (saved,) = saved_networks()
    today = Path(saved.file).stat().st_mtime
    for used, expected in ((today - 3600, today - 3600), (today - 2 * 86400, None)):
        os.utime(saved.file, (used, used))
        dcformat_runtime.load(path)
        found = Path(saved.file).stat().st_mtime
        assert found == expected if expected else found >= today


def test_files_that_are_loaded_once_leave_a_table_of_fixed_size(cache: Path) -> None:
    for number in range(2000):
        assert not store.loaded_before(prepared.name_of(number, b"", False))
    assert (cache / "loads").stat().st_size <= 8 * 4096
    assert networks(cache) == ["loads"]
    assert str(cache / "loads") in list(store.entries())


def test_the_setting_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCFORMAT_CACHE", "never")
    for ask in (settings.cache, settings.saves_networks):
        with pytest.raises(ValueError, match="expected auto, kernels, off or only, found 'never'"):
            ask()
