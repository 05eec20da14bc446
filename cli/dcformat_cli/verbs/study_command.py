"""`dcformat study`: compare pruning criteria or schedules, repeat the rows of a 2025 article, or rank layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dcformat.files import replacing
from dcformat_cli.failures import require_torch
from dcformat_cli.group import Choice, Group
from dcformat_cli.progress import reporting
from dcformat_cli.shared_options import as_json, data
from dcformat_cli.study_output import FORCE, OUT, RESUME, prepare, print_rows, write
from dcformat_cli.terminal import TextTable, emit_json, note, say
from dcformat_cli.verbs.study_networks import networks_command

if TYPE_CHECKING:
    from dcformat_pruning.study import ComparisonRow, LayerSensitivity, ScheduleRow
    from dcformat_pruning.study.article import RepeatedRow

#: The study's ratios and criteria, for the help text, which must not need PyTorch.
_RATIOS = (10.0, 21.57, 24.94, 30.39, 65.46)
_CRITERIA = (
    "magnitude",
    "TF-IDF",
    "TF-IDF on [0, 1]",
    "APoZ",
    "Fisher",
    "Taylor",
    "Wanda",
    "OBD",
    "OBS",
    "random",
    "LAMP",
    "Castellano",
)
_BASELINES = ("strong", "undertrained")

#: LeNet-300-100's parameters, divided by its biases plus one weight for each layer.
_MAX_RATIO = 645.0


def _times(ratios: Sequence[float]) -> str:
    *most, last = (f"{ratio:g}" for ratio in ratios)
    return f"{', '.join(most)} and {last} times"


@click.group("study", cls=Group)
def study_command() -> None:
    """Compare pruning criteria or schedules, repeat an article's figures, or rank layers."""


@study_command.command(
    "criteria",
    short_help="compare pruning criteria",
    help=f"""Prune two dense networks, an undertrained and a strong one, by several criteria to {_times(_RATIOS)} fewer
    parameters, and retrain them.

    Accuracies are on images held out of the training set. Each seed takes about 3 minutes on one core.
    An interrupted study continues with --resume. """,
)
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Number of seeds.")
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Epochs of retraining.")
@click.option(
    "--criterion",
    "names",
    type=Choice(_CRITERIA),
    multiple=True,
    help="Compare this criterion; may be repeated [default: all except LAMP and Castellano].",
)
@click.option(
    "--baseline",
    "baselines",
    type=Choice(_BASELINES),
    multiple=True,
    help="Prune this network; may be repeated [default: both].",
)
@click.option(
    "--dense",
    type=click.IntRange(min=1),
    help="Epochs of the dense networks [default: 12 for the strong one, 3 for the other].",
)
@OUT
@FORCE
@RESUME
@data()
@as_json()
def criteria_command(
    seeds: int,
    epochs: int,
    names: tuple[str, ...],
    baselines: tuple[str, ...],
    dense: int | None,
    out: Path | None,
    force: bool,
    resume: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Compare the criteria; the help text is above because it names the ratios."""
    require_torch("study")
    from dcformat_pruning.data import training_data
    from dcformat_pruning.meter import Meter
    from dcformat_pruning.study import criteria_run
    from dcformat_pruning.study.criteria_report import plot, to_csv, to_markdown

    images = training_data(data)
    prepare(out, force, ("study-criteria.csv", "study-criteria.md", "study-criteria.png"), resume)
    study = criteria_run.CriteriaStudy(seeds, epochs, dense, baselines, names)
    rows: list[ComparisonRow] = []
    with reporting() as report:
        for rows in criteria_run.run(study, images, resume, Meter(report, study.work())):
            if out is not None:
                write(out, {"study-criteria.csv": to_csv(rows), "study-criteria.md": to_markdown(rows)})
    if out is not None:
        try:
            plot(rows, out / "study-criteria.png")
        except ImportError as error:
            note(f"no plot: matplotlib is not installed ({error})")
    print_rows(rows, to_markdown(rows), as_json)


@study_command.command("article", short_help="repeat the figures of a 2025 article")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Number of seeds.")
@click.option(
    "--dense", type=click.IntRange(min=1), default=100, show_default=True, help="Epochs of the dense network."
)
@click.option("--epochs", type=click.IntRange(min=1), default=100, show_default=True, help="Epochs of retraining.")
@OUT
@FORCE
@RESUME
@data()
@as_json()
def article_command(
    seeds: int,
    dense: int,
    epochs: int,
    out: Path | None,
    force: bool,
    resume: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Repeat the figures of an article on a network trained as in the article, on the test set.

    The article is V. Rakivnenko, "Deep Compression, 2015: How Much More Can We Squeeze in 2025?", Towards AI, 2025.

    Each seed takes about 20 minutes on one core. An interrupted study continues with --resume.
    """
    require_torch("study")
    from dcformat_pruning.data import load_test_images, training_data
    from dcformat_pruning.meter import Meter
    from dcformat_pruning.study import article_run
    from dcformat_pruning.study.criteria_report import article_markdown, to_csv

    images, test = training_data(data), load_test_images(data)
    prepare(out, force, ("study-article.csv", "study-article.md"), resume)
    rows: list[RepeatedRow] = []
    with reporting() as report:
        meter = Meter(report, article_run.work(seeds, dense, epochs))
        for rows in article_run.run(seeds, dense, epochs, images, test, resume, meter):
            if out is not None:
                write(out, {"study-article.csv": to_csv(rows), "study-article.md": article_markdown(rows)})
    print_rows(rows, article_markdown(rows), as_json)


@study_command.command("schedules", short_help="compare pruning schedules")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Number of seeds.")
@click.option("--epochs", type=click.IntRange(min=1), default=8, show_default=True, help="Epochs of each schedule.")
@click.option(
    "--ratio",
    type=click.FloatRange(min=1, max=_MAX_RATIO),
    default=24.94,
    show_default=True,
    help="How many times fewer parameters to keep, biases included.",
)
@OUT
@FORCE
@data()
@as_json()
def schedules_command(
    seeds: int, epochs: int, ratio: float, out: Path | None, force: bool, data: Path | None, as_json: bool
) -> None:
    """Train and prune LeNet-300-100 by several schedules: in one step, in rounds, gradually, or sparse from the start.

    All schedules train for the same number of epochs and keep the same number of weights. Accuracies are on images held
    out of the training set.
    """
    require_torch("study")
    from dcformat_pruning import study
    from dcformat_pruning.data import training_data
    from dcformat_pruning.meter import Meter
    from dcformat_pruning.study.criteria_report import schedules_markdown, to_csv

    images = training_data(data)
    prepare(out, force, ("study-schedules.csv", "study-schedules.md"))
    rows: list[ScheduleRow] = []
    with reporting() as report:
        meter = Meter(report, [(f"schedules, seed {seed}", 1.0) for seed in range(seeds)])
        for seed in range(seeds):
            meter.begin(seed)
            found = study.compare_schedules(seed, images, epochs=epochs, ratio=ratio)
            for done, row in enumerate(found, start=1):
                rows.append(row)
                meter.count("schedules", done, len(study.SCHEDULES), {"accuracy": row.accuracy})
            if out is not None:
                write(out, {"study-schedules.csv": to_csv(rows), "study-schedules.md": schedules_markdown(rows)})
    print_rows(rows, schedules_markdown(rows), as_json)


@study_command.command("layers", short_help="rank layers by sensitivity to pruning")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Number of seeds.")
@click.option(
    "--epochs", type=click.IntRange(min=1), default=12, show_default=True, help="Epochs of the dense network."
)
@OUT
@FORCE
@data()
@as_json()
def layers_command(seeds: int, epochs: int, out: Path | None, force: bool, data: Path | None, as_json: bool) -> None:
    """Rank the layers of a dense LeNet-300-100 by how much accuracy pruning costs.

    Each layer is pruned alone, by magnitude and without retraining.
    """
    require_torch("study")
    from dcformat_pruning.data import training_data
    from dcformat_pruning.meter import Meter
    from dcformat_pruning.study import rank_layers, train_strong

    images = training_data(data)
    prepare(out, force, ("study-layers.md",))
    document: list[dict[str, Any]] = []
    tables: list[TextTable] = []
    with reporting() as report:
        meter = Meter(report, [(f"dense, seed {seed}", epochs) for seed in range(seeds)])
        for seed in range(seeds):
            meter.begin(seed)
            module = train_strong(images, seed, meter, epochs)
            dense, layers = rank_layers(module, images.validation)
            tables.append(_layers_table(seed, dense, layers))
            document.append({"seed": seed, "dense": dense, "layers": [_layer(dense, layer) for layer in layers]})
    if out is not None:
        with replacing(out / "study-layers.md") as file:
            file.write("\n".join(_markdown(table) for table in tables).encode())
    if as_json:
        emit_json({"seeds": document})
        return
    for table in tables:
        table.show()
        say("needs: the smallest density at which accuracy falls by at most one percentage point")


def _layer(dense: float, layer: LayerSensitivity) -> dict[str, Any]:
    accuracies = {f"{density:g}": accuracy for density, accuracy in layer.accuracies.items()}
    return {
        "name": layer.layer,
        "weights": layer.weights,
        "needs": layer.needed(dense),
        "accuracies": accuracies,
    }


def _layers_table(seed: int, dense: float, layers: list[LayerSensitivity]) -> TextTable:
    densities = list(layers[0].accuracies)
    rows = [
        [
            layer.layer,
            str(layer.weights),
            f"{100 * layer.needed(dense):g} %",
            *(f"{100 * layer.accuracies[density]:.2f}" for density in densities),
        ]
        for layer in layers
    ]
    title = f"Seed {seed}: validation accuracy (%) with one layer pruned, most sensitive first; dense {100 * dense:.2f}"
    return TextTable(title, ["layer", "weights", "needs", *(f"{100 * density:g} %" for density in densities)], rows)


def _markdown(table: TextTable) -> str:
    lines = [table.title, "", *(f"| {' | '.join(row)} |" for row in (table.columns, ["---"] * len(table.columns)))]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table.rows)]) + "\n"


study_command.add_command(networks_command)
