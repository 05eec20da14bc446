"""The study on few images: its parts, its tables, and the command."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from dcformat_cli.main import cli
from dcformat_cli.verbs import study_command as study_verb
from dcformat_pruning import study
from dcformat_pruning.criteria import Magnitude, Obs, TfIdf, Wanda
from dcformat_pruning.data import TrainingData
from dcformat_pruning.lenets import CheckpointError, build
from dcformat_pruning.masks import Masks
from dcformat_pruning.meter import Meter, StageProgress
from dcformat_pruning.selection import keep_globally
from dcformat_pruning.study import article, article_run, pruned_networks
from dcformat_pruning.study.criteria_report import article_markdown, mean_and_spread, plot, to_csv, to_markdown
from torch import nn

from tests.cli.documents import valid
from tests.pruning.support import digit_images

#: The tests train networks.
pytestmark = pytest.mark.slow

CRITERIA = ("study", "criteria", "--seeds", "1", "--criterion", "magnitude")
ARTICLE = ("study", "article", "--seeds", "1", "--dense", "8", "--epochs", "1")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return TrainingData(digit_images(256, 0), digit_images(100, 1))


@pytest.fixture(scope="module")
def network(data: TrainingData) -> nn.Sequential:
    return study.train_article(data, 0, None)


def test_ratios_count_biases_as_the_article_does() -> None:
    module = build("lenet-300-100")
    assert study.weights_left(module, 65.46) + 410 == round(266610 / 65.46) == 4073
    for ratio in (0.5, 1000):
        with pytest.raises(ValueError, match="ratio: expected 1 to"):
            study.weights_left(module, ratio)


def test_folded_normalisation_computes_the_same(network: nn.Sequential, data: TrainingData) -> None:
    x = data.validation.floats(slice(0, 20))
    folded = study.folded(network)
    assert not any(isinstance(m, study.NormalizePixels) for m in folded.modules())
    torch.testing.assert_close(folded(x), network(x), rtol=1e-4, atol=1e-4)
    assert isinstance(network[0], study.NormalizePixels)


def test_normalised_pixels_hide_silent_inputs_and_folding_reveals_them(network: nn.Sequential) -> None:
    """A pixel that is always black counts as present in every image if it is -0.42, and as silent if it is 0."""
    dark = digit_images(64, 2)
    dark.pixels[:, :, 0] = 0
    weight = network.get_parameter("fc1.weight").detach().abs()[:, :28]
    normalised = TfIdf().scores(network, dark)["fc1.weight"][:, :28]
    assert bool((normalised > 0.3 * weight).all())
    assert bool((study.TfIdfOnPixels().scores(network, dark)["fc1.weight"][:, :28] == 0).all())


def test_every_criterion_reaches_the_given_ratio(network: nn.Sequential, data: TrainingData) -> None:
    criteria = study.compared_criteria(0, "undertrained", tuple(study.CRITERIA))
    rows = list(study.compare(network, "undertrained", 0, data, criteria, epochs=1, ratios=(30.0,)))
    assert len(rows) == len(criteria) == 12
    keep = study.weights_left(network, 30.0)
    for row in rows:
        assert 0 <= row.retrained <= 1 and row.dense == rows[0].dense
        if row.criterion in ("APoZ", "Castellano"):
            assert 0.7 * keep < row.weights <= keep  # whole units
        elif row.criterion == "Wanda":
            assert abs(row.weights - keep) < 300 + 100 + 10  # whole weights in each row
        else:
            assert row.weights <= keep and row.weights > 0.99 * keep  # a weight may be an exact zero
    magnitude = next(row for row in rows if row.criterion == "magnitude")
    assert magnitude.pruned == magnitude.budgeted


def test_units_are_counted_so_that_they_fit() -> None:
    module = build("lenet-300-100")
    for keep in (5000, 26000):
        counts = study.unit_counts(module, keep)
        a, b = counts["fc1.weight"], counts["fc2.weight"]
        assert 784 * a + a * b + b * 10 <= keep < 784 * (a + 3) + (a + 3) * (b + 1) + (b + 1) * 10


def test_wanda_prunes_rows_and_obs_moves_weights(network: nn.Sequential, data: TrainingData) -> None:
    sample = study.first_images(data.train)
    scores = Wanda().scores(network, sample)
    budget = study.own_budget(network, Wanda(), scores, 26620)
    assert budget == {"fc1.weight": 23520, "fc2.weight": 3000, "fc3.weight": 100}
    module = study.folded(network)
    study.prune(module, Wanda(), scores, budget, sample)
    assert set((module.get_parameter("fc1.weight") != 0).sum(1).tolist()) <= {78, 77}
    module = study.folded(network)
    before = module.get_parameter("fc3.weight").detach().clone()
    study.prune(module, Obs(), Obs().scores(module, sample), budget, sample)
    kept = module.get_parameter("fc3.weight") != 0
    assert int(kept.sum()) == 100
    assert not torch.equal(module.get_parameter("fc3.weight")[kept], before[kept])


@pytest.mark.filterwarnings("ignore::dcformat_pruning.masks.PrunedAwayWarning")  # the network is hardly trained
def test_the_articles_rows_reach_their_ratios(network: nn.Sequential, data: TrainingData) -> None:
    rows = list(article.repeat(network, 4, data, digit_images(50, 3), 1))
    assert len(rows) == article.rows_of_one() == 16
    for row in rows:
        assert row.ratio == pytest.approx(row.published, rel=2e-3)
        assert row.seed == 4
        # A larger s prunes more, so s and the ratio lie on the same side of those for s = 2.
        if row.s is not None and row.at_two is not None:
            assert (row.s > 2) == (row.at_two < row.ratio)
    assert {row.s is None for row in rows if "all layers" in row.method} == {True}


@pytest.mark.filterwarnings("ignore::dcformat_pruning.masks.PrunedAwayWarning")
def test_the_article_continues_where_it_was_interrupted(data: TrainingData, tmp_path: Path) -> None:
    def rows(folder: Path | None, steps: list[StageProgress], dense: int = 2) -> Iterator[list[article.RepeatedRow]]:
        meter = Meter(steps.append, [("dense", 1.0), ("prunings", 1.0)])
        return article_run.run(1, dense, 1, data, digit_images(50, 3), folder, meter)

    *_, whole = rows(None, [])
    own = [(row.published, row.method) for row in whole[:4]]
    assert own[0] == (21.57, "magnitude, s in each layer")
    assert own[1:] == [(ratio, "TF-IDF, s in each layer") for ratio in (24.94, 30.39, 65.46)]
    assert len(list(islice(rows(tmp_path, []), 5))[-1]) == 5
    steps: list[StageProgress] = []
    *_, continued = rows(tmp_path, steps)
    assert continued == whole
    assert [step.done for step in steps if step.unit == "prunings"] == list(range(6, 17))
    assert not any(step.unit == "epochs" for step in steps)
    with pytest.raises(CheckpointError, match=r"article-rows.json: expected rows of 'dense=3 "):
        next(rows(tmp_path, [], dense=3))


def test_retraining_as_the_article_keeps_pruned_weights_at_zero(network: nn.Sequential, data: TrainingData) -> None:
    pruned = copy.deepcopy(network)
    masks = keep_globally(Magnitude().scores(pruned, data.train), 3000)
    Masks(pruned, masks).apply()
    before = pruned.get_parameter("fc2.weight").detach().clone()
    article.retrain_as_article(pruned, data.train, 1, seed=0)
    after = pruned.get_parameter("fc2.weight").detach()
    assert bool((after[~masks["fc2.weight"]] == 0).all()) and not torch.equal(after, before)


def test_layers_are_ranked_by_needed_density() -> None:
    robust = study.LayerSensitivity("a", 10, {0.5: 0.97, 0.1: 0.965, 0.01: 0.9})
    touchy = study.LayerSensitivity("b", 10, {0.5: 0.97, 0.1: 0.95, 0.01: 0.97})
    dense = 0.97
    assert robust.needed(dense) == 0.1
    assert touchy.needed(dense) == 0.5  # a density of 1 % that does well by chance does not count
    assert robust.needed(dense, loss=0.5) == 0.01
    assert robust.needed(1.0) == 1.0


def test_ranking_prunes_one_layer_at_a_time(network: nn.Sequential, data: TrainingData) -> None:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    dense, layers = study.rank_layers(network, data.validation)
    assert sorted(layer.layer for layer in layers) == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert [layer.needed(dense) for layer in layers] == sorted((x.needed(dense) for x in layers), reverse=True)
    assert all(tuple(layer.accuracies) == study.DENSITIES for layer in layers)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def some_rows() -> list[study.ComparisonRow]:
    return [
        study.ComparisonRow("strong", seed, name, ratio, 100, 0.98, 0.5 + seed / 10, 0.4, 0.9)
        for seed in (0, 1)
        for name in ("magnitude", "OBS")
        for ratio in (10.0, 65.46)
    ]


def test_tables_give_means_and_spreads() -> None:
    text = to_markdown(some_rows())
    assert "### Baseline: strong, dense 98.00 ± 0.00 %, 2 seeds" in text
    assert "| OBS | 55.00 ± 7.07 | 55.00 ± 7.07 |" in text
    parsed = list(csv.DictReader(io.StringIO(to_csv(some_rows()))))
    assert len(parsed) == 8 and parsed[0]["criterion"] == "magnitude" and float(parsed[-1]["ratio"]) == 65.46
    assert mean_and_spread([0.5]) == "50.00"
    assert to_csv([]) == ""


def test_the_articles_table_has_published_rows_above_repeated_ones() -> None:
    method = "magnitude, s in each layer"
    found = [article.RepeatedRow(21.57, seed, method, 1.9, 21.57, 23.4, 0.95, 0.7, 0.96) for seed in (0, 1)]
    found.append(article.RepeatedRow(65.46, 0, "TF-IDF, all layers", None, 65.46, None, 0.95, 0.7, 0.9))
    lines = article_markdown(found).splitlines()
    first = lines.index("| 21.57x | *published: magnitude* |  | 21.57 |  | 94.5 | 71.64 | 96.20 |")
    ours = "| magnitude, s in each layer | 1.90 | 21.57 | 23.40 | 95.00 ± 0.00 | 70.00 ± 0.00 | 96.00 ± 0.00 |"
    assert lines[first + 1] == "|  " + ours
    assert lines[-1] == "|  | TF-IDF, all layers |  | 65.46 |  | 95.00 | 70.00 | 90.00 |"


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    plot(some_rows(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch, data: TrainingData, network: nn.Sequential) -> Iterator[None]:
    """Run studies on few images and a network that is already trained."""
    baseline = study.Baseline("undertrained", 3, lambda _: copy.deepcopy(network), lambda *_: network)
    monkeypatch.setattr("dcformat_pruning.data.training_data", lambda *_: data)
    monkeypatch.setattr("dcformat_pruning.data.load_test_images", lambda *_: digit_images(30, 5))
    monkeypatch.setattr("dcformat_pruning.study.criteria_run.BASELINES", (baseline,))
    monkeypatch.setattr(study, "train_strong", lambda *_: network)
    yield


@pytest.mark.filterwarnings("ignore::dcformat_pruning.masks.PrunedAwayWarning")
def test_the_verb_writes_tables_and_prints_them(little: None, tmp_path: Path) -> None:
    out = tmp_path / "new"
    result = CliRunner().invoke(cli, [*CRITERIA, "--epochs", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "### Baseline: undertrained" in result.stdout
    assert "undertrained network, seed 0 (stage 1 of 2), 0:0" in result.stderr
    assert "its prunings, seed 0 (stage 2 of 2): 5 of 5 prunings, dense " in result.stderr
    assert sorted(p.name for p in out.iterdir()) == [f"study-criteria.{end}" for end in ("csv", "md", "png")]
    assert (out / "study-criteria.md").read_text() == result.stdout
    result = CliRunner().invoke(cli, [*ARTICLE, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "| 65.46x | *published: TF-IDF* |" in result.stdout
    assert (out / "study-article.md").read_text() == result.stdout
    assert (out / "study-article.csv").read_text().count("\n") == 17
    document = valid("study article", CliRunner().invoke(cli, [*ARTICLE, "--json"]).stdout)
    assert len(document["rows"]) == 16 and {row["s"] is None for row in document["rows"]} == {True, False}


@pytest.mark.filterwarnings("ignore::dcformat_pruning.masks.PrunedAwayWarning")
def test_an_interrupted_comparison_continues_with_the_next_row(
    little: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = ("--epochs", "1", "--resume", str(tmp_path / "work"))
    retrained: list[nn.Module] = []
    most = 3

    def counted(module: nn.Sequential, *rest: Any) -> None:
        if len(retrained) == most:
            raise KeyboardInterrupt
        pruned_networks.retrain(module, *rest)
        retrained.append(module)

    monkeypatch.setattr("dcformat_pruning.study.criteria_comparison.retrain", counted)
    assert CliRunner().invoke(cli, [*CRITERIA, *resume]).exit_code == 130
    assert len(json.loads((tmp_path / "work" / "criteria-rows.json").read_bytes())["rows"]) == 3
    most = -1
    result = CliRunner().invoke(cli, [*CRITERIA, *resume])
    assert result.exit_code == 0 and len(retrained) == 5, result.output
    assert result.stdout == CliRunner().invoke(cli, [*CRITERIA, "--epochs", "1"]).stdout
    # Rows of another criterion in the same folder are kept, and not shown.
    other = CliRunner().invoke(cli, [*CRITERIA[:-1], "random", *resume])
    assert "| random |" in other.stdout and "| magnitude |" not in other.stdout
    assert CliRunner().invoke(cli, [*CRITERIA, *resume]).stdout == result.stdout and len(retrained) == 15
    refused = CliRunner().invoke(cli, [*CRITERIA, "--epochs", "2", *resume[2:]])
    assert refused.exit_code == 1 and "give another directory" in refused.stderr
    none = CliRunner().invoke(cli, [*CRITERIA, "--baseline", "strong", *resume])
    assert none.exit_code == 0 and "undertrained" not in none.stdout


def test_the_help_names_every_ratio() -> None:
    text = " ".join(CliRunner().invoke(cli, ["study", "criteria", "--help"]).stdout.split())
    *most, last = (f"{ratio:g}" for ratio in study.RATIOS)
    assert f"by several criteria to {', '.join(most)} and {last} times fewer parameters" in text


def test_the_command_offers_every_criterion() -> None:
    (option,) = (p for p in study_verb.criteria_command.params if p.name == "names")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == tuple(study.CRITERIA)
    assert [c.name for c in study.compared_criteria(0, "undertrained", tuple(study.CRITERIA))] == list(study.CRITERIA)
    assert set(study.CRITERIA) - set(study.DEFAULT_CRITERIA) == {"LAMP", "Castellano"}
    assert "TF-IDF on [0, 1]" not in [c.name for c in study.compared_criteria(0, "strong")]
    with pytest.raises(ValueError, match=r"criterion: expected one of magnitude, .*, found 'size'"):
        study.compared_criteria(0, "strong", ("size",))


@pytest.mark.filterwarnings("ignore::dcformat_pruning.masks.PrunedAwayWarning")  # the networks are hardly trained
def test_every_schedule_reaches_the_given_ratio(data: TrainingData) -> None:
    rows = list(study.compare_schedules(0, data, epochs=4, ratio=30.0))
    assert [row.schedule for row in rows] == list(study.SCHEDULES)
    keep = study.weights_left(build("lenet-300-100"), 30.0)
    assert all(0.99 * keep < row.weights <= keep and 0 <= row.accuracy <= 1 for row in rows)


def test_the_schedules_verb_writes_tables_and_prints_json(
    little: None, data: TrainingData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [
        study.ScheduleRow(0, "gradual", 24.94, 10_280, 0.975),
        study.ScheduleRow(1, "gradual", 24.94, 10_280, 0.985),
    ]
    monkeypatch.setattr(study, "compare_schedules", lambda seed, *_, **__: rows[seed : seed + 1])
    result = CliRunner().invoke(cli, ["study", "schedules", "--seeds", "2", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("| schedule | 24.94x |\n| --- | --- |\n| gradual | 98.00 ± 0.71 |\n")
    assert (tmp_path / "study-schedules.md").read_text() == result.stdout
    assert (tmp_path / "study-schedules.csv").read_text().startswith("seed,schedule,ratio,weights,accuracy\n0,gradual,")
    result = CliRunner().invoke(cli, ["study", "schedules", "--seeds", "1", "--json"])
    assert valid("study schedules", result.stdout)["rows"] == [
        {"seed": 0, "schedule": "gradual", "ratio": 24.94, "weights": 10280, "accuracy": 0.975}
    ]
    assert CliRunner().invoke(cli, ["study", "schedules", "--ratio", "700"]).exit_code == 2


def test_the_verb_prints_json(little: None) -> None:
    result = CliRunner().invoke(cli, [*CRITERIA, "--epochs", "1", "--json"])
    document = valid("study criteria", result.stdout)
    assert list(document) == ["schema", "rows"]
    assert [row["ratio"] for row in document["rows"]] == list(study.RATIOS)
    assert list(document["rows"][0]) == [
        "baseline", "seed", "criterion", "ratio", "weights", "dense", "pruned", "budgeted", "retrained",
    ]  # fmt: skip
    result = CliRunner().invoke(cli, ["study", "layers", "--json"])
    assert {layer["name"] for layer in valid("study layers", result.stdout)["seeds"][0]["layers"]} == {
        "fc1.weight",
        "fc2.weight",
        "fc3.weight",
    }


def test_layers_verb_shows_a_table_and_writes_markdown(little: None, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["study", "layers", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "most sensitive first" in result.stdout
    assert (tmp_path / "study-layers.md").read_text().count("| fc") == 3


def test_bad_options_are_refused_before_any_work(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["study", "criteria", "--seeds", "0"])
    assert result.exit_code == 2 and "--seeds" in result.stderr
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli, ["study", "criteria", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2 and "is a file" in result.stderr
    result = CliRunner().invoke(cli, ["study", "criteria", "--data", str(tmp_path / "nothing")])
    assert result.exit_code == 1 and "expected a directory" in result.stderr
