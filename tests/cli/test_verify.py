"""`dcformat verify` notices every altered and every missing byte."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import dcformat
from dcformat.graph import Gather, Graph, Output, Port
from dcformat.model import SelfTest, Tensor
from dcformat.records import replace
from tests.cli.support import PACK, Invoke, refused, spawn

LENET = Path(__file__).resolve().parents[2] / "models" / "lenet-5.dcf"


def test_a_good_file(invoke: Invoke, dcf: Path) -> None:
    result = invoke("verify", dcf)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{dcf}: good: {dcf.stat().st_size:,} bytes, 6 tensors, content digest ")
    assert invoke("verify", "-", stdin=dcf.read_bytes()).exit_code == 0


def test_every_part_cut_off(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    whole = dcf.read_bytes()
    for length in [*range(1, 40), *range(40, len(whole), len(whole) // 29), len(whole) - 1]:
        (tmp_path / "cut.dcf").write_bytes(whole[:length])
        refused(
            invoke("verify", tmp_path / "cut.dcf"),
            "cut.dcf: truncated: ",
            "[E0",
        )


def test_altered_anywhere(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    whole = dcf.read_bytes()
    for position in [*range(40), *range(40, len(whole), len(whole) // 29), *range(len(whole) - 12, len(whole))]:
        altered = bytearray(whole)
        altered[position] ^= 1 << position % 8
        (tmp_path / "altered.dcf").write_bytes(altered)
        refused(invoke("verify", tmp_path / "altered.dcf"), "altered.dcf: ", "[E")


def test_flipped_bits_are_named_by_tensor_in_json(invoke: Invoke, tmp_path: Path) -> None:
    """All tensors of this file share a data block, so damage to one of them may be damage to any."""
    whole, path = LENET.read_bytes(), tmp_path / "flipped.dcf"
    with dcformat.open(whole) as file:
        names = file.names
        payloads = len(whole) - 12 - sum(file.info(name).payload_bytes for name in names)
    for bit in range(0, 8 * len(whole), 587):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        result = invoke("verify", path, "--json", "--repair-info")
        (report,) = json.loads(result.stdout)["files"]
        assert (result.exit_code, report["good"]) == (1, False), bit
        inside = payloads <= bit // 8 < len(whole) - 8
        assert [name for name in names if f"'{name}'" in report["error"]] == (list(names) if inside else []), bit
        assert [each["name"] for each in report["damaged"]] == (list(names) if inside else []), bit
        # A damaged front cannot say which tensors there are; without their digest, all of them are whole.
        assert report["whole"] == (list(names) if bit // 8 >= len(whole) - 8 else []), bit


def test_bytes_after_the_end(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    (tmp_path / "long.dcf").write_bytes(dcf.read_bytes() + b"\n")
    refused(invoke("verify", tmp_path / "long.dcf"), "long.dcf: extra bytes: file at byte ", "[E04]")


def test_a_self_test_with_indices_beyond_a_table(invoke: Invoke, tmp_path: Path) -> None:
    graph = Graph((Port((4,), "tokens", "int64"),), (Gather(("t", 0)),), (Output(1),))
    table = dcformat.from_dense("t", np.ones((1, 3), np.float32))
    model = dcformat.Model({"t": table}, graph, self_test=SelfTest(0, 2, bytes(8)))
    dcformat.save(model, tmp_path / "a.dcf")
    refused(invoke("verify", tmp_path / "a.dcf"), "a.dcf: self-test: index: expected whole numbers from -1 to 0")


def test_a_self_test_is_run(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.dcf"
    arguments = [*PACK, npz, "-o", packed, "--architecture", "lenet-300-100", "--self-test", "3"]
    assert invoke(*arguments).exit_code == 0
    assert invoke("verify", packed).stdout.endswith("self-test of 3 inputs passed\n")
    assert "self-test: 3 inputs from seed" in invoke("inspect", packed).stdout
    model = dcformat.load(packed)
    assert model.self_test is not None
    dcformat.save(replace(model, self_test=replace(model.self_test, digest=bytes(8))), packed)
    refused(invoke("verify", packed), "a.dcf: expected the results that its self-test states")
    with pytest.raises(dcformat.FormatError, match="self-test: expected a graph"):
        dcformat.save(replace(model, graph=None), packed)


@pytest.mark.parametrize(
    ("limit", "given", "bound", "code"), [("memory", "10K", "10,240", "E07"), ("work", "1M", "1,048,576", "E16")]
)
@pytest.mark.parametrize("verb", ["verify", "run", "unpack", "inspect"])
def test_memory_and_work_are_bounded_when_asked(
    invoke: Invoke, dcf: Path, tmp_path: Path, verb: str, limit: str, given: str, bound: str, code: str
) -> None:
    more = {"unpack": ["-o", tmp_path / "out.npz"]}.get(verb, [])
    refused(
        invoke(verb, dcf, f"--max-{limit}", given, *more),
        f"lenet.dcf: needs more {limit} than --max-{limit} allows: ",
        f"at most {bound}, found ",
        f"[{code}]",
    )
    assert invoke(verb, dcf, f"--max-{limit}", "much", *more).exit_code == 2


@pytest.mark.parametrize("verb", ["verify", "unpack", "inspect"])
def test_limits_can_be_lifted(invoke: Invoke, dcf: Path, tmp_path: Path, verb: str) -> None:
    more = {"unpack": ["-o", tmp_path / "out.npz"]}.get(verb, [])
    assert invoke(verb, dcf, "--max-memory", "none", "--max-work", "None", *more).exit_code == 0


def constant(path: Path, size: int) -> Path:
    """Write a file of a few bytes that holds `size` float32 ones."""
    dcformat.save(dcformat.Model({"w": Tensor("w", (size,), "float32", np.ones(1, "<f4"))}), path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_constant_is_unpacked_without_being_expanded(invoke: Invoke, tmp_path: Path, suffix: str) -> None:
    packed, out = constant(tmp_path / "c.dcf", 8 << 20), tmp_path / f"c.{suffix}"
    tracemalloc.start()
    try:
        assert invoke("unpack", packed, "-o", out, "--max-memory", "4M").exit_code == 0
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert out.stat().st_size - (32 << 20) in range(64, 400)
    assert set(out.read_bytes()[4096:8192]) == {0x00, 0x80, 0x3F}


def test_unpacked_bytes_count_as_work(invoke: Invoke, tmp_path: Path) -> None:
    packed = constant(tmp_path / "c.dcf", 1 << 40)
    assert packed.stat().st_size < 100
    error = refused(
        invoke("unpack", packed, "-o", tmp_path / "c.npz"), "c.dcf: needs more work", "unpacking the file: expected at"
    )
    assert "--max-work" in error and not (tmp_path / "c.npz").exists()
    assert invoke("verify", packed).exit_code == 0


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such devices")
@pytest.mark.parametrize("verb", ["verify", "inspect", "run"])
def test_endless_inputs_are_refused_at_their_first_bytes(verb: str) -> None:
    with open("/dev/zero", "rb") as endless:  # noqa: PTH123
        done = spawn(verb, "-", stdin=endless)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"dcformat: stdin: not a .dcf file [E01]\n"
    done = spawn(verb, "/dev/zero")
    assert done.stderr == b"dcformat: /dev/zero: not a .dcf file [E01]\n"
