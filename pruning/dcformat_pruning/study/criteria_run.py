"""A run of the comparison of criteria on LeNet-300-100, and the folder from which it continues."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dcformat_pruning.data import TrainingData
from dcformat_pruning.meter import Meter
from dcformat_pruning.study.baselines import BASELINES, Baseline
from dcformat_pruning.study.criteria_comparison import RATIOS, ComparisonRow, compare, compared_criteria
from dcformat_pruning.study.saved_rows import SavedRows, trained


@dataclass(frozen=True, slots=True)
class CriteriaStudy:
    """The networks and criteria that a run compares.

    Attributes
    ----------
    seeds : int
    epochs : int
        Epochs of each retraining.
    dense : int or None
        Epochs of the dense networks; by default, those of each baseline.
    baselines, criteria : sequence of str
        Names of `BASELINES` and of `CRITERIA`; by default, all baselines and the default criteria.
    """

    seeds: int
    epochs: int
    dense: int | None = None
    baselines: Sequence[str] = ()
    criteria: Sequence[str] = ()

    def chosen(self) -> list[Baseline]:
        """Return the baselines to prune."""
        return [each for each in BASELINES if each.name in (self.baselines or [b.name for b in BASELINES])]

    def prunings(self, baseline: Baseline) -> int:
        """Return the number of rows of a baseline with one seed."""
        return len(RATIOS) * len(compared_criteria(0, baseline.name, self.criteria))

    def dense_epochs(self, baseline: Baseline) -> int:
        """Return the epochs of a dense network."""
        return baseline.epochs if self.dense is None else self.dense

    def holds(self, row: ComparisonRow) -> bool:
        """Whether the study has such a row; a folder may hold rows of other criteria, baselines and seeds."""
        criteria = [criterion.name for criterion in compared_criteria(0, row.baseline, self.criteria)]
        return row.baseline in [b.name for b in self.chosen()] and row.seed < self.seeds and row.criterion in criteria

    def work(self) -> list[tuple[str, float]]:
        """Return the stages, and their work in epochs: a dense network, then its pruned versions."""
        stages: list[tuple[str, float]] = []
        for seed, baseline in itertools.product(range(self.seeds), self.chosen()):
            stages += [(f"{baseline.name} network, seed {seed}", float(self.dense_epochs(baseline)))]
            stages += [(f"its prunings, seed {seed}", float(self.epochs * self.prunings(baseline)))]
        return stages


def run(study: CriteriaStudy, data: TrainingData, folder: Path | None, meter: Meter) -> Iterator[list[ComparisonRow]]:
    """Yield all rows that are done, after each pruning.

    Parameters
    ----------
    folder : Path or None
        The folder in which the dense networks and the rows are saved. Work that it already holds is not repeated.

    Raises
    ------
    CheckpointError
        The folder holds files of another study, or damaged ones.
    """
    settings = f"images={len(data.train)} torch={torch.__version__}"
    key = f"dense={study.dense or 'default'} epochs={study.epochs} {settings}"
    saved = SavedRows(folder, "criteria-rows.json", key, ComparisonRow)
    for place, (seed, baseline) in enumerate(itertools.product(range(study.seeds), study.chosen())):
        module = trained(
            folder, seed, baseline.name, f"dense={study.dense_epochs(baseline)} {settings}", baseline.build(seed),
            partial(_train, study, baseline, seed, data, meter, 2 * place),
        )  # fmt: skip
        of_one, done = study.prunings(baseline), [row.key for row in saved.rows]
        count = sum((row.baseline, row.seed) == (baseline.name, seed) for row in saved.rows if study.holds(row))
        meter.begin(2 * place + 1, saved=count / of_one)
        criteria = compared_criteria(seed, baseline.name, study.criteria)
        for row in compare(module, baseline.name, seed, data, criteria, epochs=study.epochs, done=done):
            saved.add(row)
            count += 1
            figures = {"dense": row.dense, "pruned": row.pruned, "retrained": row.retrained}
            meter.count("prunings", count, of_one, figures)
            yield [row for row in saved.rows if study.holds(row)]
    yield [row for row in saved.rows if study.holds(row)]


def _train(
    study: CriteriaStudy, baseline: Baseline, seed: int, data: TrainingData, meter: Meter, stage: int
) -> nn.Sequential:
    """Train a dense network; the meter enters the stage only then, as a saved network takes no time."""
    meter.begin(stage)
    return baseline.train(data, seed, meter, study.dense_epochs(baseline))
