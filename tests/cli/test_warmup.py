"""`dcformat warmup` finds and saves every kernel, and lists and removes the saved files."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dcformat_runtime.kernels
import pytest
from dcformat_cli import compiling
from dcformat_cli.verbs import warmup_command
from dcformat_runtime.kernels import interpreter

import dcformat
import dcformat.codecs
from dcformat import jit
from dcformat.graph import Graph, Transpose
from dcformat.jit import abi
from dcformat.jit.machine_code import image
from tests.cli.support import Invoke, environment, refused, spawn
from tests.runtime.example_networks import mlp

pytestmark = pytest.mark.skipif(not abi.layout_known(), reason="machine code is not kept on this platform")

#: The directory where these tests find code that was compiled before; None for the user's own.
OWN_CACHE = os.environ.get("DCFORMAT_CACHE_DIR")
FEW = ("dcformat.codecs.index.escape", "dcformat.codecs.index.unfill")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK", "DCFORMAT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let warmup find only two kernels, which are not resolved yet."""
    found = [kernel for kernel in compiling.all_kernels() if kernel.name in FEW]
    fresh = tuple(jit.Kernel(kernel.python, kernel.signature) for kernel in found)
    monkeypatch.setattr(warmup_command, "all_kernels", lambda: fresh)


@pytest.mark.needs_compiler
def test_every_kernel_is_found() -> None:
    for package in (dcformat.codecs, dcformat_runtime.kernels):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    assert set(compiling.all_kernels()) == set(jit.kernels())
    names = {kernel.name for kernel in compiling.all_kernels()}
    assert {*FEW, "dcformat_runtime.kernels.interpreter.run", "dcformat.codecs.huffman.read_four"} <= names
    assert len(names) == len(compiling.all_kernels())


@pytest.mark.slow
@pytest.mark.needs_compiler
@pytest.mark.usefixtures("few")
def test_kernels_are_saved_listed_and_removed(place: Path) -> None:
    # The test uses new processes, because this one may have imported Numba with the JIT off.
    script = (
        "import sys; from dcformat_cli.verbs import warmup_command; from dcformat_cli.main import main\n"
        f"found = [k for k in warmup_command.all_kernels() if k.name in {FEW!r}]\n"
        "warmup_command.all_kernels = lambda: found\nsys.argv[1:] = {}\nmain()"
    )
    first = spawn(script.format("['warmup', '--json']"), python=True)
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert (report["kernels"], report["compiled"], report["unsaved"]) == (2, 2, [])
    assert report["folder"] == str(place)
    assert report["bytes"] == sum(path.stat().st_size for path in place.iterdir())
    second = spawn(script.format("['warmup']"), python=True)
    assert second.stdout.decode().endswith(": all were already there\n")
    listed = spawn(script.format("['warmup', '--list', '--json']"), python=True)
    assert {Path(path).parent for path in json.loads(listed.stdout)["kernels"].values()} == {place}
    table = spawn(script.format("['warmup', '--list']"), python=True).stdout.decode()
    assert "2 of 2 saved" in table
    (place / ".1-ab.partial").write_bytes(b"left behind")
    cleared = spawn(script.format("['warmup', '--clear']"), python=True)
    assert cleared.returncode == 0
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("few")
def test_without_a_compiler_warmup_fails(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    refused(invoke("warmup"), "expected Numba, to compile 2 kernels, found none, or one that is switched off")


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("few")
def test_a_cache_that_cannot_be_used_is_refused_before_anything_is_compiled(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path / "file"))
    refused(invoke("warmup"), "DCFORMAT_CACHE_DIR", f"found {tmp_path}/file/kernels: Not a directory")


@pytest.mark.slow
@pytest.mark.needs_compiler
def test_an_interruption_keeps_compiled_kernels(place: Path) -> None:
    # The compiler handles an interruption once a kernel is done, so each of these is short.
    script = (
        "from dcformat_cli.verbs import warmup_command; from dcformat_cli.entry import main\n"
        "found = [k for k in warmup_command.all_kernels() if '.index.' in k.name or '.huffman.' in k.name]\n"
        "warmup_command.all_kernels = lambda: found\nimport sys; sys.argv[1:] = ['warmup']\nmain()"
    )
    arguments = [sys.executable, "-c", script]
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(place.glob("*.kernel")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].decode().splitlines()[-1] == "dcformat: interrupted"
    assert process.returncode == 130
    assert not list(place.glob(".*.partial"))
    listed = json.loads(spawn("warmup", "--list", "--json").stdout)
    saved = {path for path in listed["kernels"].values() if path is not None}
    assert saved == {str(path) for path in place.iterdir()}
    assert saved


def test_options_that_make_no_sense_together(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("warmup", "--list", "--clear").exit_code == 2
    assert invoke("warmup", "--target", "aarch64").exit_code == 2
    assert invoke("warmup", "--into", tmp_path).exit_code == 2
    refused(invoke("warmup", "--list", "--force"), "--force needs --target and --into", code=2)
    refused(invoke("warmup", "--target", "z80", "--into", tmp_path), "x86-64-v4", "'z80'", code=2)


@pytest.mark.needs_compiler
def test_code_for_another_machine(place: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from dcformat_cli.verbs import warmup_command; from dcformat_cli.main import main\n"
        f"found = [k for k in warmup_command.all_kernels() if k.name in {FEW!r}]\n"
        f"warmup_command.all_kernels = lambda: found\nsys.argv[1:] = 'warmup --target aarch64 --into'.split()\n"
        f"sys.argv.append({str(tmp_path)!r})\nmain()"
    )
    done = spawn(script, python=True)
    assert done.returncode == 0, done.stderr
    saved = list((tmp_path / "kernels").iterdir())
    assert len(saved) == 2
    for kernel in compiling.all_kernels():
        if kernel.name in FEW:
            key = kernel.key("aarch64")
            (path,) = (path for path in saved if path.name.startswith(key.hex()))
            data = path.read_bytes()
            made = image.unpack(data, key)
            assert made is not None
            slot = {name: at for at, name in made.imports}["PyEval_SaveThread"]
            assert made.code[slot + 12 : slot + 16] == bytes.fromhex("00021fd6")  # br x16
    assert not place.exists()


@pytest.mark.needs_compiler
def test_networks_are_prepared_listed_and_removed(
    invoke: Invoke, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = interpreter.run
    with monkeypatch.context() as shared:
        if OWN_CACHE is None:
            shared.delenv("DCFORMAT_CACHE_DIR")
        else:
            shared.setenv("DCFORMAT_CACHE_DIR", OWN_CACHE)
        # The kernel itself may have been resolved while another test had a directory of its own.
        fresh = jit.Kernel(run.python, run.signature, run.fastmath, run.unroll)
        fresh.resolve()
        code = fresh.path()
    assert code is not None
    place.mkdir(0o700, parents=True)
    shutil.copy(code, place)
    first, second = tmp_path / "first.dcf", tmp_path / "second.dcf"
    for seed, path in enumerate((first, second)):
        dcformat.save(mlp(9, 4, seed=seed).model(), path)
    said = invoke("warmup", first).stdout
    (saved,) = place.glob("*.network")
    assert said == f"{first}: prepared ({saved.stat().st_size:,} bytes in {place})\n"
    report = json.loads(invoke("warmup", first, second, "--json").stdout)
    assert report["folder"] == str(place)
    assert [row["file"] for row in report["prepared"]] == [str(first), str(second)]
    sizes = sorted(path.stat().st_size for path in place.glob("*.network"))
    assert sorted(row["bytes"] for row in report["prepared"]) == sizes
    several = tmp_path / "several.dcf"
    dcformat.save(dcformat.Model({}, Graph.sequential((2, 3), (Transpose((0,), (1, 0)),))), several)
    parts = invoke("warmup", several, second)
    assert parts.exit_code == 1
    assert f"{several}: its network runs in several parts, and cannot be prepared" in parts.stderr
    assert parts.stdout.startswith(f"{second}: prepared")
    listed = json.loads(invoke("warmup", "--list", "--json").stdout)["networks"]
    assert {row["made_of"] for row in listed} == {str(first), str(second)}
    assert {row["file"] for row in listed} == {str(path) for path in place.glob("*.network")}
    assert sorted(row["bytes"] for row in listed) == sizes
    assert all(abs(row["used"] - time.time()) < 86400 for row in listed)
    table = invoke("warmup", "--list").stdout
    assert f"Networks in {place}" in table
    assert re.search(rf"{re.escape(str(first))} +[\d,]+ +\d{{4}}-\d\d-\d\d\n", table)
    assert re.search(rf"2 networks +{sum(sizes):,}", table)
    refused(invoke("warmup", tmp_path / "third.dcf"), "third.dcf: no such file or directory")
    refused(invoke("warmup", code), f"{code}: not a .dcf file")
    refused(invoke("warmup", first, "--clear"), "expected one of FILE, --list, --clear and --target", code=2)
    assert invoke("warmup", "--clear").exit_code == 0
    assert list(place.iterdir()) == []


def test_without_a_compiler_nothing_is_prepared(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    dcformat.save(mlp(9, 4).model(), tmp_path / "net.dcf")
    fresh = jit.Kernel(interpreter.run.python, interpreter.run.signature)
    monkeypatch.setattr(interpreter, "run", fresh)
    refused(invoke("warmup", tmp_path / "net.dcf"), "expected Numba, to compile the kernels, found none")
