"""`dcformat pack --base` and `dcformat apply`, and the answers of other verbs to deltas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dcformat
from tests.cli.support import PACK, Invoke, State, refused, save_npz


@pytest.fixture
def new(tmp_path: Path, state: State) -> Path:
    """A checkpoint in which two tensors differ from those of `npz`."""
    weight, bias = state["fc1.weight"].copy(), state["fc3.bias"].copy()
    weight[weight != 0] *= 2
    bias[0] += 1
    save_npz(tmp_path / "new.npz", {**state, "fc1.weight": weight, "fc3.bias": bias})
    return tmp_path / "new.npz"


@pytest.fixture
def delta(invoke: Invoke, dcf: Path, new: Path, tmp_path: Path) -> Path:
    result = invoke(*PACK, new, "--base", dcf, "-o", tmp_path / "delta.dcf")
    assert result.exit_code == 0, result.output
    assert f"note: the network and the labels are those of {dcf}" in result.stderr
    assert result.stdout.endswith(" the others kept\n")
    return tmp_path / "delta.dcf"


def test_there_and_back(invoke: Invoke, dcf: Path, new: Path, delta: Path, tmp_path: Path) -> None:
    whole, made = tmp_path / "whole.dcf", tmp_path / "made.dcf"
    assert invoke(*PACK, new, "-o", whole, "--architecture", "lenet-300-100").exit_code == 0
    result = invoke("apply", delta, "--base", dcf, "-o", made, "--mode", "fast")
    assert result.stdout.startswith(f"{made}: {made.stat().st_size:,} bytes, 6 tensors, content digest ")
    assert made.read_bytes() == whole.read_bytes()
    assert delta.stat().st_size < whole.stat().st_size / 10
    refused(invoke("apply", delta, "--base", dcf, "-o", made), "found one; -f replaces it", code=2)
    result = invoke("apply", "-", "--base", dcf, "-o", "-", "--mode", "fast", stdin=delta.read_bytes())
    assert result.stdout_bytes == whole.read_bytes()


def test_a_packed_file_as_the_new_one(invoke: Invoke, dcf: Path, new: Path, delta: Path, tmp_path: Path) -> None:
    whole, again = tmp_path / "whole.dcf", tmp_path / "again.dcf"
    invoke("pack", new, "-o", whole, "--architecture", "lenet-300-100", "--mode", "tiny")
    assert invoke(*PACK, whole, "--base", dcf, "-o", again).exit_code == 0
    assert again.read_bytes() == delta.read_bytes()
    refused(invoke(*PACK, whole, "-o", tmp_path / "x.dcf"), "a .dcf file is packed already", code=2)
    arguments = [*PACK, whole, "--base", dcf, "-o", tmp_path / "x.dcf", "--labels", "a,b"]
    refused(invoke(*arguments), f"--labels: {whole} is packed unchanged, and only --base", code=2)
    arguments[-2:] = ["--exact", "--float32", "--dim", "a=3", "--jobs", "2", "--shards", "0"]
    refused(invoke(*arguments), "--dim, --float32, --exact, --jobs, --shards: ", code=2)
    refused(invoke(*PACK, new, *arguments[4:8], "--relative-index", "filler"), "not for a delta", code=2)
    assert not (tmp_path / "x.dcf").exists()


def test_another_base(invoke: Invoke, dcf: Path, npz: Path, delta: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.dcf"
    invoke(*PACK, npz, "-o", other)
    message = "other.dcf: not the base of this delta: base: expected the delta's base, of content digest "
    refused(invoke("apply", delta, "--base", other, "-o", tmp_path / "x.dcf"), message, "[E17]")
    refused(invoke("verify", delta, "--base", other), message, "[E17]")
    refused(invoke("apply", dcf, "--base", dcf, "-o", tmp_path / "x.dcf"), "found one file twice", code=2)
    refused(invoke("apply", other, "--base", dcf, "-o", tmp_path / "x.dcf"), "other.dcf: needs another kind", "[E18]")
    result = invoke(*PACK, npz, "--base", "-", "-o", tmp_path / "x.dcf", stdin=dcf.read_bytes())
    refused(result, "--base: expected a file that can be read twice, found - (stdin)", code=2)
    refused(invoke(*PACK, npz, "--base", delta, "-o", tmp_path / "x.dcf"), "delta.dcf: needs another kind", "[E18]")


def test_a_checkpoint_that_does_not_fit_the_network(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.ones((2, 3), np.float32))
    result = invoke(*PACK, tmp_path / "a.npz", "--base", dcf, "-o", tmp_path / "d.dcf")
    assert f"do not fit the network of {dcf}" in result.stderr
    assert dcformat.apply(tmp_path / "d.dcf", dcf).graph is None


def test_what_other_verbs_say(invoke: Invoke, dcf: Path, delta: Path, tmp_path: Path) -> None:
    with dcformat.open(dcf) as base:
        digest = base.digest.hex()
    result = invoke("inspect", delta)
    assert f"a delta from a base with content digest {digest}: " in result.stdout
    assert " changed, 0 new, the others kept, new content digest " in result.stdout.replace("1 new", "0 new")
    document = json.loads(invoke("inspect", delta, "--json").stdout)["delta"]
    assert document["base"] == digest and document["kept"] is None and document["changed"] + document["new"] == 2
    assert json.loads(invoke("inspect", dcf, "--json").stdout)["delta"] is None
    assert invoke("verify", delta).stdout.startswith(f"{delta}: good: ")
    assert invoke("verify", delta, "--base", dcf).exit_code == 0
    message = "delta.dcf: needs another kind of file: file: expected one that stands alone (dcformat apply DELTA"
    refused(invoke("unpack", delta, "-o", tmp_path / "x.npz"), message, "[E18]")
    refused(invoke("run", delta), message, "[E18]")
    refused(invoke("diff", dcf, delta), message, "[E18]")
    refused(invoke("doctor", delta), message, "[E18]")
    for form in ("onnx", "c", "state-dict", "scipy"):
        refused(invoke("export", form, delta, "-o", tmp_path / "x"), message, "[E18]")
        assert not (tmp_path / "x").exists()
    altered = bytearray(delta.read_bytes())
    altered[-12] ^= 1
    delta.write_bytes(altered)
    refused(invoke("apply", delta, "--base", dcf, "-o", tmp_path / "x.dcf"), "delta.dcf: damaged: ", "[E05]")


def test_the_memory_for_the_base(invoke: Invoke, dcf: Path, delta: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", bias=np.ones(3, np.float32))
    arguments = [*PACK, tmp_path / "a.npz", "--base", dcf, "-o", tmp_path / "x.dcf", "--max-memory"]
    refused(invoke(*arguments, "4K"), f"{dcf}: needs more memory than --max-memory allows", "[E07]")
    assert not (tmp_path / "x.dcf").exists()
    assert invoke(*arguments, "none").exit_code == 0


def test_json(invoke: Invoke, dcf: Path, new: Path, tmp_path: Path) -> None:
    made = tmp_path / "d.dcf"
    document = json.loads(invoke(*PACK, new, "--base", dcf, "-o", made, "--json").stdout)
    assert set(document["delta"]) == {"base", "result", "kept", "changed", "new"}
    document = json.loads(invoke("apply", made, "--base", dcf, "-o", tmp_path / "n.dcf", "--json").stdout)
    assert list(document) == ["schema", "file", "base", "output", "mode", "bytes", "tensors", "digest"]
    assert document["tensors"] == 6
