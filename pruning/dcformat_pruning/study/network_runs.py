"""A run of the comparison on image networks: its data, its dense networks, and the folder from which it continues."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dcformat_pruning.data import TrainingData, training_data
from dcformat_pruning.meter import Meter
from dcformat_pruning.study.image_networks import image_network
from dcformat_pruning.study.jpeg_archive import is_archive, jpeg_training_data
from dcformat_pruning.study.network_comparison import NetworkRow, compare_network, selections_of
from dcformat_pruning.study.network_training import train_dense
from dcformat_pruning.study.saved_rows import SavedRows, trained


@dataclass(frozen=True, slots=True)
class NetworkStudy:
    """The networks, criteria and densities that a run compares.

    Attributes
    ----------
    networks, criteria : sequence of str
        Keys of `image_networks.IMAGE_NETWORKS` and of `network_comparison.NETWORK_CRITERIA`.
    densities : sequence of float
        Shares of the weights to keep.
    seeds : int
    dense, epochs : int
        Epochs of the dense networks and of each retraining.
    """

    networks: Sequence[str]
    criteria: Sequence[str]
    densities: Sequence[float]
    seeds: int
    dense: int
    epochs: int

    @property
    def prunings(self) -> int:
        """Number of rows of a network with one seed."""
        return len(self.densities) * sum(len(selections_of(criterion)) for criterion in self.criteria)

    def holds(self, row: NetworkRow) -> bool:
        """Whether the study has such a row; a folder may hold rows of other studies with the same dense networks."""
        of_study = row.network in self.networks and row.seed < self.seeds and row.epochs == self.epochs
        return of_study and row.criterion in self.criteria and row.density in self.densities

    def work(self) -> list[tuple[str, float]]:
        """Return the stages, and their work in epochs: a dense network, then its pruned versions."""
        stages: list[tuple[str, float]] = []
        for name in self.networks:
            for seed in range(self.seeds):
                # Scoring and measuring take about as long as a quarter of an epoch.
                stages += [(f"{name}, seed {seed}", float(self.dense))]
                stages += [(f"its prunings, seed {seed}", self.prunings * (self.epochs + 0.25))]
        return stages


def image_data(path: Path | str | None) -> TrainingData:
    """Load the training images: an archive (see `jpeg_archive.load_jpegs`), or a directory of IDX files."""
    return jpeg_training_data(path) if is_archive(path) else training_data(path)


def run(study: NetworkStudy, data: TrainingData, folder: Path | None, meter: Meter) -> Iterator[list[NetworkRow]]:
    """Yield all rows that are done, after each pruning.

    Parameters
    ----------
    folder : Path or None
        The folder in which the dense networks and the rows are saved. Work that it already holds is not repeated.

    Raises
    ------
    CheckpointError
        The folder holds files of a study with other dense networks, or damaged files.
    """
    channels, size = data.train.pixels.shape[1:3]
    key = f"dense={study.dense} images={len(data.train)} torch={torch.__version__}"
    saved = SavedRows(folder, "rows.json", key, NetworkRow)
    for place, (name, seed) in enumerate(itertools.product(study.networks, range(study.seeds))):
        module = trained(
            folder, seed, name, key, image_network(name, channels, size, seed),
            partial(_train, study, name, seed, data, meter, 2 * place),
        )  # fmt: skip
        count = sum((row.network, row.seed) == (name, seed) for row in saved.rows if study.holds(row))
        meter.begin(2 * place + 1, saved=count / study.prunings)
        found = compare_network(
            name, module, seed, data, study.criteria, epochs=study.epochs, densities=study.densities,
            done=[row.key for row in saved.rows],
        )  # fmt: skip
        for row in found:
            saved.add(row)
            count += 1
            meter.count("prunings", count, study.prunings, {"pruned": row.pruned, "retrained": row.retrained})
            yield [row for row in saved.rows if study.holds(row)]
    yield [row for row in saved.rows if study.holds(row)]


def _train(study: NetworkStudy, name: str, seed: int, data: TrainingData, meter: Meter, stage: int) -> nn.Module:
    """Train a dense network; the meter enters the stage only then, as a saved network takes no time."""
    meter.begin(stage)
    return train_dense(name, data, seed, study.dense, meter)
