"""Where verbs write: to stdout for `-` but not to a terminal, never over an input, over other files only with `-f`."""

from __future__ import annotations

import io
import json
import os
import pty
from pathlib import Path

import numpy as np
import pytest
from dcformat_cli.verbs import warmup_command
from safetensors.numpy import load as load_safetensors

import dcformat
from tests.cli.support import PACK, Invoke, State, command, environment, read_terminal, refused, spawn


def test_pack_and_unpack_through_pipes(dcf: Path, npz: Path, state: State, tmp_path: Path) -> None:
    packed = spawn(*PACK, "-", "-o", "-", "--architecture", "lenet-300-100", cwd=tmp_path, input=npz.read_bytes())
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout == dcf.read_bytes()
    assert packed.stderr.decode().startswith(f"stdout: {dcf.stat().st_size:,} bytes, ")
    for form, read in (("npz", lambda raw: np.load(io.BytesIO(raw))), ("safetensors", load_safetensors)):
        done = spawn("unpack", "-", "-o", "-", "--format", form, cwd=tmp_path, input=packed.stdout)
        assert done.returncode == 0, done.stderr
        assert done.stderr == b"stdout: 6 tensors\n"
        found = read(done.stdout)
        assert {name: found[name].tobytes() for name in found} == {name: a.tobytes() for name, a in state.items()}
    assert list(tmp_path.iterdir()) == []


def test_the_form_on_stdout_is_safetensors_unless_told(invoke: Invoke, dcf: Path, state: State) -> None:
    result = invoke("unpack", dcf, "-o", "-", "--json")
    assert set(load_safetensors(result.stdout_bytes)) == set(state)
    assert json.loads(result.stderr)["format"] == "safetensors"


def test_logits_to_stdout(invoke: Invoke, dcf: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 784), np.float32))
    result = invoke("run", dcf, "--input", tmp_path / "x.npy", "-o", "-")
    assert np.load(io.BytesIO(result.stdout_bytes)).shape == (3, 10)
    assert result.stderr == ""


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])
def test_checkpoints_of_every_kind_from_stdin(invoke: Invoke, npz: Path, tmp_path: Path, suffix: str) -> None:
    path = npz
    if suffix == ".pt":
        import torch

        path = tmp_path / "a.pt"
        torch.save({name: torch.from_numpy(array) for name, array in np.load(npz).items()}, path)
    elif suffix == ".safetensors":
        from safetensors.numpy import save_file

        path = tmp_path / "a.safetensors"
        save_file(dict(np.load(npz)), path)
    assert invoke(*PACK, "-", "-o", tmp_path / "out.dcf", stdin=path.read_bytes()).exit_code == 0
    assert len(dcformat.load(tmp_path / "out.dcf").tensors) == 6


def test_errors_name_stdin(invoke: Invoke, tmp_path: Path) -> None:
    broken = b"PK\x05\x06" + bytes(6) + b"\xff" * 12  # the end of an archive that has no beginning
    for content, found in ((b"nonsense", "bytes of"), (b"", "an empty file"), (broken, "a damaged zip archive: ")):
        result = invoke(*PACK, "-", "-o", tmp_path / "a.dcf", stdin=content)
        refused(result, f"dcformat: stdin: not a checkpoint ({found}")
    other = "dcformat: stdin: not a .dcf file [E01]"
    for arguments in (["inspect"], ["verify"], ["bench"], ["run"], ["unpack", "-o", tmp_path / "a.npz"]):
        refused(invoke(arguments[0], "-", *arguments[1:], stdin=b"nonsense"), other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["pack", "unpack"])
@pytest.mark.parametrize("to", ["-", "/dev/tty"])
def test_no_binary_to_a_terminal(dcf: Path, npz: Path, verb: str, to: str) -> None:
    source = npz if verb == "pack" else dcf
    more = ["--format", "npz"] if verb == "unpack" else []
    pid, master = pty.fork()
    if not pid:
        os.execve(command()[0], command(verb, source, "-o", to, *more), {**environment(), "TERM": "dumb"})
    shown = read_terminal(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert b"found a terminal" in shown
    assert b"PK" not in shown
    assert b"\x89DCF" not in shown


def test_a_file_that_exists_is_replaced_only_by_force(invoke: Invoke, dcf: Path, npz: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 784), np.float32))
    for arguments, name in (
        (["pack", npz], "a.dcf"),
        (["unpack", dcf], "a.npz"),
        (["run", dcf, "--input", tmp_path / "x.npy"], "y.npy"),
        (["compress", "lenet-300-100"], "b.dcf"),
    ):
        out = tmp_path / name
        out.write_bytes(b"precious")
        line = refused(invoke(*arguments, "-o", out), f"{out}: expected no file", "-f replaces it", code=2)
        assert line.startswith(f"dcformat {arguments[0]}: ")
        assert out.read_bytes() == b"precious"
        if arguments[0] != "compress":
            assert invoke(*arguments, "-o", out, "--force").exit_code == 0
            assert out.read_bytes() != b"precious"


def test_tables_and_kernels_that_exist_are_replaced_only_by_force(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in ("criteria", "article", "layers"):
        table = tmp_path / f"study-{verb}.md"
        table.write_bytes(b"precious")
        refused(invoke("study", verb, "--out", tmp_path), f"{table}: expected no file", "-f replaces it", code=2)
        assert table.read_bytes() == b"precious"
    monkeypatch.setattr(warmup_command, "all_kernels", lambda: ())
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "a.kernel").write_bytes(b"precious")
    arguments = ["warmup", "--target", "aarch64", "--into", tmp_path]
    refused(invoke(*arguments), f"{tmp_path}/kernels: expected no kernels there", code=2)
    assert invoke(*arguments, "-f").exit_code == 0


@pytest.mark.parametrize(
    "verb", [["study", "criteria"], ["study", "article"], ["study", "networks"], ["study", "schedules"],
             ["study", "layers"], ["sweep"]], ids=" ".join
)  # fmt: skip
def test_a_study_without_data_leaves_no_directory(invoke: Invoke, tmp_path: Path, verb: list[str]) -> None:
    pytest.importorskip("optuna" if verb == ["sweep"] else "torch")
    missing, kept = tmp_path / "data", ["--resume", tmp_path / "kept"] if verb[-1] in ("article", "networks") else []
    refused(invoke(*verb, "--data", missing, "--out", tmp_path / "out", *kept), str(missing))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("force", [[], ["-f"]])
@pytest.mark.parametrize("kind", ["same", "dotted", "symbolic", "hard"])
def test_an_input_is_never_the_output(
    invoke: Invoke, dcf: Path, npz: Path, tmp_path: Path, kind: str, force: list[str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 784), np.float32))
    copies = {"checkpoint.npz": npz, "model.npz": dcf}
    for name, original in copies.items():
        (tmp_path / name).write_bytes(original.read_bytes())
    for verb, name, more in (
        ("pack", "checkpoint.npz", []),
        ("unpack", "model.npz", []),
        ("run", "model.npz", ["--input", tmp_path / "x.npy"]),
        ("run", "x.npy", ["--input", tmp_path / "x.npy"]),
    ):
        path = tmp_path / name
        before = path.read_bytes()
        out = {"same": path, "dotted": tmp_path / "." / ".." / tmp_path.name / name}.get(kind, tmp_path / "link.npz")
        out.unlink(missing_ok=True) if out.name == "link.npz" else None
        if kind == "symbolic":
            out.symlink_to(path)
        elif kind == "hard":
            out.hardlink_to(path)
        source = dcf if name == "x.npy" else path
        refused(invoke(verb, source, "-o", out, *more, *force), "expected an output other than the input", code=2)
        assert path.read_bytes() == before


def test_the_file_on_stdin_is_never_the_output(npz: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz.read_bytes())
    with path.open("rb") as stdin:
        done = spawn(*PACK, "-", "-f", "-o", path, stdin=stdin)
    assert done.returncode == 2
    assert path.read_bytes() == npz.read_bytes()


@pytest.mark.parametrize("arguments", [("pack", "", "-o", "a"), ("unpack", "a.dcf", "-o", ""), ("inspect", "")])
def test_an_empty_name_is_not_this_directory(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(invoke(*arguments), "expected the name of a file, found an empty one", code=2)
    assert not any(tmp_path.iterdir())


def test_a_network_from_a_pipe(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ports[:1], ports[1:]), ir_version=8)
    done = spawn("pack", "-", "-o", "-", input=model.SerializeToString(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = dcformat.load(done.stdout)
    assert repr(loaded.graph) == "Graph(input 3: 1 relu)"
    done = spawn("pack", "-", "-o", "-", input=b"PK\3\4junk", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"dcformat: stdin: ")
    assert b"/tmp" not in done.stderr
    assert list(tmp_path.iterdir()) == []
