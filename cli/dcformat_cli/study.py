"""`dcformat study`: compare pruning criteria as the 2025 article did, or rank layers by sensitivity."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dcformat.files import check_output, replacing
from dcformat_cli.failures import require_torch
from dcformat_cli.options import as_json
from dcformat_cli.progress import reporting
from dcformat_cli.terminal import Table, emit_json, note, say

if TYPE_CHECKING:
    from dcformat_pruning.article import Repeated
    from dcformat_pruning.data import TrainingData
    from dcformat_pruning.study import Row, Sensitivity

_DATA = click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="IDX files [$DCFORMAT_DATA or data/mnist]."
)
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where tables and the plot are written, anew after each seed [nowhere].",
)


@click.group("study")
def study_command() -> None:
    """Compare pruning criteria on LeNet-300-100, or rank its layers by sensitivity."""


@study_command.command("criteria")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Epochs of retraining.")
@_OUT
@_DATA
@as_json()
def criteria_command(seeds: int, epochs: int, out: Path | None, data: Path | None, as_json: bool) -> None:
    """Prune two dense networks, an undertrained and a strong one, by ten criteria at three ratios, and retrain.

    Accuracies are on images held out of the training set. The article's own rows are repeated on the test
    set. Takes about 5 minutes of one core for each seed.
    """
    require_torch("study")
    from dcformat_pruning.data import training_data

    _prepare(out, ("study-criteria.csv", "study-article.csv", "study-criteria.md", "study-criteria.png"))
    rows, repeated = _compare(training_data(data), seeds, epochs, out, data)
    if as_json:
        emit_json({"rows": [asdict(row) for row in rows], "article": [asdict(row) for row in repeated]})
    else:
        from dcformat_pruning.study_report import to_markdown

        click.echo(to_markdown(rows, repeated), nl=False)


def _compare(
    images: TrainingData, seeds: int, epochs: int, out: Path | None, data: Path | None
) -> tuple[list[Row], list[Repeated]]:
    """Run the study; with a directory, write what there is after each seed."""
    from dcformat_pruning import article, study

    rows: list[Row] = []
    repeated: list[Repeated] = []
    test = study.test_images(data)
    total = epochs * (study.rows_in_all(seeds) + article.rows_in_all(seeds))
    with reporting() as progress:
        for seed in range(seeds):
            for baseline in study.BASELINES:
                module = baseline.train(images, seed, None)
                for row in study.compare(module, baseline.name, seed, images, epochs=epochs):
                    rows.append(row)
                    figures = {"dense": row.dense, "pruned": row.pruned, "retrained": row.retrained}
                    progress("retraining", epochs * (len(rows) + len(repeated)), total, figures)
                if not baseline.repeats:
                    continue
                for again in article.repeat(module, seed, images, test, epochs):
                    repeated.append(again)
                    progress("retraining", epochs * (len(rows) + len(repeated)), total, {})
            if out is not None:
                _write(out, rows, repeated)
    return rows, repeated


def _write(out: Path, rows: list[Row], repeated: list[Repeated]) -> None:
    from dcformat_pruning.study_report import plot, to_csv, to_markdown

    for name, text in (
        ("study-criteria.csv", to_csv(rows)),
        ("study-article.csv", to_csv(repeated)),
        ("study-criteria.md", to_markdown(rows, repeated)),
    ):
        with replacing(out / name) as file:
            file.write(text.encode())
    try:
        plot(rows, out / "study-criteria.png")
    except ImportError as error:
        note(f"no plot: matplotlib is not installed ({error})")


@study_command.command("layers")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=12, show_default=True, help="Epochs of the dense network."
)
@_OUT
@_DATA
@as_json()
def layers_command(seeds: int, epochs: int, out: Path | None, data: Path | None, as_json: bool) -> None:
    """Rank the layers of a dense LeNet-300-100 by what pruning each alone, by magnitude, costs; no retraining."""
    require_torch("study")
    from dcformat_pruning.data import training_data
    from dcformat_pruning.study import layers_study, train_strong

    _prepare(out, ("study-layers.md",))
    images = training_data(data)
    document: list[dict[str, Any]] = []
    tables: list[Table] = []
    with reporting() as progress:
        for seed in range(seeds):
            module = train_strong(images, seed, progress, epochs)
            dense, layers = layers_study(module, images.validation)
            tables.append(_layers_table(seed, dense, layers))
            document.append({"seed": seed, "dense": dense, "layers": [_layer(dense, layer) for layer in layers]})
    if out is not None:
        with replacing(out / "study-layers.md") as file:
            file.write("\n".join(_markdown(table) for table in tables).encode())
    if as_json:
        emit_json(document)
        return
    for table in tables:
        table.show()
        say("needs: the smallest density that costs at most one percentage point")


def _layer(dense: float, layer: Sensitivity) -> dict[str, Any]:
    accuracies = {f"{density:g}": accuracy for density, accuracy in layer.accuracies.items()}
    return {
        "name": layer.layer,
        "weights": layer.weights,
        "needs": layer.needed(dense),
        "accuracies": accuracies,
    }


def _layers_table(seed: int, dense: float, layers: list[Sensitivity]) -> Table:
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
    return Table(title, ["layer", "weights", "needs", *(f"{100 * density:g} %" for density in densities)], rows)


def _markdown(table: Table) -> str:
    lines = [table.title, "", *(f"| {' | '.join(row)} |" for row in (table.columns, ["---"] * len(table.columns)))]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table.rows)]) + "\n"


def _prepare(out: Path | None, names: tuple[str, ...]) -> None:
    """Fail before the work if what comes of it cannot be written."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            check_output(out / name)
