"""`dcformat pack` and `unpack` of checkpoints in several files, also after interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from dcformat_cli.byte_progress import ByteProgress, describe
from dcformat_interop.packing.checkpoint_packing import PackingProgress
from safetensors.numpy import save_file

import dcformat
from tests.cli.support import PACK, Invoke, State, command, environment, refused
from tests.interop.packing.checkpoints import INDEX, contents, safetensors, write

#: Tensors of 8 MB, enough of them for a journal.
_LARGE = 9


def test_shards_there_and_back(invoke: Invoke, tmp_path: Path) -> None:
    everything = write(tmp_path / "in")
    result = invoke(*PACK, tmp_path / "in", "-o", tmp_path / "a.dcf")
    assert result.exit_code == 0, result.output
    with dcformat.open(tmp_path / "a.dcf") as file:
        assert file.names == tuple(everything) and file.metadata == {"safetensors.format": "pt"}
    assert "without --architecture" in result.stderr and "byte for byte" not in result.stderr
    (tmp_path / "back").mkdir()
    result = invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "back")
    assert "21 tensors in 4 files" in result.stdout
    assert contents(tmp_path / "back") == contents(tmp_path / "in")
    refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "back"), "-f replaces it", code=2)
    assert invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "all.safetensors").exit_code == 0
    again = invoke(*PACK, tmp_path / "in" / INDEX, "-o", tmp_path / "b.dcf", "--jobs", "2", "--json")
    assert (tmp_path / "b.dcf").read_bytes() == (tmp_path / "a.dcf").read_bytes()
    assert json.loads(again.stdout)["left_out"] == {}


def test_output_in_shards(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "in")
    result = invoke(*PACK, tmp_path / "in", "-o", tmp_path / "out", "--shards", "6K", "--json")
    files = json.loads(result.stdout)["files"]
    assert len(files) > 2 and all(Path(file).is_file() for file in files)
    refused(invoke(*PACK, tmp_path / "in", "-o", tmp_path / "out", "--shards", "6K"), "-f replaces it", code=2)
    assert invoke(*PACK, tmp_path / "in", "-o", tmp_path / "out", "--shards", "6K", "-f").exit_code == 0
    result = invoke("unpack", tmp_path / "out", "-o", tmp_path / "back", "--format", "shards", "--json")
    assert len(json.loads(result.stdout)["files"]) == 4
    assert contents(tmp_path / "back") == contents(tmp_path / "in")
    index = tmp_path / "out" / "model.dcf.index.json"
    assert invoke("unpack", index, "-o", tmp_path / "all.safetensors").exit_code == 0
    refused(invoke("unpack", tmp_path / "in", "-o", tmp_path / "x.npz"), "a directory with an index (*.dcf.index.json)")


def test_verbs_that_examine_shards(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "in")
    out = tmp_path / "out"
    made = json.loads(invoke("pack", tmp_path / "in", "-o", out, "--shards", "6K", "--json").stdout)
    files = made["files"]
    index = out / "model.dcf.index.json"
    for given in (out, index):
        lines = invoke("verify", given).stdout.splitlines()
        assert [line.partition(": good: ")[0] for line in lines] == files
    text = invoke("inspect", out).stdout
    total = sum(Path(file).stat().st_size for file in files)
    assert f"{out}: {total:,} bytes" in text
    assert f"in {len(files)} files" in text
    assert text.splitlines()[-1].split() == ["all", "files", f"{total:,}", "100.00", "%"]
    document = json.loads(invoke("inspect", index, "--json").stdout)
    assert [each["file"] for each in document["files"]] == files
    assert document["size"] == sum(row["bytes"] for row in document["ledger"]) == total
    assert len(document["tensors"]) == 21
    refused(invoke("inspect", out, "--hex"), "--hex: give one of the files", code=2)
    refused(invoke("report", out, "-o", tmp_path / "page.html"), "expected one .dcf file, found several")

    damaged = bytearray(Path(files[1]).read_bytes())
    damaged[-20] ^= 1
    Path(files[1]).write_bytes(damaged)
    result = invoke("verify", out, "--json")
    assert result.exit_code == 1
    assert [each["good"] for each in json.loads(result.stdout)["files"]] == [n != 1 for n in range(len(files))]
    refused(invoke("inspect", out), Path(files[1]).name)
    Path(files[1]).unlink()
    assert Path(files[1]).name in refused(invoke("verify", out), "which the index names")


def test_an_index_of_shards_that_lies(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "in")
    invoke("pack", tmp_path / "in", "-o", tmp_path / "out", "--shards", "6K")
    index = tmp_path / "out" / "model.dcf.index.json"
    content = json.loads(index.read_text())
    first, *_, last = content["weight_map"]
    content["weight_map"][first] = content["weight_map"][last]
    index.write_text(json.dumps(content))
    result = invoke("verify", tmp_path / "out")
    assert result.exit_code == 1
    assert first in result.stderr
    assert all(": good: " in line for line in result.stdout.splitlines())
    index.write_text("{")
    refused(invoke("inspect", tmp_path / "out"), "an index with a weight_map")


def test_a_shard_of_another_checkpoint(invoke: Invoke, tmp_path: Path) -> None:
    """Its tensors have the same names, dtypes and shapes, and it is whole; only its content digest differs."""
    for name, first in (("a", 0), ("b", 1)):
        arrays = {f"w{n}": np.arange(first, first + 900, dtype=np.float32) * (n + 1) for n in range(4)}
        save_file(arrays, tmp_path / f"{name}.safetensors")
        command = ["pack", tmp_path / f"{name}.safetensors", "-o", tmp_path / name, "--shards", "2K", "--mode", "fast"]
        assert invoke(*command).exit_code == 0
    shard = sorted(tmp_path.glob("a/*.dcf"))[1]
    digests = json.loads((tmp_path / "a" / "model.dcf.index.json").read_text())["metadata"]["content_digests"]
    assert digests[shard.name] == shard.read_bytes()[-8:].hex()
    other = (tmp_path / "b" / shard.name).read_bytes()
    shard.write_bytes(other)
    for verb in (["verify"], ["inspect"], ["unpack", "-o", tmp_path / "x.safetensors"]):
        message = f"{shard.name} with the content digest {digests[shard.name]}, found {other[-8:].hex()}"
        assert message in invoke(verb[0], tmp_path / "a", *verb[1:]).stderr
    assert not (tmp_path / "x.safetensors").exists()


def test_files_that_cannot_come_back(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "in")
    result = invoke(*PACK, tmp_path / "in", "-o", tmp_path / "a.dcf", "--skip", "*.wide")
    assert "unpack cannot restore the files byte for byte" in result.stderr
    result = invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "back", "--format", "shards")
    refused(result, "expected a file that was packed from several safetensors files")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "x"], "--address needs --engine ray"),
        (["--engine", "ray", "--jobs", "2"], "--jobs is for --engine local"),
        (["--shards", "1M", "-o", "-"], "expected a directory for the output, found stdout"),
        (["--jobs", "2", "--relative-index", "filler"], "--jobs: only for safetensors files without --architecture"),
    ],
)
def test_misuse(invoke: Invoke, tmp_path: Path, options: list[str], message: str) -> None:
    write(tmp_path, 1)
    path = tmp_path / "model-00001-of-00001.safetensors"
    refused(invoke(*PACK, path, "-o", tmp_path / "a.dcf", *options), message, code=2)


def test_a_failure_leaves_no_directory(invoke: Invoke, tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors")
    command = [*PACK, tmp_path / "none.safetensors", "-o", tmp_path / "out", "--shards", "1K"]
    refused(invoke(*command), "expected at least one tensor")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    refused(invoke(*command), "expected at least one tensor")
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("options", [["--shards", "1M"], ["--dim", "a=1"], ["--labels", "a,b"]])
def test_a_missing_file_comes_before_its_options(invoke: Invoke, tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "no.safetensors"
    refused(invoke(*PACK, path, "-o", tmp_path / "a.dcf", *options), f"dcformat: {path}: no such file or directory")


def test_float64_as_float32(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.safetensors"
    save_file({"w": np.array([0.5, -3.0])}, path)
    for options, dtype in (((), "float64"), (("--float32",), "float32")):
        assert invoke(*PACK, path, "-f", "-o", tmp_path / "a.dcf", *options).exit_code == 0
        tensor = dcformat.load(tmp_path / "a.dcf").tensors["w"]
        assert (tensor.dtype, tensor.to_dense().tolist()) == (dtype, [0.5, -3.0])


def test_a_directory_that_is_packed_at_once(invoke: Invoke, tmp_path: Path, state: State) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, names in enumerate((list(state)[:3], list(state)[3:])):
        save_file({name: state[name].astype(np.float64) for name in names}, folder / f"{number}.safetensors")
    arguments = [*PACK, folder, "--architecture", "lenet-300-100", "--float32"]
    assert invoke(*arguments, "-o", tmp_path / "a.dcf").exit_code == 0
    model = dcformat.load(tmp_path / "a.dcf")
    assert model.graph is not None
    for name, values in state.items():
        np.testing.assert_array_equal(model.tensors[name].to_dense(), values)
    assert invoke(*PACK, folder, "--base", tmp_path / "a.dcf", "-o", tmp_path / "d.dcf").exit_code == 0
    for output in folder.iterdir():
        result = invoke(*arguments, "-o", output, "-f")
        refused(result, "expected an output other than the input", code=2)
    refused(invoke(*arguments, "--key", "x", "-o", tmp_path / "b.dcf"), "a PyTorch file, the only kind", "for a key")
    refused(invoke(*PACK, folder, "--float32", "--skip", "z", "-o", tmp_path / "b.dcf"), "called 'z', found none")


def test_an_output_that_is_an_input(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "model-00002-of-00003.safetensors"
    refused(invoke(*PACK, tmp_path, "-o", path, "-f"), "expected an output other than the input", code=2)


def test_an_index_that_lies(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "in")
    (tmp_path / "in" / "model-00001-of-00003.safetensors").unlink()
    refused(invoke(*PACK, tmp_path / "in", "-o", tmp_path / "a.dcf"), "model.safetensors.index.json: expected the file")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_cached_file_with_another_digest(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "in", 1)
    (path,) = (tmp_path / "in").glob("*.safetensors")
    blob = tmp_path / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
    blob.parent.mkdir()
    path.rename(blob)
    path.symlink_to(blob)
    assert invoke(*PACK, tmp_path / "in", "-o", tmp_path / "a.dcf").exit_code == 0
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    message = f"{path.name}: expected the content whose SHA256 the cache states, {blob.name}, found "
    for source in (tmp_path / "in", path):
        refused(invoke(*PACK, source, "-o", tmp_path / "b.dcf"), message, "download it again")
    assert not (tmp_path / "b.dcf").exists()


def large(tmp_path: Path) -> Path:
    """Write a checkpoint that is large enough for a journal."""
    random = np.random.default_rng(0)
    path = tmp_path / "large.safetensors"
    arrays = {f"w{n}": random.integers(0, 1 << 16, (2048, 2048)).astype(np.uint16) for n in range(_LARGE)}
    path.write_bytes(safetensors(arrays))
    return path


def packed(path: Path, out: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*PACK, path, "-o", out, *options), capture_output=True, env=environment(), check=False
    )


@pytest.mark.needs_compiler
@pytest.mark.slow
def test_interrupts_kills_and_a_full_disk_lose_nothing(tmp_path: Path) -> None:
    path, out = large(tmp_path), tmp_path / "a.dcf"
    journal = tmp_path / "a.dcf.journal"

    def run_until(lines: int, number: int, *options: str) -> tuple[int, bytes]:
        """Run the command, and send a signal once the journal has a number of lines."""
        process = subprocess.Popen(
            command(*PACK, path, "-o", out, *options),
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: os.nice(5),  # so that on a busy machine this process looks often enough
        )
        while process.poll() is None and not (journal.exists() and journal.read_text().count("\n") >= lines):
            time.sleep(0.01)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, errors = process.communicate()
        return process.returncode, errors

    code, errors = run_until(2, signal.SIGINT, "--jobs", "2")
    assert code == 130 and errors.endswith(b"dcformat: interrupted\n"), errors
    assert b"a.dcf.journal*; the same command continues from there" in errors and b"Traceback" not in errors
    code, errors = run_until(4, signal.SIGKILL)
    assert code == -signal.SIGKILL and not out.exists()
    # The disk is full before the end.
    done = journal.read_text().count("\n")
    limited = subprocess.run(
        command(*PACK, path, "-o", out), stderr=subprocess.PIPE, env=environment(), check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000_000, 60_000_000)),
    )  # fmt: skip
    last = limited.stderr.splitlines()[-1]
    assert limited.returncode == 1 and b"would be larger than the disk or a limit allows" in last, limited.stderr
    assert journal.read_text().count("\n") > done and not out.exists()
    assert packed(path, out).returncode == 0
    assert {each.name for each in tmp_path.iterdir()} == {"large.safetensors", "a.dcf"}
    dcformat.verify(out)
    assert packed(path, tmp_path / "b.dcf").returncode == 0
    assert out.read_bytes() == (tmp_path / "b.dcf").read_bytes()


def test_a_full_temporary_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"w": np.random.default_rng(0).standard_normal(50_000).astype(np.float32)}))
    # Coverage could not save what it measures.
    env = {name: value for name, value in environment().items() if not name.startswith("COVERAGE_")}
    limited = subprocess.run(
        command(*PACK, path, "-o", tmp_path / "a.dcf"), capture_output=True, env=env, check=False, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )  # fmt: skip
    assert limited.returncode == 1 and f"temporary file in {tempfile.gettempdir()}" in limited.stderr.splitlines()[-1]
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_progress_says_what_is_left() -> None:
    assert (
        describe(PackingProgress(50, 200, 0), 10.0)
        == "packed 50 bytes of 200 bytes (25 %), 5 bytes/s, 0:10 elapsed, about 0:30 left"
    )
    assert describe(PackingProgress(3_000_000, 4_000_000, 2_000_000), 5.0) == (
        "packed 3 MB of 4 MB (75 %), 200 KB/s, 0:05 elapsed, about 0:05 left"
    )
    assert describe(PackingProgress(7, 1000, 7), 2.0) == "packed 7 bytes of 1 KB (1 %), 0:02 elapsed"


def test_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = ByteProgress(lambda: now[0], terminal=False)
    for second in range(0, 25, 5):
        now[0] = second
        lines(PackingProgress(second, 100, 0))
    lines.end()
    assert len(capsys.readouterr().err.splitlines()) == 2
    now[0] = 0.0
    bar = ByteProgress(lambda: now[0], terminal=True)
    now[0] = 2.0
    bar(PackingProgress(1, 2, 0))
    bar.end()
    shown = capsys.readouterr().err
    assert shown.startswith("\rpacked 1 bytes of 2 bytes (50 %)") and shown.endswith(" left\r")
