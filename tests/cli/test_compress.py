"""`dcformat compress` from start to end on a small data set: training, pruning, sharing, packing and running."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dcformat_runtime
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dcformat_cli import progress
from dcformat_cli.main import cli
from dcformat_cli.verbs import compress_calibrated, compress_command
from dcformat_pruning import recipes
from dcformat_pruning.recipes import StageProgress

import dcformat
from tests.cli.support import (
    Invoke,
    State,
    blobs,
    command,
    environment,
    lenet_300_100,
    refused,
    save_npz,
    spawn,
    write_idx,
)

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.needs_compiler

CLASSIC = ("compress", "lenet-300-100", "--recipe", "classic", "--epochs", "12", "--device", "cpu", "--seed", "3")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: PyTorch's threads spin while they wait, so on a busy machine two are far slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, dict[str, Any]]:
    """Return a file made by the classic recipe, and the summary that the command printed as JSON."""
    path = tmp_path_factory.mktemp("compressed") / "small.dcf"
    arguments = [*CLASSIC, "-o", str(path), "--data", str(data), "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)


def test_the_summary_is_true(invoke: Invoke, compressed: tuple[Path, dict[str, Any]], data: Path) -> None:
    path, document = compressed
    assert document["size"] == path.stat().st_size == sum(row["bytes"] for row in document["ledger"])
    assert document["ratio"] > 20
    stages = [stage["stage"] for stage in document["stages"]]
    assert stages == ["train", "prune", "retrain", "share", "fine-tune"]
    assert document["stages"][0]["weights"] == 266_200
    assert document["stages"][-1]["weights"] == sum(
        row["stored"] for row in document["tensors"] if row["name"].endswith(".weight")
    )
    again = json.loads(invoke("run", path, "--data", data, "--json").stdout)
    assert document["accuracy"] == again["accuracy"] > 0.9
    assert document["images"] == again["images"] == 200
    assert invoke("verify", path).exit_code == 0


def test_the_densities_are_the_papers(compressed: tuple[Path, dict[str, Any]]) -> None:
    density = {row["name"]: row["density"] for row in compressed[1]["tensors"]}
    for name, paper in (("fc1.weight", 0.08), ("fc2.weight", 0.09), ("fc3.weight", 0.26)):
        # A shared value and its weights may become zero, but no pruned weight may come back.
        assert paper / 2 < density[name] <= paper + 1e-3


def test_nothing_is_left_beside_the_file(compressed: tuple[Path, dict[str, Any]]) -> None:
    assert [path.name for path in compressed[0].parent.iterdir()] == ["small.dcf"]


def test_the_packed_file_predicts_as_pytorch_does(data: Path, tmp_path: Path) -> None:
    result = recipes.compress_architecture("lenet-300-100", "classic", seed=1, device="cpu", epochs=6, data=data)
    dcformat.save(result.model, tmp_path / "a.dcf", mode=result.mode)
    images, _ = blobs(200, 2)
    with torch.no_grad():
        expected = result.module(torch.from_numpy(images[:, None]) / 255).numpy()
    logits = dcformat_runtime.load(tmp_path / "a.dcf")(images.reshape(-1, 784))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert (logits.argmax(1) == expected.argmax(1)).all()


def test_the_tables_and_lines_for_people(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.dcf"
    arguments = ["compress", "lenet-300-100", "--recipe", "classic", "--epochs", "3", "-o", out, "--data", data]
    result = invoke(*arguments, "--mode", "small", "--keep-stages")
    assert result.exit_code == 0, result.output
    assert "fine-tune (stage 5 of 5): epoch 1 of 1, loss " in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "stages"
    assert f"{out}: {out.stat().st_size:,} bytes, " in result.stdout
    assert lines[-1].startswith(f"{out}: run from the packed file, ")
    assert sorted(path.name for path in (tmp_path / "a.dcf.stages").iterdir()) == [
        "00-train.pt", "01-prune.pt", "02-retrain.pt", "03-share.pt", "04-fine-tune.pt",
    ]  # fmt: skip


class Interrupt:
    """Acts as a user who presses Ctrl-C while a stage trains, and records which stages were trained."""

    def __init__(self, stage: str | None = None) -> None:
        self.stage = stage
        self.seen: list[str] = []

    def __call__(self, step: StageProgress) -> None:
        if step.unit == "epochs" and step.stage not in self.seen:
            self.seen.append(step.stage)
        if step.stage in self.seen and step.stage == self.stage:
            raise KeyboardInterrupt


def interrupt(monkeypatch: pytest.MonkeyPatch, stage: str | None) -> Interrupt:
    watcher = Interrupt(stage)
    monkeypatch.setattr(progress, "ProgressLines", lambda: watcher)
    return watcher


@pytest.mark.parametrize("named", [False, True])
def test_an_interrupted_run_is_continued_to_the_same_bytes(
    invoke: Invoke, compressed: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, named: bool,
) -> None:  # fmt: skip
    out = tmp_path / "a.dcf"
    out.write_bytes(b"precious")
    stages = tmp_path / "here" if named else tmp_path / "a.dcf.stages"
    resume = ["--resume", stages] if named else ["--resume"]
    interrupt(monkeypatch, "fine-tune")
    result = invoke(*CLASSIC, "-f", "-o", out, "--data", data, *(resume if named else []))
    assert result.exit_code == 130
    assert out.read_bytes() == b"precious"
    assert f"{stages}: complete stages were kept; --resume continues from them" in result.stderr
    assert result.stderr.splitlines()[-1] == "dcformat: interrupted"
    assert len(list(stages.iterdir())) == 4

    watcher = interrupt(monkeypatch, None)
    result = invoke(*CLASSIC, "-f", "-o", out, "--data", data, *resume)
    assert result.exit_code == 0, result.output
    assert watcher.seen == ["fine-tune"]
    assert out.read_bytes() == compressed[0].read_bytes()
    assert stages.exists() == named


def test_stages_of_another_run_are_not_continued(
    invoke: Invoke, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.dcf"
    interrupt(monkeypatch, "retrain")
    invoke(*CLASSIC, "-o", out, "--data", data)
    other = ["compress", "lenet-300-100", "--recipe", "classic", "--epochs", "3", "-o", out, "--data", data]
    refused(invoke(*other, "--resume"), "00-train.pt: expected a stage of", "epochs=3")

    watcher = interrupt(monkeypatch, "retrain")
    result = invoke(*other)
    assert "removed an earlier run's stages" in result.stderr
    assert watcher.seen == ["train", "retrain"]


def test_resuming_without_anything_to_resume(
    invoke: Invoke, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = interrupt(monkeypatch, "train")
    result = invoke(*CLASSIC, "-o", tmp_path / "a.dcf", "--data", data, "--resume")
    assert "no stage to continue from" in result.stderr
    assert watcher.seen == ["train"]
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_damaged_stage(invoke: Invoke, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "retrain")
    invoke(*CLASSIC, "-o", tmp_path / "a.dcf", "--data", data)
    (tmp_path / "a.dcf.stages" / "01-prune.pt").write_bytes(b"not a stage")
    refused(invoke(*CLASSIC, "-o", tmp_path / "a.dcf", "--data", data, "--resume"), "01-prune.pt: expected")


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_from_a_checkpoint(
    invoke: Invoke, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    random = np.random.default_rng(4)
    state = {name: random.normal(0, 0.1, values.shape).astype(np.float32) for name, values in lenet_300_100().items()}
    renamed = dict(zip(("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"), state.values(), strict=True))
    checkpoint = tmp_path / f"dense{suffix}"
    if suffix == ".npz":
        save_npz(checkpoint, dict(reversed(renamed.items())))
    else:
        torch.save({"state_dict": {name: torch.from_numpy(v) for name, v in renamed.items()}}, checkpoint)
    watcher = interrupt(monkeypatch, None)
    out = tmp_path / "out.dcf"
    arguments = [*CLASSIC, "-o", out, "--data", data, "--checkpoint", checkpoint, "--json"]
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert watcher.seen == ["retrain", "fine-tune"]
    assert document["stages"][0]["weights"] == 266_200


def test_a_checkpoint_that_has_too_few_weights_left(invoke: Invoke, data: Path, npz: Path, tmp_path: Path) -> None:
    result = invoke(*CLASSIC, "-o", tmp_path / "out.dcf", "--data", data, "--checkpoint", npz)
    refused(result, "fc3.weight: clusters: expected 1 to ", "found 64")


def test_checkpoints_that_do_not_fit(invoke: Invoke, data: Path, tmp_path: Path, state: State) -> None:
    arguments = [*CLASSIC, "-o", tmp_path / "out.dcf", "--data", data, "--checkpoint"]
    save_npz(tmp_path / "shape.npz", {**state, "fc1.weight": np.zeros((300, 785), np.float32)})
    refused(invoke(*arguments, tmp_path / "shape.npz"), "shape.npz: fc1.weight: expected shape (300, 784)")
    save_npz(tmp_path / "nan.npz", {**state, "fc1.bias": np.full(300, np.nan, np.float32)})
    refused(invoke(*arguments, tmp_path / "nan.npz"), "nan.npz: fc1.bias: expected finite values")
    refused(invoke(*arguments, tmp_path / "no.npz"), "no.npz: no such file or directory")
    assert not (tmp_path / "out.dcf").exists()


def test_data_that_cannot_be_used_is_noticed_before_training(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = interrupt(monkeypatch, None)
    train_only = tmp_path / "train-only"
    train_only.mkdir()
    write_idx(train_only, "train", *blobs(100, 1))
    refused(invoke(*CLASSIC, "-o", tmp_path / "a.dcf", "--data", train_only), "expected t10k-images")
    wide = tmp_path / "wide"
    wide.mkdir()
    for part in ("train", "t10k"):
        write_idx(wide, part, np.zeros((100, 32, 32), np.uint8), np.zeros(100, np.uint8))
    refused(invoke(*CLASSIC, "-o", tmp_path / "a.dcf", "--data", wide), "expected 28 x 28 pixels, found (32, 32)")
    assert watcher.seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["alexnet"], "'alexnet' is not one of"),
        (["lenet-5", "--recipe", "magic"], "'magic' is not one of"),
        (["lenet-5", "--epochs", "0"], "0 is not in the range"),
        (["lenet-5", "--seed", "-1"], "-1 is not in the range"),
        (["lenet-5", "--device", "tpu"], "'tpu' is not one of"),
    ],
)
def test_misuse(invoke: Invoke, tmp_path: Path, options: list[str], message: str) -> None:
    refused(invoke("compress", *options, "-o", tmp_path / "a.dcf"), message, code=2)
    refused(invoke("compress", "lenet-5"), "Missing option '-o'", code=2)


def test_the_command_knows_every_recipe_and_network() -> None:
    assert set(compress_command.RECIPES) == set(recipes.RECIPES)
    assert set(compress_calibrated.NETWORKS) == {name for recipe in recipes.RECIPES.values() for name in recipe}


def test_the_stage_directory_is_a_file(invoke: Invoke, tmp_path: Path, data: Path) -> None:
    (tmp_path / "a.dcf.stages").write_bytes(b"mine")
    refused(invoke(*CLASSIC, "-o", tmp_path / "a.dcf", "--data", data), "a.dcf.stages: expected a directory")
    assert (tmp_path / "a.dcf.stages").read_bytes() == b"mine"


def test_without_pytorch(dcf: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\nfrom dcformat_cli.main import cli\n"
        "cli(['compress', 'lenet-5', '-o', '/nowhere/a.dcf'])"
    )
    result = spawn(program, python=True)
    assert result.returncode == 1
    assert result.stderr.decode().startswith("dcformat: compress needs PyTorch: pip install 'dcformat[pruning]'")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_in_a_real_process(data: Path, npz: Path, tmp_path: Path) -> None:
    out, stages = tmp_path / "a.dcf", tmp_path / "a.dcf.stages"
    arguments = ["compress", "lenet-300-100", "--recipe", "classic", "--epochs", "1000000", "--data", data]
    process = subprocess.Popen(
        command(*arguments, "-o", out, "--checkpoint", npz),
        env={**environment(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while not (stages / "01-prune.pt").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert stdout == b""
    assert stderr.decode().splitlines()[-1] == "dcformat: interrupted"
    assert b"Traceback" not in stderr
    assert not out.exists()
    assert sorted(path.name for path in stages.iterdir()) == ["00-train.pt", "01-prune.pt", "start.safetensors"]
