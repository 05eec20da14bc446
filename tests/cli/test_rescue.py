"""`verify --repair-info`, `unpack --skip-damaged` and `unpack --tensor`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dcformat
from tests.cli.support import Invoke, refused


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Three tensors, each in its own data block."""
    source = np.random.default_rng(0)
    tensors = {n: dcformat.from_dense(n, source.integers(0, 256, 70_000, np.uint8), "uint8") for n in "abc"}
    dcformat.save(dcformat.Model(tensors), tmp_path / "whole.dcf")
    return tmp_path / "whole.dcf"


@pytest.fixture
def bad(whole: Path, tmp_path: Path) -> Path:
    """The same with a flipped bit in the second tensor."""
    data = bytearray(whole.read_bytes())
    data[100_000] ^= 4
    (tmp_path / "bad.dcf").write_bytes(data)
    return tmp_path / "bad.dcf"


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """The same without its last third."""
    (tmp_path / "cut.dcf").write_bytes(whole.read_bytes()[:160_000])
    return tmp_path / "cut.dcf"


def test_repair_info_of_a_flipped_bit(invoke: Invoke, bad: Path, whole: Path) -> None:
    result = invoke("verify", "--repair-info", bad, whole)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"dcformat: {bad}: damaged: CRC-32C of data block 1 (tensor 'b') at byte ")
    assert result.stdout.splitlines()[:5] == [
        f"{bad}: 2 of 3 tensors whole",
        "  whole: a",
        "  whole: c",
        "  damaged: b",
        f"rescue those that are whole: dcformat unpack --skip-damaged {bad} -o OUT.safetensors",
    ]
    assert result.stdout.splitlines()[5].startswith(f"{whole}: good: ")
    assert invoke("verify", "--repair-info", whole).exit_code == 0


def test_repair_info_in_json(invoke: Invoke, cut: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "text.dcf").write_bytes(b"no model")
    result = invoke("verify", "--repair-info", cut, whole, tmp_path / "text.dcf", tmp_path / "no.dcf", "--json")
    assert result.exit_code == 1
    first, second, *others = json.loads(result.stdout)["files"]
    assert (first["whole"], [entry["name"] for entry in first["damaged"]]) == (["a", "b"], ["c"])
    assert first["error"] == f"{cut}: truncated: 160,000 of {whole.stat().st_size:,} bytes [E03]"
    assert first["damaged"][0]["error"].startswith(f"{cut}: truncated: 160,000 of at least ")
    assert (second["good"], second["whole"], second["damaged"]) == (True, ["a", "b", "c"], [])
    assert all(entry["whole"] == entry["damaged"] == [] for entry in others)
    refused(invoke("verify", "--repair-info", "-", stdin=b""), "a file that can be read twice", code=2)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_whole_tensors_are_rescued(invoke: Invoke, bad: Path, cut: Path, tmp_path: Path, suffix: str) -> None:
    for file, kept in ((bad, "ac"), (cut, "ab")):
        out = tmp_path / f"out.{suffix}"
        refused(invoke("unpack", file, "-f", "-o", out), "[E0")
        result = invoke("unpack", "--skip-damaged", file, "-f", "-o", out)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{out}: 2 tensors\n"
        lost = ({"a", "b", "c"} - set(kept)).pop()
        assert result.stderr.startswith(f"warning: left out {lost}: {file}: ")
        read = dcformat.open(file, partial=True)
        if suffix == "npz":
            with np.load(out) as archive:
                assert archive.files == list(kept)
                assert all(np.array_equal(archive[name], read.dense(name)) for name in kept)
        read.close()
    document = json.loads(invoke("unpack", "--skip-damaged", cut, "-f", "-o", out, "--json").stdout)
    assert document["damaged"] == ["c"]


def test_nothing_to_rescue(invoke: Invoke, bad: Path, tmp_path: Path) -> None:
    arguments = ["unpack", "--skip-damaged", "--tensor", "b", bad, "-o", tmp_path / "out.npz"]
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"dcformat: {bad}: expected at least one tensor that is whole, found none"


def test_single_tensors(invoke: Invoke, whole: Path, bad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert invoke("unpack", whole, "--tensor", "c", "--tensor", "a", "-o", out).stdout == f"{out}: 2 tensors\n"
    with np.load(out) as archive:
        assert archive.files == ["a", "c"]
    # Damage elsewhere does not matter.
    assert invoke("unpack", bad, "--tensor", "c", "-f", "-o", out).exit_code == 0
    refused(invoke("unpack", whole, "--tensor", "cc", "-f", "-o", out), "no tensor 'cc'. Did you mean 'c'?", code=2)
