"""`dcformat verify`: no altered byte and no missing one goes unnoticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import dcformat
from tests.cli.support import Invoke, refused


def test_a_good_file(invoke: Invoke, dcf: Path) -> None:
    result = invoke("verify", dcf)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{dcf}: good: {dcf.stat().st_size:,} bytes, 6 tensors, content digest ")
    assert invoke("verify", "-", stdin=dcf.read_bytes()).exit_code == 0


def test_every_part_cut_off(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    whole = dcf.read_bytes()
    for length in [*range(1, 40), *range(40, len(whole), len(whole) // 29), len(whole) - 1]:
        (tmp_path / "cut.dcf").write_bytes(whole[:length])
        refused(invoke("verify", tmp_path / "cut.dcf"), "cut.dcf: E0")


def test_altered_anywhere(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    whole = dcf.read_bytes()
    for position in [*range(40), *range(40, len(whole), len(whole) // 29), *range(len(whole) - 12, len(whole))]:
        altered = bytearray(whole)
        altered[position] ^= 1 << position % 8
        (tmp_path / "altered.dcf").write_bytes(altered)
        refused(invoke("verify", tmp_path / "altered.dcf"), "altered.dcf: E")


def test_more_after_the_end(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    (tmp_path / "long.dcf").write_bytes(dcf.read_bytes() + b"\n")
    refused(invoke("verify", tmp_path / "long.dcf"), "long.dcf: E04")


def test_a_self_test_is_run(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.dcf"
    arguments = ["pack", npz, "-o", packed, "--architecture", "lenet-300-100", "--self-test", "3"]
    assert invoke(*arguments).exit_code == 0
    assert invoke("verify", packed).stdout.endswith("self-test of 3 inputs passed\n")
    assert "self-test: 3 inputs from seed" in invoke("inspect", packed).stdout
    model = dcformat.load(packed)
    assert model.self_test is not None
    dcformat.save(replace(model, self_test=replace(model.self_test, digest=bytes(8))), packed)
    refused(invoke("verify", packed), "a.dcf: expected the results that its self-test states")
    dcformat.save(replace(model, graph=None), packed)
    refused(invoke("verify", packed), "a.dcf: expected a network for its self-test, found tensors alone")


@pytest.mark.parametrize("verb", ["verify", "run", "unpack", "inspect"])
def test_memory_is_bounded_when_asked(invoke: Invoke, dcf: Path, tmp_path: Path, verb: str) -> None:
    more = {"unpack": ["-o", tmp_path / "out.npz"]}.get(verb, [])
    refused(invoke(verb, dcf, "--max-memory", "10K", *more), "lenet.dcf: E07", "10240 (max_memory)")
    assert invoke(verb, dcf, "--max-memory", "much", *more).exit_code == 2
