"""The finished work of a study (dense networks and rows), saved so that an interrupted study continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Generic, TypeVar

from torch import nn

from dcformat.files import replacing
from dcformat_pruning.lenets import CheckpointError
from dcformat_pruning.study.article import RepeatedRow
from dcformat_pruning.study.criteria_comparison import ComparisonRow
from dcformat_pruning.study.network_comparison import NetworkRow
from dcformat_pruning.training_stages.saved_stages import SavedStage, load_stage, save_stage

R = TypeVar("R", RepeatedRow, ComparisonRow, NetworkRow)
M = TypeVar("M", bound=nn.Module)


def trained(folder: Path | None, seed: int, name: str, key: str, fresh: M, train: Callable[[], M]) -> M:
    """Return a dense network: trained and saved, or with the weights that were saved, in eval mode.

    Parameters
    ----------
    folder : Path or None
        None saves nothing.
    key : str
        Identifies the study; a saved network with another key is refused.
    fresh : nn.Module
        Takes the saved weights.
    train : callable
        Returns a trained network.

    Raises
    ------
    CheckpointError
        The saved network is damaged, or of another study.
    """
    saved = None if folder is None else load_stage(folder, seed, name, key)
    if saved is not None:
        fresh.load_state_dict(saved.state)
        return fresh.eval()
    module = train()
    if folder is not None:
        save_stage(folder, seed, name, key, SavedStage(module.state_dict(), {}, ""))
    return module.eval()


class SavedRows(Generic[R]):
    """The rows of a study that are done, with a file from which an interrupted study continues.

    Parameters
    ----------
    folder : Path or None
        None saves nothing.
    name : str
        The name of the file.
    key : str
        Identifies the study; a file with another key is refused.
    kind : type
        The class of the rows.

    Attributes
    ----------
    rows : list
        All rows that are done, also those of earlier runs.

    Raises
    ------
    CheckpointError
        The file is damaged, or of another study.
    """

    def __init__(self, folder: Path | None, name: str, key: str, kind: type[R]) -> None:
        self._path, self._key = None if folder is None else folder / name, key
        self.rows: list[R] = [] if self._path is None else _load(self._path, key, kind)

    def add(self, row: R) -> None:
        """Add a row and write all of them; if that fails, an existing file stays unchanged."""
        self.rows.append(row)
        if self._path is not None:
            with replacing(self._path) as file:
                content = {"key": self._key, "rows": [asdict(row) for row in self.rows]}
                file.write(json.dumps(content, indent=0).encode())


def _load(path: Path, key: str, kind: type[R]) -> list[R]:
    """Return the saved rows; none if there is no file."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_bytes())
        found, rows = content["key"], [kind(**row) for row in content["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected the rows of a study, found something else; remove it") from error
    if found != key:
        raise CheckpointError(f"{path}: expected rows of {key!r}, found those of {found!r}; give another directory")
    return rows
