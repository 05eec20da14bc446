"""The finished work of a study (dense networks and rows), saved so that an interrupted study continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

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
        See `save_rows`.
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


def save_rows(path: Path, key: str, rows: Sequence[R]) -> None:
    """Write the rows that are done; if anything fails, an existing file stays unchanged.

    Parameters
    ----------
    key : str
        Identifies the study; `load_rows` refuses a file with another key.
    """
    with replacing(path) as file:
        file.write(json.dumps({"key": key, "rows": [asdict(row) for row in rows]}, indent=0).encode())


def load_rows(path: Path, key: str, kind: type[R]) -> list[R]:
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
        found, rows = content["key"], [kind(**row) for row in content["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected the rows of a study, found something else; remove it") from error
    if found != key:
        raise CheckpointError(f"{path}: expected rows of {key!r}, found those of {found!r}; give another directory")
    return rows
