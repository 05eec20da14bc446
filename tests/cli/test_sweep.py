"""`dcformat sweep` from the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.documents import valid
from tests.cli.support import Invoke, refused

pytest.importorskip("torch")
pytest.importorskip("optuna", reason="Optuna, which is not among the packages of the checks, is not installed")


def test_a_criterion_that_does_not_exist(invoke: Invoke, tmp_path: Path) -> None:
    refused(invoke("sweep", "--out", tmp_path, "--criterion", "x"), "criterion: expected one of magnitude")


@pytest.mark.slow
def test_the_command(invoke: Invoke, tmp_path: Path) -> None:
    options = ["--out", tmp_path / "o", "--density", "0.2", "--clusters", "4", "--clusters", "8", "--dense-epochs", "1",
               "--epochs", "1", "--images", "2000", "--json"]  # fmt: skip
    first = invoke("sweep", *options)
    assert first.exit_code == 0, first.output
    points = valid("sweep", first.stdout)["points"]
    assert [point["clusters"] for point in points] == [4, 8] and all(0 < point["accuracy"] <= 1 for point in points)
    assert points[0]["size"] < points[1]["size"]
    again = invoke("sweep", *options)
    assert "2 of 2 points are finished already" in again.stderr and valid("sweep", again.stdout)["points"] == points
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"sweep.db", "sweep.csv", "sweep.png", "dense-0.pt"}
