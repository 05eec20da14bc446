"""Small models and data sets, made once for each test run, and a way to run the command in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dcformat_cli.main import cli

from tests.cli.support import PACK, Invoke, State, blobs, lenet_300_100, save_npz, write_idx


@pytest.fixture(autouse=True)
def no_data_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCFORMAT_DATA", raising=False)


@pytest.fixture
def invoke() -> Invoke:
    """Run the command in this process; the result has the stdout, stderr and exit code that a user sees."""

    def run(*args: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin, prog_name="dcformat")

    return run


@pytest.fixture(scope="session")
def state() -> State:
    return lenet_300_100()


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory, state: State) -> Path:
    path = tmp_path_factory.mktemp("models") / "lenet.npz"
    save_npz(path, state)
    return path


@pytest.fixture(scope="session")
def dcf(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> Path:
    """The packed form of `npz`."""
    path = tmp_path_factory.mktemp("packed") / "lenet.dcf"
    arguments = [*PACK, str(npz), "-o", str(path), "--architecture", "lenet-300-100"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in IDX form: 1,000 training and 200 test images of ten classes."""
    directory = tmp_path_factory.mktemp("blobs")
    write_idx(directory, "train", *blobs(1000, 1))
    write_idx(directory, "t10k", *blobs(200, 2))
    return directory
