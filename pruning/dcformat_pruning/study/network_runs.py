"""A run of the comparison on image networks: its data, its dense networks, and the folder from which it continues."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from dcformat.files import replacing
from dcformat_pruning.data import TrainingData, training_data
from dcformat_pruning.meter import Meter
from dcformat_pruning.networks import CheckpointError
from dcformat_pruning.recipes.saved_stages import SavedStage, load_stage, save_stage
from dcformat_pruning.study.image_networks import image_network
from dcformat_pruning.study.jpeg_archive import is_archive, jpeg_training_data
from dcformat_pruning.study.network_comparison import NetworkRow, compare_network, selections_of
from dcformat_pruning.study.network_training import train_dense


@dataclass(frozen=True, slots=True)
class NetworkStudy:
    """What a run compares.

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
        Where the dense networks and the rows are saved. What it already holds is not done again.

    Raises
    ------
    CheckpointError
        The folder holds files of another study, or damaged ones.
    """
    key = f"dense={study.dense} epochs={study.epochs} images={len(data.train)} torch={torch.__version__}"
    rows = [] if folder is None else load_rows(folder / "rows.json", key)
    place = 0
    for name in study.networks:
        for seed in range(study.seeds):
            meter.begin(place)
            module = dense_network(name, seed, study.dense, data, folder, key, meter)
            meter.begin(place + 1)
            place += 2
            done = {row.key for row in rows}
            found = compare_network(
                name, module, seed, data, study.criteria, epochs=study.epochs, densities=study.densities, done=done
            )
            for row in found:
                rows.append(row)
                if folder is not None:
                    save_rows(folder / "rows.json", key, rows)
                count = sum((r.network, r.seed) == (name, seed) for r in rows)
                figures = {"pruned": row.pruned, "retrained": row.retrained}
                meter.count("prunings", min(count, study.prunings), study.prunings, figures)
                yield rows
    if rows:
        yield rows


def dense_network(
    name: str, seed: int, epochs: int, data: TrainingData, folder: Path | None, key: str, meter: Meter
) -> nn.Module:
    """Train a dense network, or load it if `folder` holds it."""
    saved = None if folder is None else load_stage(folder, seed, name, key)
    if saved is None:
        module = train_dense(name, data, seed, epochs, meter)
        if folder is not None:
            save_stage(folder, seed, name, key, SavedStage(module.state_dict(), {}, ""))
        return module
    channels, size = data.train.pixels.shape[1:3]
    module = image_network(name, channels, size, seed)
    module.load_state_dict(saved.state)
    return module.eval()


def save_rows(path: Path, key: str, rows: Sequence[NetworkRow]) -> None:
    """Write the rows that are done; if anything fails, an existing file stays unchanged."""
    with replacing(path) as file:
        file.write(json.dumps({"key": key, "rows": [asdict(row) for row in rows]}, indent=0).encode())


def load_rows(path: Path, key: str) -> list[NetworkRow]:
    """Return the saved rows; none if there is no file.

    Raises
    ------
    CheckpointError
        The file is damaged, or of another study.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_bytes())
        found, rows = content["key"], [NetworkRow(**row) for row in content["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected the rows of a study, found something else; remove it") from error
    if found != key:
        raise CheckpointError(f"{path}: expected rows of {key!r}, found those of {found!r}; give another directory")
    return rows
