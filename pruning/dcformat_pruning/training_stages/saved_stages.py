"""The saved stages of a run, from which an interrupted run continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dcformat.files import replacing
from dcformat_pruning.lenets import CheckpointError
from dcformat_pruning.state_dicts import load_tensors


@dataclass(frozen=True, slots=True, eq=False)
class SavedStage:
    """The result of a stage.

    Attributes
    ----------
    state : mapping of str to Tensor
        The state_dict of the module.
    carried : mapping of str to Tensor
        Other tensors that later stages need, such as a teacher's weights.
    report : str
        The stage's report as JSON.
    """

    state: Mapping[str, Tensor]
    carried: Mapping[str, Tensor]
    report: str


def save_stage(folder: Path, number: int, name: str, key: str, stage: SavedStage) -> None:
    """Write the file of a stage; if anything fails, an existing file stays unchanged.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    number : int
        The stage's place in its run, from 0.
    key : str
        Identifies the run; `load_stage` refuses a file with another key.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "key": key,
        "state": {n: t.cpu() for n, t in stage.state.items()},
        "carried": {n: t.cpu() for n, t in stage.carried.items()},
        "report": stage.report,
    }
    with replacing(_stage_path(folder, number, name)) as file:
        torch.save(content, file)


def load_stage(folder: Path, number: int, name: str, key: str) -> SavedStage | None:
    """Return a saved stage, or None if it has not been saved. Parameters are those of `save_stage`.

    Raises
    ------
    CheckpointError
        The file is damaged, or belongs to a run with other settings.
    """
    path = _stage_path(folder, number, name)
    if not path.exists():
        return None
    content = load_tensors(path)
    if not isinstance(content, dict) or not {"key", "state", "carried", "report"} <= set(content):
        raise CheckpointError(f"{path}: expected a saved stage, found something else")
    if content["key"] != key:
        raise CheckpointError(f"{path}: expected a stage of {key!r}, found one of {content['key']!r}")
    return SavedStage(content["state"], content["carried"], content["report"])


def _stage_path(folder: Path, number: int, name: str) -> Path:
    return folder / f"{number:02d}-{name}.pt"
