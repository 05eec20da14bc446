"""`dcformat repack` keeps the content and changes the coders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dcformat
from tests.cli.support import Invoke, refused

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_auto_keeps_the_smallest_that_decodes_in_time(invoke: Invoke, tmp_path: Path) -> None:
    source, out = MODELS / "lenet-5.dcf", tmp_path / "a.dcf"
    result = invoke("repack", source, "-o", out, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert list(document) == ["schema", "file", "output", "mode", "before", "tried"]
    sizes = {mode: figures["bytes"] for mode, figures in document["tried"].items()}
    assert list(sizes) == ["fast", "small", "tiny"]
    assert sizes["fast"] > sizes["small"] > sizes["tiny"]
    assert (document["mode"], document["before"], sizes["tiny"]) == ("tiny", 2379, out.stat().st_size)
    seconds = {mode: figures["seconds"] for mode, figures in document["tried"].items()}
    result = invoke("repack", source, "-f", "-o", out, "--seconds", seconds["small"])
    assert ": kept small; decodes in about " in result.stdout
    assert result.stdout.endswith(" (was 2,379)\n")
    assert out.stat().st_size == sizes["small"]


@pytest.mark.parametrize("mode", ["fast", "small", "tiny"])
def test_the_content_stays_the_same(invoke: Invoke, tmp_path: Path, mode: str, dcf: Path) -> None:
    out, again = tmp_path / "a.dcf", tmp_path / "b.dcf"
    assert invoke("repack", dcf, "-o", out, "--mode", mode).exit_code == 0
    with dcformat.open(dcf) as before, dcformat.open(out) as after:
        assert before.digest == after.digest
    result = invoke("repack", "-", "-o", "-", "--mode", "fast", stdin=out.read_bytes())
    assert result.stdout_bytes == dcf.read_bytes()
    assert invoke("repack", out, "-o", again, "--mode", mode).exit_code == 0
    assert again.read_bytes() == out.read_bytes()


def test_nothing_is_overwritten(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    (tmp_path / "a.dcf").write_bytes(b"precious")
    refused(invoke("repack", dcf, "-o", tmp_path / "a.dcf"), "-f replaces it", code=2)
    refused(invoke("repack", dcf, "-f", "-o", dcf), "found the same file", code=2)
    refused(invoke("repack", tmp_path / "a.dcf", "-o", tmp_path / "b.dcf"), "not a .dcf file")
    arguments = ("-o", tmp_path / "b.dcf", "--mode", "fast", "--seconds", "2")
    refused(invoke("repack", dcf, *arguments), "--seconds: only for --mode auto", code=2)
    assert not (tmp_path / "b.dcf").exists()
