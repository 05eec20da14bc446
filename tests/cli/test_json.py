"""The keys of every JSON document, written out: programs rely on them, and docs/json.md names them all."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_cli.main import VERBS
from dcformat_cli.schemas import DOCUMENTS, schema_of
from dcformat_cli.verbs import warmup_command
from jsonschema import Draft202012Validator
from safetensors.numpy import save_file

import dcformat
from tests.cli.documents import valid
from tests.cli.support import PACK, Invoke

FIGURES = ["size", "parameters", "float32_bytes", "ratio", "tensors", "ledger"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "json_page.py"


def keys(verb: str, text: str, *expected: str) -> dict[str, Any]:
    """Parse a verb's document, validate it, compare its keys with those expected, in order, and return it."""
    found = valid(verb, text)
    assert list(found) == ["schema", *expected]
    return found


def test_the_page_describes_the_schemas() -> None:
    page = runpy.run_path(str(PAGE))
    assert page["PAGE"].read_text("utf-8") == page["page"](), "run docs/json_page.py"


@pytest.mark.parametrize("verb", list(DOCUMENTS))
def test_every_verb_prints_its_schema(invoke: Invoke, verb: str) -> None:
    result = invoke(*verb.split(), "--json-schema")
    assert json.loads(result.stdout) == schema_of(verb)
    Draft202012Validator.check_schema(schema_of(verb))


def test_every_verb_has_a_schema() -> None:
    groups = {verb.partition(" ")[0] for verb in DOCUMENTS}
    assert groups == set(VERBS)


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["inspect", "no.dcf"], None, 1),
        (["inspect", __file__], "E01", 1),
        (["repack", __file__, "-o", "never.dcf"], "E01", 1),
        (["pack", __file__, "-o", "never.dcf"], None, 1),
        (["doctor", __file__], None, 1),
        (["diff", __file__, __file__], "E01", 1),
        (["inspect"], None, 2),
        (["unpack", "a.dcf", "-o", "never.xyz"], None, 2),
        (["run", "a.dcf", "--bakend", "numpy"], None, 2),
    ],
)
def test_failures(invoke: Invoke, arguments: list[str], code: str | None, exit_code: int) -> None:
    result = invoke(*arguments, "--json")
    assert result.exit_code == exit_code
    document = keys(arguments[0], result.stdout, "error")
    assert (document["error"]["code"], document["error"]["exit_code"]) == (code, exit_code)
    assert result.stderr.splitlines()[-1].endswith(f": {document['error']['message']}")


def test_a_failure_with_the_file_on_stdout(invoke: Invoke) -> None:
    result = invoke("unpack", __file__, "-o", "-", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    line, _, document = result.stderr.partition("\n")
    assert line.startswith(f"dcformat: {__file__}: not a .dcf file")
    assert keys("unpack", document, "error")["error"]["code"] == "E01"


def test_inspect(invoke: Invoke, dcf: Path) -> None:
    keys(
        "inspect", invoke("inspect", dcf, "--memory", "--json").stdout, "file", "version", "digest", *FIGURES,
        "network", "labels", "metadata", "self_test", "delta", "extensions", "stages", "memory",
    )  # fmt: skip


def test_details(invoke: Invoke, dcf: Path) -> None:
    result = invoke("inspect", dcf, "--tensor", "fc1.weight", "--tensor", "fc1.bias", "--hex", "--json")
    keys(
        "inspect", result.stdout, "file", "version", "digest", *FIGURES, "network", "labels", "metadata", "self_test",
        "delta", "extensions", "stages", "details", "parts",
    )  # fmt: skip


def test_report(invoke: Invoke, tmp_path: Path) -> None:
    dcformat.save(dcformat.Model({"w": dcformat.from_dense("w", np.eye(4, dtype=np.float32))}), tmp_path / "a.dcf")
    result = invoke("report", tmp_path / "a.dcf", "-o", tmp_path / "a.html", "--json")
    keys(
        "report", result.stdout, "file", "output", "bytes", "size", "parameters", "stored", "tensors", "examined",
        "parts", "first_layer", "stages", "sizes", "published", "chips",
    )  # fmt: skip


def test_files(invoke: Invoke, npz: Path, dcf: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.dcf"
    arguments = [*PACK, npz, "-o", packed, "--architecture", "lenet-300-100", "--self-test", "2", "--json"]
    keys("pack", invoke(*arguments).stdout, "file", "mode", "tried", "left_out", *FIGURES)
    result = invoke(*PACK, packed, "--base", dcf, "-o", tmp_path / "d.dcf", "--json")
    keys("pack", result.stdout, "file", "mode", "tried", "left_out", *FIGURES, "delta")
    result = invoke("apply", tmp_path / "d.dcf", "--base", dcf, "-o", tmp_path / "e.dcf", "--mode", "fast", "--json")
    keys("apply", result.stdout, "file", "base", "output", "mode", "bytes", "tensors", "digest")
    result = invoke("repack", packed, "-o", tmp_path / "f.dcf", "--mode", "fast", "--json")
    keys("repack", result.stdout, "file", "output", "mode", "before", "tried")
    result = invoke("unpack", packed, "-o", tmp_path / "b.npz", "--json")
    document = keys("unpack", result.stdout, "file", "output", "format", "tensors")
    assert (document["output"], document["format"]) == (str(tmp_path / "b.npz"), "npz")
    assert document["tensors"][0] == {"name": "fc1.weight", "shape": [300, 784], "dtype": "float32"}
    result = invoke("unpack", packed, "-f", "-o", tmp_path / "b.npz", "--skip-damaged", "--json")
    keys("unpack", result.stdout, "file", "output", "format", "tensors", "damaged")
    result = invoke("diff", packed, dcf, "--json")
    keys(
        "diff", result.stdout, "files", "bytes", "identical", "added", "removed", "changed", "unchanged", "network",
        "labels", "metadata", "outputs",
    )  # fmt: skip


def test_exports(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    for form, suffix, more in (("scipy", "npz", ("--tensor", "fc1.weight")), ("state-dict", "pt", ())):
        result = invoke("export", form, dcf, "-o", tmp_path / f"a.{suffix}", *more, "--json")
        keys(f"export {form}", result.stdout, "file", "output", "format", "tensors")
    result = invoke("export", "onnx", dcf, "-o", tmp_path / "a.onnx", "--json")
    keys("export onnx", result.stdout, "file", "output", "format", "bytes", "check")


def test_pieces(invoke: Invoke, tmp_path: Path) -> None:
    save_file({"w": np.ones((4, 4), np.float32)}, tmp_path / "w.safetensors")
    result = invoke(*PACK, tmp_path / "w.safetensors", "-o", tmp_path / "parts", "--shards", "1M", "--json")
    keys("pack", result.stdout, "file", "files", "mode", "tried", "size", "parameters", "left_out")
    result = invoke("doctor", tmp_path / "w.safetensors", "--json")
    keys(
        "doctor", result.stdout, "file", "bytes", "tensors", "parameters", "left_out", "beside", "findings", "packed",
        "command",
    )  # fmt: skip


def test_the_installation(invoke: Invoke) -> None:
    keys(
        "doctor", invoke("doctor", "--json").stdout, "dcformat", "executable", "machine", "vectors", "compiles",
        "kernels", "folder", "writable", "data", "packages",
    )  # fmt: skip


def test_verify(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.dcf"
    bad.write_bytes(dcf.read_bytes()[:-1])
    result = invoke("verify", dcf, bad, dcf, "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    files = keys("verify", result.stdout, "files")["files"]
    with dcformat.open(dcf) as content:
        digest = content.digest.hex()
    assert files[0] == files[2] == {
        "file": str(dcf), "good": True, "bytes": dcf.stat().st_size, "tensors": 6, "digest": digest,
        "self_test_inputs": None, "error": None,
    }  # fmt: skip
    assert (files[1]["good"], files[1]["bytes"]) == (False, None)
    assert files[1]["error"].startswith(f"{bad}: truncated: ")


def test_verify_in_lines(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no.dcf"
    result = invoke("verify", dcf, missing, dcf)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{dcf}: good: ") for line in lines)
    assert result.stderr.splitlines() == [f"dcformat: {missing}: no such file or directory"]
    assert invoke("verify", dcf, dcf).exit_code == 0


def test_run(invoke: Invoke, dcf: Path, data: Path, npz: Path, tmp_path: Path) -> None:
    keys("run", invoke("run", dcf, "--data", data, "--json").stdout, "file", "backend", "images", "correct", "accuracy")
    np.save(tmp_path / "x.npy", np.zeros((2, 784), np.float32))
    result = invoke("run", dcf, "--input", tmp_path / "x.npy", "--json")
    keys("run", result.stdout, "file", "backend", "images", "classes", "outputs")
    arguments = ["run", dcf, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--json"]
    keys("run", invoke(*arguments).stdout, "file", "backend", "images", "output", "shape", "outputs")
    labelled = tmp_path / "b.dcf"
    invoke(*PACK, npz, "-o", labelled, "--architecture", "lenet-300-100", "--labels", ",".join("abcdefghij"))
    result = invoke("run", labelled, "--input", tmp_path / "x.npy", "--json")
    keys("run", result.stdout, "file", "backend", "images", "classes", "labels", "outputs")


@pytest.mark.needs_compiler
def test_bench(invoke: Invoke, dcf: Path) -> None:
    options = ["--batch", "1", "--rounds", "1", "--peer", "numpy dense", "--json"]
    result = invoke("bench", "-", *options, stdin=dcf.read_bytes())
    document = keys("bench", result.stdout, "file", "machine", "rounds", "threads")
    assert document["file"] == "-"


def test_warmup(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup_command, "all_kernels", lambda: ())
    monkeypatch.setenv("DCFORMAT_CACHE_DIR", str(tmp_path))
    keys("warmup", invoke("warmup", "--json").stdout, "folder", "bytes", "kernels", "compiled", "unsaved", "seconds")
    keys("warmup", invoke("warmup", "--list", "--json").stdout, "folder", "bytes", "kernels", "networks")
    keys("warmup", invoke("warmup", "--clear", "--json").stdout, "folder", "removed_bytes")
    arguments = ["warmup", "--target", "aarch64", "--into", tmp_path / "to", "--json"]
    keys("warmup", invoke(*arguments).stdout, "folder", "bytes", "kernels", "target")


def test_compress(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    arguments = ["compress", "lenet-300-100", "--recipe", "classic", "--epochs", "3", "--device", "cpu", "--data", data]
    result = invoke(*arguments, "-o", tmp_path / "a.dcf", "--json")
    keys(
        "compress",
        result.stdout,
        "file",
        "architecture",
        "recipe",
        "seed",
        "mode",
        "accuracy",
        "images",
        "stages",
        *FIGURES,
    )


def test_compress_to_stdout(invoke: Invoke, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["compress", "lenet-300-100", "--recipe", "classic", "--epochs", "3", "--device", "cpu", "--data", data]
    result = invoke(*arguments, "-o", "-")
    assert len(dcformat.load(result.stdout_bytes).tensors) == 6
    assert result.stderr.splitlines()[-1].startswith("stdout: run from the packed file, ")
    assert list(tmp_path.iterdir()) == []
