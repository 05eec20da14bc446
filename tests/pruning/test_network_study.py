"""The comparison on image networks: its rows, continuing after an interruption, tables, and the command."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from dcformat_cli.main import cli
from dcformat_cli.verbs import study_networks
from dcformat_pruning.criteria import Magnitude, Obs
from dcformat_pruning.data import TrainingData
from dcformat_pruning.lenets import CheckpointError
from dcformat_pruning.meter import Meter, StageProgress
from dcformat_pruning.study.image_networks import IMAGE_NETWORKS, image_network
from dcformat_pruning.study.network_comparison import (
    NETWORK_CRITERIA,
    NETWORK_DENSITIES,
    NetworkRow,
    prune_network,
    scored_batches,
)
from dcformat_pruning.study.network_report import networks_markdown
from dcformat_pruning.study.network_runs import NetworkStudy, run
from dcformat_pruning.study.saved_rows import SavedRows

from tests.cli.documents import valid
from tests.pruning.support import digit_images

#: The tests train networks.
pytestmark = pytest.mark.slow

STUDY = NetworkStudy(("resnet-8",), ("magnitude", "random"), (0.5, 0.1), seeds=1, dense=1, epochs=1)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return TrainingData(digit_images(128, 0), digit_images(50, 1))


def meter(steps: list[StageProgress] | None = None, study: NetworkStudy = STUDY) -> Meter:
    return Meter(steps.append if steps is not None else lambda _: None, study.work())


def test_an_interrupted_study_continues_with_the_same_rows(data: TrainingData, tmp_path: Path) -> None:
    *_, whole = run(STUDY, data, None, meter())
    keys = [("magnitude", "all layers", 0.5), ("magnitude", "all layers", 0.1), ("magnitude", "rows", 0.5)]
    assert [(row.criterion, row.selection, row.density) for row in whole][:3] == keys
    assert len(whole) == STUDY.prunings == 8
    started = list(islice(run(STUDY, data, tmp_path, meter()), 3))[-1]
    assert len(started) == 3
    saved = (tmp_path / "00-resnet-8.pt").read_bytes()
    steps: list[StageProgress] = []
    *_, continued = run(STUDY, data, tmp_path, meter(steps))
    assert continued == whole
    assert [step.done for step in steps if step.unit == "prunings"] == [4, 5, 6, 7, 8]
    assert not any(step.unit == "epochs" for step in steps)
    assert (tmp_path / "00-resnet-8.pt").read_bytes() == saved
    *_, finished = run(STUDY, data, tmp_path, meter())
    assert finished == whole


def test_a_folder_serves_studies_of_the_same_dense_networks_only(data: TrainingData, tmp_path: Path) -> None:
    short = NetworkStudy(("resnet-8",), ("random",), (0.5,), seeds=1, dense=1, epochs=0)
    *_, rows = run(short, data, tmp_path, meter())
    assert [row.epochs for row in rows] == [0, 0] and all(row.pruned == row.retrained for row in rows)
    other = NetworkStudy(("resnet-8",), ("magnitude",), (0.5,), seeds=1, dense=1, epochs=0)
    *_, rows = run(other, data, tmp_path, meter())
    assert {row.criterion for row in rows} == {"magnitude"}
    longer = NetworkStudy(("resnet-8",), ("magnitude",), (0.5,), seeds=1, dense=2, epochs=0)
    with pytest.raises(CheckpointError, match=r"rows.json: expected rows of 'dense=2 .*, found those of 'dense=1 "):
        list(run(longer, data, tmp_path, meter()))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"key": "k"}', b'{"key": "k", "rows": [{"seed": 1}]}', b"\xff"])
def test_damaged_rows_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"rows.json: expected the rows of a study, found something else"):
        SavedRows(tmp_path, "rows.json", "k", NetworkRow)


def test_selections_keep_the_numbers_of_weights_that_they_promise(data: TrainingData) -> None:
    module = image_network("resnet-8", 1, 28)
    sample = scored_batches(data.train)
    assert [len(y) for _, y in sample] == [64, 64]
    scores = Magnitude().scores(module, sample)
    # 77,072 weights: the first convolution has 144.
    masks = prune_network(module, Magnitude(), scores, "all layers", 0.1, sample)
    assert sum(masks.alive.values()) == 7707
    masks = prune_network(image_network("resnet-8", 1, 28), Magnitude(), scores, "rows", 0.25, sample)
    assert masks.alive["0.0.weight"] == 16 * 2 and masks.alive["6.weight"] == 10 * 16


def test_obs_moves_the_weights_that_it_keeps(data: TrainingData) -> None:
    module = image_network("mobilenet-v1", 1, 28)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    sample = [(x[:8], y[:8]) for x, y in scored_batches(data.train)[:1]]
    masks = prune_network(module, Obs(), Obs().scores(module, sample), "all layers", 0.5, sample)
    assert sum(masks.alive.values()) == round(0.5 * 210_016)
    moved = {name: module.get_parameter(name)[kept] != before[name][kept] for name, kept in masks.masks.items()}
    assert sum(bool(changed.any()) for changed in moved.values()) == 13  # the others keep whole rows
    assert all(bool((module.get_parameter(name)[~kept] == 0).all()) for name, kept in masks.masks.items())


def rows() -> list[NetworkRow]:
    made = [
        NetworkRow("vit", seed, criterion, selection, density, 10, 0.9, 0.5 + 0.1 * seed, 2, 0.7 + 0.1 * seed)
        for seed in (0, 1)
        for criterion in ("magnitude", "Wanda")
        for selection in ("all layers", "rows")
        for density in (0.5, 0.1)
    ]
    return made[:-1]


def test_tables_have_the_mean_and_spread_over_seeds() -> None:
    text = networks_markdown(rows())
    assert text.startswith("### vit, dense 90.00 ± 0.00 %, 2 seeds\n\nRight after pruning, one ranking over all layers")
    assert "After retraining, the same share of every row (validation accuracy, %):" in text
    assert text.count("| magnitude | 55.00 ± 7.07 | 55.00 ± 7.07 |\n") == 2
    assert text.endswith("| Wanda | 75.00 ± 7.07 | 70.00 |\n")


def test_the_command_offers_every_network_and_criterion() -> None:
    options = {p.name: p.type for p in study_networks.networks_command.params}
    for name, known in (("networks", IMAGE_NETWORKS), ("criteria", NETWORK_CRITERIA)):
        option = options[name]
        assert isinstance(option, click.Choice) and tuple(option.choices) == tuple(known)
    text = " ".join(CliRunner().invoke(cli, ["study", "networks", "--help"]).stdout.split())
    assert f"[default: {','.join(f'{density:g}' for density in NETWORK_DENSITIES)}]" in text


def test_the_command_writes_tables_and_a_picture_and_continues(digits: Path, tmp_path: Path) -> None:
    arguments = ["study", "networks", "--network", "resnet-8", "--criterion", "magnitude", "--density", "0.3"]
    arguments += [
        "--seeds",
        "1",
        "--dense",
        "1",
        "--epochs",
        "0",
        "--data",
        str(digits),
        "--resume",
        str(tmp_path / "r"),
    ]
    result = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "study-networks.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "study-networks.md").read_text() == result.stdout
    assert (tmp_path / "out" / "study-networks.csv").read_text().count("\n") == 3
    again = CliRunner().invoke(cli, [*arguments, "--json"])
    document = valid("study networks", again.stdout)
    assert [row["selection"] for row in document["rows"]] == ["all layers", "rows"]
    assert "epochs," not in again.stderr
    result = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "-f replaces it" in result.stderr


def test_bad_options_and_data_are_refused(tmp_path: Path) -> None:
    for density in ("0", "1.5", "half"):
        result = CliRunner().invoke(cli, ["study", "networks", "--density", density])
        assert result.exit_code == 2 and "--density" in result.stderr
    result = CliRunner().invoke(cli, ["study", "networks", "--network", "resnet-9"])
    assert result.exit_code == 2 and "Did you mean 'resnet-8'?" in result.stderr
    result = CliRunner().invoke(cli, ["study", "networks", "--data", str(tmp_path / "no.tar.xz")])
    assert result.exit_code == 1 and "no.tar.xz: expected an archive of JPEG files" in result.stderr
