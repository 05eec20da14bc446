"""`dcformat compress --module`: the user's own network and data, from start to end, and the user's mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from dcformat_cli import progress
from dcformat_pruning.recipes import StageProgress

from tests.cli.support import Invoke, refused

pytestmark = pytest.mark.needs_compiler

CODE = """
import torch
from torch import nn

constant = 4

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3))

def images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    x = 0.3 * torch.randn(n, 1, 8, 8, generator=generator)
    for image, label in zip(x, y.tolist()):
        image[0, 2 * label + 1] += 1.0
    return x, y

def loaders():
    return images(320, 0), images(100, 1), images(100, 2)

def step(module):
    return lambda batch: nn.functional.multi_margin_loss(module(batch[0]), batch[1])

def number():
    return 3

def leave():
    raise SystemExit

def divide(module):
    return 1 / 0

def odd_metric():
    return images(32, 0), divide

def late_exit():
    return images(32, 0), lambda module: leave()

def other_pixels():
    x, y = images(32, 0)
    return (x[..., :5], y), (x, y)

def other_validation():
    x, y = images(32, 0)
    return (x, y), (x[..., :5], y)

def no_such_class():
    x, y = images(32, 0)
    return (x, y + 3), (x, y)

def words():
    x, y = images(32, 0)
    return (x, y.numpy().astype(str)), (x, y)

def no_loss(module):
    return lambda batch: None if module(batch[0]).sum() else 0

def many_losses(module):
    return lambda batch: module(batch[0])

def broken():
    raise ValueError("no such data\\nand more")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a directory with the user's module."""
    (tmp_path / "usernet.py").write_text(CODE)
    (tmp_path / "spoiled.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for name in ("usernet", "spoiled"):
        sys.modules.pop(name, None)


COMPRESS = ("compress", "--module", "usernet:make", "--data", "usernet:loaders")
QUICK = (*COMPRESS, "--epochs", "3", "--dense-epochs", "3", "--batch", "16", "--lr", "0.01", "--device", "cpu")


def test_a_file_that_holds_the_goal(invoke: Invoke) -> None:
    result = invoke(*QUICK, "--density", "0.2", "--step", "usernet:step", "-o", "a.dcf", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["size"] == Path("a.dcf").stat().st_size
    assert document["goal"] == {"density": 0.2}
    assert (document["reached"], document["note"]) == (True, "")
    assert [trial["keep"] for trial in document["trials"]] == [round(0.2 * 804)]
    stages = ["dense", "prune", "share", "settle", "pack"]
    assert [stage["stage"] for stage in document["stages"]] == stages
    assert document["stages"][-1]["size"] == document["size"]
    assert document["dense"] > 0.9 and 0 <= document["test"] <= 1
    assert "prune (stage 2 of 5): epoch 1 of 1, loss" in result.stderr
    assert "validation metric" in result.stderr
    assert f"note: network 1: 161 weights, {document['size']:,} bytes" in result.stderr
    metadata = json.loads(invoke("inspect", "a.dcf", "--json").stdout)["metadata"]
    assert metadata["metrics"].endswith(f"file {document['metric']:.4f}")
    assert sorted(path.name for path in Path.cwd().iterdir() if path.suffix == ".stages") == []


@pytest.mark.slow
def test_a_goal_out_of_reach_is_reported_and_the_nearest_network_written(invoke: Invoke) -> None:
    result = invoke(*QUICK, "--size", "100", "--trials", "1", "-o", "a.dcf")
    assert result.exit_code == 1
    size = Path("a.dcf").stat().st_size
    assert (
        f"note: the goal (at most 100 bytes) was not reached: the nearest network has {size:,} bytes" in result.stderr
    )
    assert result.stdout.splitlines()[-1].startswith("a.dcf: metric ")


def test_ctrl_c_keeps_the_complete_stages(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(step: StageProgress) -> None:
        if step.stage == "share":
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "ProgressLines", lambda: interrupt)
    result = invoke(*QUICK, "--density", "0.2", "-o", "a.dcf")
    assert result.exit_code == 130
    assert "a.dcf.stages: complete stages were kept; --resume continues from them" in result.stderr
    assert sorted(path.name for path in Path("a.dcf.stages").iterdir()) == ["00-dense.pt", "01-prune.pt"]
    assert not Path("a.dcf").exists()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("usernet", "--module: expected MODULE:FUNCTION, as in mynet:make, found 'usernet'"),
        ("usernot:make", "--module: no module 'usernot' in this directory or among the installed packages"),
        ("usernet:mak", "--module: usernet has no 'mak'. Did you mean 'make'?"),
        ("usernet:constant", "--module: expected a function, found that usernet:constant is of type int"),
    ],
)
def test_names_that_lead_nowhere(invoke: Invoke, module: str, message: str) -> None:
    arguments = ("compress", "--module", module, "--data", "usernet:loaders", "--density", "0.5", "-o", "a.dcf")
    refused(invoke(*arguments), message, code=2)


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        ("spoiled:make", "usernet:loaders", "spoiled:make: ModuleNotFoundError: No module named 'no_such_package' ("),
        ("usernet:number", "usernet:loaders", "usernet:number: expected a torch.nn.Module, found int"),
        ("usernet:make", "usernet:broken", "usernet:broken: ValueError: no such data ("),
        ("usernet:make", "usernet:number", "usernet:number: expected train, validate and optionally test, found int"),
    ],
)
def test_code_that_fails(invoke: Invoke, module: str, data: str, message: str) -> None:
    refused(invoke("compress", "--module", module, "--data", data, "--density", "0.5", "-o", "a.dcf"), message)


def test_code_that_ends_the_process_has_failed(invoke: Invoke) -> None:
    message = refused(invoke(*COMPRESS[:2], "usernet:leave", *COMPRESS[3:], "--density", "0.1", "-o", "a.dcf"), code=1)
    assert "usernet:leave: SystemExit (" in message
    assert not Path("a.dcf").exists()


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        ("odd_metric", ["usernet.py, line ", ": ZeroDivisionError: division by zero"]),
        ("late_exit", ["usernet.py, line ", ": SystemExit"]),
        ("other_pixels", ["train: expected batches that fit the network, found RuntimeError for one: mat1 and mat2"]),
        ("other_validation", ["validate: expected batches that fit the network, found RuntimeError for one: mat1"]),
        ("words", ["train: expected arrays of numbers, found <U21"]),
        ("no_such_class", ["train: expected batches that fit the network, found IndexError for one: Target"]),
    ],
)
def test_data_and_metrics_that_fail_while_they_are_used(invoke: Invoke, data: str, messages: list[str]) -> None:
    result = invoke(*COMPRESS[:3], "--data", f"usernet:{data}", "--density", "0.5", "--device", "cpu", "-o", "a.dcf")
    message = result.stderr.splitlines()[-1]
    assert result.exit_code == 1 and all(each in message for each in messages), message
    assert not Path("a.dcf").exists()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("no_loss", "step: expected a loss that is a scalar tensor, found NoneType"),
        ("many_losses", "step: expected a loss that is a scalar tensor, found shape (2, 3)"),
    ],
)
def test_steps_that_return_no_loss(invoke: Invoke, step: str, message: str) -> None:
    result = invoke(*COMPRESS, "--step", f"usernet:{step}", "--density", "0.5", "--device", "cpu", "-o", "a.dcf")
    assert result.exit_code == 1 and message in result.stderr.splitlines()[-1], result.stderr


def test_a_single_goal_is_needed(invoke: Invoke) -> None:
    refused(invoke(*COMPRESS, "-o", "a.dcf"), "expected one of --max-drop, --size, --density, found none", code=2)
    both = (*COMPRESS, "--size", "1K", "--density", "0.1", "-o", "a.dcf")
    refused(invoke(*both), "found --size and --density", code=2)


@pytest.mark.slow
def test_a_teacher_and_settings_for_each_stage(invoke: Invoke) -> None:
    stages = ("--epochs", "2,1,1", "--lr", "0.01,0.005,0.001", "--teacher", "usernet:make")
    result = invoke(*QUICK, *stages, "--density", "0.2", "-o", "a.dcf")
    assert result.exit_code == 0, result.output
    assert "prune (stage 2 of 5): epoch 2 of 2" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--epochs", "2,1", "expected a number, or three (prune, share, settle), found '2,1'"),
        ("--epochs", "2,x,1", "expected finite numbers separated by commas, found '2,x,1'"),
        ("--epochs", "2", "epochs: expected at least 3, or at least 1 for each stage, found 2"),
        ("--epochs", "1.5", "expected whole numbers, found '1.5'"),
        ("--lr", "0.1,0,0.1", "lr: expected a positive learning rate, found (0.1, 0.0, 0.1)"),
        ("--teacher", "usernet:mak", "--teacher: usernet has no 'mak'"),
    ],
)
def test_settings_that_make_no_sense(invoke: Invoke, option: str, value: str, message: str) -> None:
    result = invoke(*COMPRESS, option, value, "--density", "0.2", "-o", "a.dcf")
    assert result.exit_code in (1, 2) and message in result.stderr, result.stderr


def test_a_teacher_has_to_be_a_network(invoke: Invoke) -> None:
    message = "usernet:number: expected a torch.nn.Module, found int"
    refused(invoke(*COMPRESS, "--teacher", "usernet:number", "--density", "0.2", "-o", "a.dcf"), message)
