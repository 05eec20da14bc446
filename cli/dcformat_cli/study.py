"""`dcformat study`: compare pruning criteria as the 2025 article did, repeat its rows, or rank layers."""

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
    from dcformat_pruning.study import Row, Sensitivity

_DATA = click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="IDX files [$DCFORMAT_DATA or data/mnist]."
)
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where tables and plots are written, tables anew after each seed [nowhere].",
)


@click.group("study")
def study_command() -> None:
    """Compare pruning criteria on LeNet-300-100, repeat an article's figures, or rank layers by sensitivity."""


@study_command.command("criteria")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Epochs of retraining.")
@_OUT
@_DATA
@as_json()
def criteria_command(seeds: int, epochs: int, out: Path | None, data: Path | None, as_json: bool) -> None:
    """Prune two dense networks, an undertrained and a strong one, by all criteria at three ratios, and retrain.

    Accuracies are on images held out of the training set. Takes about 3 minutes of one core for each seed.
    """
    require_torch("study")
    from dcformat_pruning import study
    from dcformat_pruning.data import training_data
    from dcformat_pruning.study_report import plot, to_csv, to_markdown

    _prepare(out, ("study-criteria.csv", "study-criteria.md", "study-criteria.png"))
    images = training_data(data)
    rows: list[Row] = []
    total = epochs * study.rows_in_all(seeds)
    with reporting() as progress:
        for seed in range(seeds):
            for baseline in study.BASELINES:
                module = baseline.train(images, seed, None)
                for row in study.compare(module, baseline.name, seed, images, epochs=epochs):
                    rows.append(row)
                    figures = {"dense": row.dense, "pruned": row.pruned, "retrained": row.retrained}
                    progress("retraining", epochs * len(rows), total, figures)
            if out is not None:
                _write(out, {"study-criteria.csv": to_csv(rows), "study-criteria.md": to_markdown(rows)})
    if out is not None:
        try:
            plot(rows, out / "study-criteria.png")
        except ImportError as error:
            note(f"no plot: matplotlib is not installed ({error})")
    if as_json:
        emit_json([asdict(row) for row in rows])
    else:
        click.echo(to_markdown(rows), nl=False)


@study_command.command("article")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True, help="Epochs of retraining.")
@_OUT
@_DATA
@as_json()
def article_command(seeds: int, epochs: int, out: Path | None, data: Path | None, as_json: bool) -> None:
    """Repeat the 2025 article's rows by name, on a network trained as the article's, on the test set.

    Takes about a minute of one core for each seed.
    """
    require_torch("study")
    from dcformat_pruning import article, study
    from dcformat_pruning.data import training_data
    from dcformat_pruning.study_report import article_markdown, to_csv

    _prepare(out, ("study-article.csv", "study-article.md"))
    images, test = training_data(data), study.test_images(data)
    rows: list[Repeated] = []
    with reporting() as progress:
        for seed in range(seeds):
            module = study.train_article(images, seed, None, article.DENSE_EPOCHS)
            for row in article.repeat(module, seed, images, test, epochs):
                rows.append(row)
                figures = {"pruned": row.pruned, "retrained": row.retrained}
                progress("retraining", epochs * len(rows), epochs * article.rows_in_all(seeds), figures)
            if out is not None:
                _write(out, {"study-article.csv": to_csv(rows), "study-article.md": article_markdown(rows)})
    if as_json:
        emit_json([asdict(row) for row in rows])
    else:
        click.echo(article_markdown(rows), nl=False)


def _write(out: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        with replacing(out / name) as file:
            file.write(text.encode())


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
