"""Saved stages are loaded unchanged; files that are damaged or belong to another run are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dcformat_pruning.lenets import CheckpointError
from dcformat_pruning.training_stages.saved_stages import SavedStage, load_stage, save_stage


def test_a_stage_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    stage = SavedStage({"w": torch.rand(3)}, {"teacher.w": torch.rand(2)}, '{"stage": "train"}')
    save_stage(tmp_path / "run", 2, "train", "key", stage)
    found = load_stage(tmp_path / "run", 2, "train", "key")
    assert found is not None
    assert torch.equal(found.state["w"], stage.state["w"])
    assert torch.equal(found.carried["teacher.w"], stage.carried["teacher.w"])
    assert found.report == stage.report
    assert load_stage(tmp_path / "run", 3, "train", "key") is None
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["02-train.pt"]


def test_damaged_stages_and_those_of_other_runs_are_refused(tmp_path: Path) -> None:
    save_stage(tmp_path, 0, "train", "one", SavedStage({}, {}, "{}"))
    with pytest.raises(CheckpointError, match=r"00-train\.pt: expected a stage of 'other', found one of 'one'"):
        load_stage(tmp_path, 0, "train", "other")
    path = tmp_path / "00-train.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"00-train\.pt: expected a PyTorch file"):
        load_stage(tmp_path, 0, "train", "one")
    torch.save({"state": {}}, path)
    with pytest.raises(CheckpointError, match=r"00-train\.pt: expected a saved stage, found something else"):
        load_stage(tmp_path, 0, "train", "one")


def test_a_failed_write_leaves_the_old_stage_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_stage(tmp_path, 0, "train", "key", SavedStage({"w": torch.ones(1)}, {}, "{}"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_stage(tmp_path, 0, "train", "key", SavedStage({"w": torch.zeros(1)}, {}, "{}"))
    found = load_stage(tmp_path, 0, "train", "key")
    assert found is not None and found.state["w"].item() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["00-train.pt"]
