"""A run of the repetition of the article's rows, and the folder from which it continues."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dcformat_pruning.data import Images, TrainingData
from dcformat_pruning.meter import Meter
from dcformat_pruning.study.article import BATCH, RepeatedRow, repeat, rows_of_one
from dcformat_pruning.study.baselines import article_network, train_article
from dcformat_pruning.study.saved_rows import SavedRows, trained


def work(seeds: int, dense: int, epochs: int) -> list[tuple[str, float]]:
    """Return the stages, and their work in epochs: a dense network, then its pruned versions."""
    stages: list[tuple[str, float]] = []
    for seed in range(seeds):
        stages += [(f"article's network, seed {seed}", float(dense))]
        stages += [(f"its prunings, seed {seed}", float(epochs * rows_of_one()))]
    return stages


def run(
    seeds: int, dense: int, epochs: int, data: TrainingData, test: Images, folder: Path | None, meter: Meter
) -> Iterator[list[RepeatedRow]]:
    """Yield all rows that are done, after each of them.

    Parameters
    ----------
    seeds : int
    dense, epochs : int
        Epochs of the dense networks and of each retraining.
    folder : Path or None
        The folder in which the dense networks and the rows are saved. Work that it already holds is not repeated.

    Raises
    ------
    CheckpointError
        The folder holds files of another study, or damaged ones.
    """
    settings = f"dense={dense} images={len(data.train)} torch={torch.__version__}"
    key = f"{settings} epochs={epochs}"
    saved = SavedRows(folder, "article-rows.json", key, RepeatedRow)
    for seed in range(seeds):
        module = trained(
            folder, seed, "article", settings, article_network(seed), partial(_train, data, seed, meter, dense)
        )
        count = sum(row.seed == seed for row in saved.rows)
        meter.begin(2 * seed + 1, saved=count / rows_of_one())
        for row in repeat(module, seed, data, test, epochs, [row.key for row in saved.rows]):
            saved.add(row)
            count += 1
            meter.count("prunings", count, rows_of_one(), {"pruned": row.pruned, "retrained": row.retrained})
            yield [row for row in saved.rows if row.seed < seeds]
    yield [row for row in saved.rows if row.seed < seeds]


def _train(data: TrainingData, seed: int, meter: Meter, dense: int) -> nn.Sequential:
    """Train a dense network; the meter enters the stage only then, as a saved network takes no time."""
    meter.begin(2 * seed)
    return train_article(data, seed, meter, dense, BATCH)
