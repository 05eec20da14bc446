"""Prepared networks: sessions give the same results as without preparation, and nothing stale or damaged is used."""

from __future__ import annotations

import copy
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dcformat_runtime
import numpy as np
import pytest
from dcformat_runtime import InputError, cpu, prepared
from dcformat_runtime.backends import checked_options
from dcformat_runtime.kernels import interpreter
from dcformat_runtime.preparing import saved_networks

import dcformat
from dcformat.errors import FormatError, LimitError, NotDcfError
from dcformat.graph import Graph, Preprocessing, Transpose
from dcformat.jit import settings
from dcformat.jit.machine_code import loader, store
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from tests.runtime.example_networks import NETS, inputs, lenet, mlp

pytestmark = [
    pytest.mark.needs_compiler,
    pytest.mark.skipif(settings.mode() != "native", reason="no machine code is saved"),
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache that holds only the machine code of the kernel that runs programs."""
    interpreter.run.resolve()
    code = interpreter.run.path()
    assert code is not None
    folder = tmp_path / "cache" / "kernels"
    folder.mkdir(0o700, parents=True)
    shutil.copy(code, folder)
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path / "cache"))
    return folder


def network_file(cache: Path) -> Path:
    (found,) = cache.glob("*.network")
    return found


def is_prepared(path: Path, deterministic: bool = False, **limits: int | None) -> bool:
    given = {"max_memory": DEFAULT_MAX_MEMORY, "max_work": DEFAULT_MAX_WORK} | limits
    return prepared.find(str(path), checked_options(1, deterministic, "auto", **given)) is not None


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", sorted(NETS))
def test_results_and_properties_are_those_of_an_ordinary_session(
    cache: Path, tmp_path: Path, name: str, exact: bool
) -> None:
    net, path = NETS[name](), tmp_path / "net.dcf"
    dcformat.save(net.model(), path)
    plain = dcformat_runtime.load(path, deterministic=exact)
    assert not is_prepared(path, exact)
    assert dcformat_runtime.prepare(path, deterministic=exact) == network_file(cache).stat().st_size
    assert is_prepared(path, exact)
    assert not is_prepared(path, not exact)
    found = dcformat_runtime.load(path, deterministic=exact)
    for batch in (1, 0, 3, 70):
        x = inputs(net.network(), batch)
        assert np.array_equal(found(x), plain(x))
    assert (found.inputs, found.outputs, found.labels, found.backend) == (
        plain.inputs, plain.outputs, plain.labels, "numba",
    )  # fmt: skip
    assert repr(found) == repr(plain)
    assert [row.name for row in found.profile(x)] == [row.name for row in plain.profile(x)]
    assert np.array_equal(copy.copy(found)(x), plain(x))


def test_pixels_labels_and_refused_inputs(cache: Path, tmp_path: Path) -> None:
    path, pixels = tmp_path / "net.dcf", np.arange(2 * 144, dtype=np.uint8).reshape(2, 1, 12, 12)
    model = lenet().model(Preprocessing((0.25,), (0.5,)))
    dcformat.save(dcformat.Model(model.tensors, model.graph, labels=tuple("abcdefghij"[:10])), path)
    plain = dcformat_runtime.load(path)
    dcformat_runtime.prepare(path)
    found = dcformat_runtime.load(path)
    assert is_prepared(path)
    assert found.labels == plain.labels == tuple("abcdefghij")
    assert np.array_equal(found(pixels), plain(pixels))
    with pytest.raises(InputError, match=r"expected \(batch, 1, 12, 12\) or \(batch, 144\), found \(2, 7\)"):
        found(np.zeros((2, 7), np.float32))
    x = pixels.astype(np.float64)
    with pytest.raises(InputError, match="expected float32 or uint8, found float64"):
        found(x)


def test_several_threads_share_a_batch(cache: Path, tmp_path: Path) -> None:
    net, path = mlp(300, 400, 300, 10), tmp_path / "net.dcf"
    dcformat.save(net.model(), path)
    x = inputs(net.network(), 500)
    expected = dcformat_runtime.load(path, threads=3)(x)
    dcformat_runtime.prepare(path)
    assert np.array_equal(dcformat_runtime.load(path, threads=3)(x), expected)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def become_link(path: Path) -> None:
    shutil.move(path, path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "writable for others": lambda path: path.chmod(path.stat().st_mode | stat.S_IWGRP),
    "missing": lambda path: path.unlink(),
    "a link": become_link,
    "a pipe": become_pipe,
    "a folder": become_folder,
    "huge": lambda path: os.truncate(path, store.MAX_BYTES + 1),
}


@pytest.mark.parametrize("suffix", ["network", "kernel"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_damaged_or_foreign_is_used(cache: Path, tmp_path: Path, damage: str, suffix: str) -> None:
    path = tmp_path / "net.dcf"
    dcformat.save(mlp(9, 4).model(), path)
    dcformat_runtime.prepare(path)
    file = network_file(cache) if suffix == "network" else Path(interpreter.run.path() or "")
    assert file.parent == cache
    DAMAGE[damage](file)
    assert not is_prepared(path)
    assert dcformat_runtime.load(path)(np.ones((1, 9), np.float32)).shape == (1, 4)


@pytest.mark.parametrize("which", ["folder", "network"])
def test_what_another_user_owns_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    path = tmp_path / "net.dcf"
    dcformat.save(mlp(9, 4).model(), path)
    dcformat_runtime.prepare(path)
    if os.geteuid() == 0:
        os.chown(cache if which == "folder" else network_file(cache), 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not is_prepared(path)
    assert saved_networks() == []


def test_a_process_with_the_rights_of_another_user_uses_no_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "net.dcf", os.getuid() + 1
    dcformat.save(mlp(9, 4).model(), path)
    dcformat_runtime.prepare(path)
    monkeypatch.setattr(os, "getuid", lambda: other)
    assert not is_prepared(path)
    monkeypatch.setenv("DCFORMAT_CACHE", "auto")
    assert not store.loaded_before(network_file(cache).name)
    assert not (cache / "loads").exists()


def test_another_file_under_the_same_name_is_not_taken_for_it(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.dcf"
    dcformat.save(mlp(40, 30, 10).model(), path)
    dcformat_runtime.prepare(path)
    before = network_file(cache)
    flip(path)  # its size and its end are the same
    assert not is_prepared(path)
    with pytest.raises(FormatError, match="damaged"):
        dcformat_runtime.load(path)
    dcformat.save(mlp(40, 30, 10, seed=1).model(), path)
    assert not is_prepared(path)
    dcformat_runtime.prepare(path)
    assert is_prepared(path)
    assert before.exists()


def test_changed_sources_and_another_processor_make_it_stale(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stamp = tmp_path / "net.dcf", prepared.stamp()
    dcformat.save(mlp(9, 4).model(), path)
    dcformat_runtime.prepare(path)
    size = network_file(cache).stat().st_size
    for other in (("x86_64 flags=avx", stamp[1]), (stamp[0], bytes(32))):
        monkeypatch.setattr(prepared, "stamp", lambda other=other: other)
        assert not is_prepared(path)
    monkeypatch.undo()
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(cache.parent))
    assert is_prepared(path)
    assert dcformat_runtime.prepare(path) == size  # the file is replaced, not kept beside another
    assert len(list(cache.glob("*.network"))) == 1


def test_the_stamp_covers_the_modules_of_both_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepared.stamp()
    for package in (dcformat, dcformat_runtime):
        copy = shutil.copytree(Path(package.__path__[0]), tmp_path / package.__name__)
        monkeypatch.setattr(package, "__path__", [str(copy)])
    assert prepared.stamp() == before  # the copies have the times of the originals
    module = tmp_path / "dcformat_runtime" / "compile" / "tables.py"
    os.utime(module, ns=(1, 1))
    changed = prepared.stamp()
    assert changed != before
    (tmp_path / "dcformat" / "codecs" / "huffman.py").write_text("pass\n")
    assert prepared.stamp() not in (before, changed)


def test_small_limits_other_backends_and_settings_take_the_ordinary_way(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.dcf"
    dcformat.save(mlp(9, 4).model(), path)
    dcformat_runtime.prepare(path)
    assert is_prepared(path, max_memory=None, max_work=None)
    assert not is_prepared(path, max_memory=DEFAULT_MAX_MEMORY - 1)
    assert not is_prepared(path, max_work=DEFAULT_MAX_WORK - 1)
    assert dcformat_runtime.load(path, backend="numpy").backend == "numpy"
    for name, value in (("DCFORMAT_CACHE", "off"), ("NUMBA_DISABLE_JIT", "1"), ("NUMBA_BOUNDSCHECK", "1")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert not is_prepared(path)
    # So many threads that their arenas exceed the limit.
    options = checked_options(1 << 40, False, "auto", DEFAULT_MAX_MEMORY, None)
    assert prepared.find(str(path), options) is None


def test_what_cannot_be_prepared(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.dcf"
    with pytest.raises(FileNotFoundError):
        dcformat_runtime.prepare(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(NotDcfError, match=str(path)):
        dcformat_runtime.prepare(path)
    os.truncate(path, store.MAX_BYTES + 1)
    with pytest.raises(LimitError, match=r"found 16,777,217 bytes"):
        dcformat_runtime.prepare(path)
    dcformat.save(dcformat.Model({}, Graph.sequential((2, 3), (Transpose((0,), (1, 0)),))), path)
    assert dcformat_runtime.prepare(path) is None
    cache.chmod(0o777)
    with pytest.raises(OSError, match="others may write to it"):
        dcformat_runtime.prepare(path)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert not is_prepared(pipe)
    assert not is_prepared(tmp_path)
    assert not is_prepared(tmp_path / "missing")


@pytest.mark.parametrize(("left", "each", "threads"), [(None, 8, 5), (0, 8, 1), (24, 8, 3), (80, 8, 5), (1, 0, 5)])
def test_threads_that_fit_in_memory(monkeypatch: pytest.MonkeyPatch, left: int | None, each: int, threads: int) -> None:
    monkeypatch.setattr(cpu, "cores", lambda: 5)
    assert cpu.threads_in(left, each) == threads


def test_a_long_network_has_one_program_for_all_batches(cache: Path, tmp_path: Path) -> None:
    net, path = mlp(*[2] * 1030), tmp_path / "net.dcf"
    dcformat.save(net.model(), path, mode="fast")
    x = inputs(net.network(), 3)
    expected = dcformat_runtime.load(path)(x)
    dcformat_runtime.prepare(path)
    assert is_prepared(path)
    assert np.array_equal(dcformat_runtime.load(path)(x), expected)


def test_machine_code_is_loaded_once_for_all_sessions(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, load, loads = tmp_path / "net.dcf", loader.load, list[Any]()
    dcformat.save(mlp(9, 4).model(), path)
    dcformat_runtime.prepare(path)

    def counted(*arguments: Any) -> Any:
        loads.append(arguments)
        return load(*arguments)

    monkeypatch.setattr(loader, "load", counted)
    sessions = [dcformat_runtime.load(path) for _ in range(3)]
    assert is_prepared(path)
    assert len(loads) <= 1  # its memory is never freed
    assert len({session(np.ones((1, 9), np.float32)).tobytes() for session in sessions}) == 1


def test_a_path_stays_the_same_and_a_url_is_none(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "https:" / "host"
    folder.mkdir(parents=True)
    dcformat.save(mlp(9, 4).model(), folder / "net.dcf")
    dcformat_runtime.prepare(folder / "net.dcf")
    monkeypatch.chdir(folder)
    session = dcformat_runtime.load("net.dcf")
    monkeypatch.chdir(tmp_path)
    assert copy.copy(session).output_shape == (4,)
    options = checked_options(None, False, "auto", DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK)
    assert prepared.find("https:/host/net.dcf", options) is not None
    assert prepared.find("https://host/net.dcf", options) is None


def test_a_url_needs_no_working_directory(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OSError, match="nothing"):
        dcformat_runtime.load("nothing+known://host/net.dcf")
