"""`dcformat export c`: the files and texts that it writes, and the networks and options that it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcformat_runtime.c_export.toolchains import missing

import dcformat
from dcformat.dense import from_dense
from dcformat.model import Model
from tests.cli.documents import valid
from tests.cli.support import Invoke, refused

needs_arm = pytest.mark.skipif(missing("cortex-m3") is not None, reason="arm-none-eabi-gcc is not installed")


@pytest.fixture
def without_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_files_and_what_is_printed(invoke: Invoke, tmp_path: Path, dcf: Path, without_compilers: None) -> None:
    out = tmp_path / "c" / "program"
    result = invoke("export", "c", dcf, "-o", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["model.c", "model.h", "test_model.c"]
    size = (out / "model.h").read_text().split("MODEL_DATA_SIZE ")[1].split("u")[0]
    assert result.stdout == f"{out}: {int(size):,} bytes of weights, 1,176 of values\n"
    assert result.stderr == "note: sizes were not measured, as arm-none-eabi-gcc is not installed\n"


def test_json(invoke: Invoke, tmp_path: Path, dcf: Path, data: Path, without_compilers: None) -> None:
    arguments = ("--numbers", "int8", "--calibrate", data, "--form", "sparse", "--static-inputs", "--json")
    result = invoke("export", "c", dcf, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    document = valid("export c", result.stdout)
    assert list(document) == [
        "schema", "file", "output", "format", "form", "mode", "numbers", "data_bytes", "arena_bytes", "error",
        "targets",
    ]  # fmt: skip
    assert (document["format"], document["form"], document["mode"]) == ("c", "sparse", None)
    assert document["arena_bytes"] == 1038
    assert list(document["error"]) == ["inputs", "largest", "mean", "same_argmax"]
    assert document["error"]["inputs"] == 1000
    assert document["targets"] == {}


@needs_arm
def test_sizes_for_a_target(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    result = invoke("export", "c", dcf, "-o", tmp_path / "out", "--target", "cortex-m0", "--json")
    sizes = valid("export c", result.stdout)["targets"]["cortex-m0"]
    assert list(sizes) == ["text", "rodata", "ram", "stack", "flash"]
    assert sizes["flash"] == sizes["text"] + sizes["rodata"]
    assert sizes["ram"] >= 1176


def test_existing_files_are_kept(invoke: Invoke, tmp_path: Path, dcf: Path, without_compilers: None) -> None:
    (tmp_path / "model.h").write_text("mine")
    assert "-f replaces it" in refused(invoke("export", "c", dcf, "-o", tmp_path), code=2)
    assert (tmp_path / "model.h").read_text() == "mine"
    assert not (tmp_path / "model.c").exists()
    assert invoke("export", "c", dcf, "-o", tmp_path, "-f").exit_code == 0
    assert (tmp_path / "model.h").read_text() != "mine"
    assert "expected a directory" in refused(invoke("export", "c", dcf, "-o", dcf), code=2)


def test_options_that_do_not_fit(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    out = tmp_path / "out"
    message = refused(invoke("export", "c", dcf, "-o", out, "--form", "sparse", "--mode", "small"), code=2)
    assert "tables have no coder" in message
    message = refused(invoke("export", "c", dcf, "-o", out, "--numbers", "int8"))
    assert "found no calibration inputs" in message
    message = refused(invoke("export", "c", dcf, "-o", out, "--calibrate", tmp_path / "x.npy"), code=2)
    assert "--calibrate: only for fixed point" in message
    np.save(tmp_path / "x.npy", np.zeros((3, 7), np.float32))
    message = refused(invoke("export", "c", dcf, "-o", out, "--numbers", "int8", "--calibrate", tmp_path / "x.npy"))
    assert "expected inputs of shape ('n', 784), found (3, 7)" in message
    assert not out.exists()


def test_a_target_without_its_compiler(invoke: Invoke, tmp_path: Path, dcf: Path, without_compilers: None) -> None:
    message = refused(invoke("export", "c", dcf, "-o", tmp_path / "out", "--target", "atmega328p"))
    assert "avr-gcc" in message
    assert not (tmp_path / "out").exists()


def test_a_file_of_tensors_alone(invoke: Invoke, tmp_path: Path) -> None:
    dcformat.save(Model({"w": from_dense("w", np.ones((2, 2), np.float32))}), tmp_path / "bag.dcf")
    assert "only tensors" in refused(invoke("export", "c", tmp_path / "bag.dcf", "-o", tmp_path / "out"))
