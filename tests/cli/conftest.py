"""Small models and data sets, made anew for each session; the command run in this process or in a new one."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from dcformat_cli.main import cli

from dcformat.architectures import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_data_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCFORMAT_DATA", raising=False)


@pytest.fixture
def invoke() -> Invoke:
    """Run the command in this process; `result.stdout`, `result.stderr` and `result.exit_code` are as a user's."""

    def run(*args: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin, prog_name="dcformat")

    return run


def command(*args: object) -> list[str]:
    """The command line of a new process, on the code that this process tests."""
    return [sys.executable, "-c", "from dcformat_cli.main import main; main()", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "error"}


def spawn(*args: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(command(*args), stderr=subprocess.PIPE, env=environment(), check=False, **options)


def refused(result: Result, *parts: object, code: int = 1) -> str:
    """Assert that a command failed with one line on stderr that has all of `parts`, and return it."""
    lines = result.stderr.splitlines()
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    errors = [line for line in lines if not line.startswith(("note: ", "warning: "))]
    assert len(errors) == 1, result.stderr
    for part in parts:
        assert str(part) in errors[0]
    return errors[0]


def lenet_300_100(seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """A pruned LeNet-300-100 with 16 shared values a layer, as `NAME.weight` and `NAME.bias`."""
    random = np.random.default_rng(seed)
    state = {}
    for name, shape in ARCHITECTURES["lenet-300-100"].shapes.items():
        if name.endswith(".bias"):
            state[name] = random.normal(0, 0.1, shape).astype(np.float32)
            continue
        book = random.normal(0, 0.2, 16).astype(np.float32)
        state[name] = np.where(
            random.random(shape) < 0.05, book[random.integers(0, 16, shape)], np.float32(0)
        )
    return state


@pytest.fixture(scope="session")
def state() -> dict[str, npt.NDArray[np.float32]]:
    return lenet_300_100()


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory, state: dict[str, npt.NDArray[np.float32]]) -> Path:
    path = tmp_path_factory.mktemp("models") / "lenet.npz"
    np.savez(path, **state)
    return path


@pytest.fixture(scope="session")
def dcf(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> Path:
    """The packed form of `npz`."""
    path = tmp_path_factory.mktemp("packed") / "lenet.dcf"
    arguments = ["pack", str(npz), "-o", str(path), "--architecture", "lenet-300-100"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return path


def write_idx(
    directory: Path, part: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> None:
    for kind, array in (("images", images), ("labels", labels)):
        header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        with gzip.open(directory / f"{part}-{kind}-idx{array.ndim}-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(header + array.tobytes())


def blobs(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Ten classes that a small network learns at once: a bright square whose place is the class, and noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count).astype(np.uint8)
    images = random.integers(0, 40, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[9 * row : 9 * row + 7, 7 * column : 7 * column + 6] = 220
    return images, labels


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in IDX form: 1,000 training and 200 test images of ten classes."""
    directory = tmp_path_factory.mktemp("blobs")
    write_idx(directory, "train", *blobs(1000, 1))
    write_idx(directory, "t10k", *blobs(200, 2))
    return directory
