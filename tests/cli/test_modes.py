"""`--mode auto`, the default of `pack`, `apply` and `repack`: the smallest file that decodes in time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import dcformat
from dcformat.modes import MAX_ELEMENTS, ModeTrial, best, modes_to_try
from tests.cli.support import Invoke, refused, save_npz

MODES = ("fast", "small", "tiny")


def weights() -> np.ndarray:
    """Return a matrix whose rows differ in how full they are, which only the slower coders exploit."""
    random = np.random.default_rng(5)
    codebook = random.normal(0, 0.2, 8).astype(np.float32)
    full = np.linspace(0, 0.3, 40)[:, None]
    return np.where(random.random((40, 60)) < full, codebook[random.integers(0, 8, (40, 60))], np.float32(0))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_npz(tmp_path / "w.npz", {"w": weights()})
    return tmp_path / "w.npz"


def test_pack_keeps_the_smallest_and_tells_all_sizes(invoke: Invoke, checkpoint: Path, tmp_path: Path) -> None:
    sizes = {}
    for mode in MODES:
        assert invoke("pack", checkpoint, "-o", tmp_path / f"{mode}.dcf", "--mode", mode).exit_code == 0
        sizes[mode] = (tmp_path / f"{mode}.dcf").stat().st_size
    assert sizes["fast"] > sizes["small"] > sizes["tiny"]
    out = tmp_path / "auto.dcf"
    result = invoke("pack", checkpoint, "-o", out)
    told = ", ".join(f"{mode} {size:,}" for mode, size in sizes.items())
    assert result.stdout.splitlines()[1].startswith(f"{told}: kept tiny; decodes in about ")
    assert out.read_bytes() == (tmp_path / "tiny.dcf").read_bytes()
    document = json.loads(invoke("pack", checkpoint, "-f", "-o", out, "--json").stdout)
    assert {mode: trial["bytes"] for mode, trial in document["tried"].items()} == sizes
    between = (document["tried"]["small"]["seconds"] + document["tried"]["tiny"]["seconds"]) / 2
    for limit, kept in ((between, "small"), (1e-9, "fast")):
        document = json.loads(invoke("pack", checkpoint, "-f", "-o", out, "--seconds", limit, "--json").stdout)
        assert (document["mode"], out.stat().st_size) == (kept, sizes[kept])


def test_a_file_in_pieces_gets_the_same_mode_for_any_number_of_jobs(invoke: Invoke, tmp_path: Path) -> None:
    save_file({"w": weights()}, tmp_path / "w.safetensors")
    for jobs in (1, 2):
        arguments = ["pack", tmp_path / "w.safetensors", "-o", tmp_path / f"{jobs}.dcf", "--jobs", jobs, "--json"]
        document = json.loads(invoke(*arguments).stdout)
        assert (document["mode"], list(document["tried"])) == ("tiny", list(MODES))
    assert (tmp_path / "1.dcf").read_bytes() == (tmp_path / "2.dcf").read_bytes()
    invoke("pack", tmp_path / "w.safetensors", "-o", tmp_path / "tiny.dcf", "--mode", "tiny")
    assert (tmp_path / "tiny.dcf").read_bytes() == (tmp_path / "1.dcf").read_bytes()
    arguments = ["pack", tmp_path / "w.safetensors", "-o", tmp_path / "parts", "--shards", "1M", "--json"]
    document = json.loads(invoke(*arguments).stdout)
    assert (document["mode"], list(document["tried"])) == ("tiny", list(MODES))


def test_deltas_and_their_results(invoke: Invoke, checkpoint: Path, tmp_path: Path) -> None:
    new = weights()
    new[:, ::7] *= np.float32(2)
    save_npz(tmp_path / "new.npz", {"w": new})
    old, whole, delta, applied = (tmp_path / f"{name}.dcf" for name in ("old", "whole", "delta", "applied"))
    invoke("pack", checkpoint, "-o", old)
    invoke("pack", tmp_path / "new.npz", "-o", whole)
    assert ": kept " in invoke("pack", whole, "--base", old, "-o", delta).stdout
    assert invoke("apply", delta, "--base", old, "-o", applied).exit_code == 0
    assert applied.read_bytes() == whole.read_bytes()


def test_python_saves_what_the_command_packs(invoke: Invoke, checkpoint: Path, tmp_path: Path) -> None:
    invoke("pack", checkpoint, "-o", tmp_path / "a.dcf")
    model = dcformat.load(tmp_path / "a.dcf")
    dcformat.save(model, tmp_path / "b.dcf", mode="auto")
    assert (tmp_path / "b.dcf").read_bytes() == (tmp_path / "a.dcf").read_bytes() == dcformat.dumps(model, mode="auto")
    filler = dcformat.dumps(model, mode="auto", relative_index="filler")
    assert filler == dcformat.dumps(model, relative_index="filler")


def test_numbers_without_a_pattern_take_no_more_than_raw(invoke: Invoke, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 200), np.uint8)
    for name, values in {"u8": noise, "i8": noise.view(np.int8), "f64": noise.ravel().view(np.float64)}.items():
        save_file({"w": values}, tmp_path / f"{name}.safetensors")
        assert invoke("pack", tmp_path / f"{name}.safetensors", "-o", tmp_path / f"{name}.dcf").exit_code == 0
        assert (tmp_path / f"{name}.dcf").stat().st_size <= (tmp_path / f"{name}.safetensors").stat().st_size


def test_the_rule() -> None:
    assert modes_to_try("auto", 0) == modes_to_try("auto", 1_000_000) == MODES
    assert modes_to_try("auto", 1_000_001) == modes_to_try("auto", 5_000_000) == ("fast", "small")
    assert modes_to_try("auto", 5_000_001) == ("fast",)
    assert modes_to_try("auto", 1_000_001, 0.2) == modes_to_try("auto", 1_000_000, 0.001) == MODES
    assert modes_to_try("tiny", 5_000_001) == ("tiny",)
    assert dict(MAX_ELEMENTS) == {"small": 5_000_000, "tiny": 1_000_000}
    trials = (ModeTrial("fast", 300, 0.01), ModeTrial("small", 200, 0.05), ModeTrial("tiny", 200, 0.2))
    assert best(trials).mode == "small"
    assert best(trials, 1.0).mode == "small"
    assert best(trials, 0.02).mode == "fast"
    assert best(trials[1:], 0.01).mode == "small"


def test_misuse(invoke: Invoke, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["pack", checkpoint, "-o", tmp_path / "a.dcf", "--mode", "small", "--seconds", "2"]
    refused(invoke(*arguments), "--seconds: only for --mode auto", code=2)
    refused(invoke(*arguments[:4], "--seconds", "0"), "--seconds", code=2)
    assert not (tmp_path / "a.dcf").exists()
    result = invoke("pack", checkpoint, "-o", tmp_path / "a.dcf", "--relative-index", "filler", "--json")
    assert (json.loads(result.stdout)["mode"], list(json.loads(result.stdout)["tried"])) == ("fast", ["fast"])
