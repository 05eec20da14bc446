"""The examples of docs/pruning.md run in order and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import dcformat
from tests.pruning.support import alive, digit_images

TEXT = (Path(__file__).parents[2] / "docs" / "pruning.md").read_text("utf-8")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    images = digit_images(160, 0)
    scope: dict[str, Any] = {"pixels": images.pixels, "labels": images.labels}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)), "docs/pruning.md", "exec"), scope)
    assert sum(scope["ticket"].alive.values()) == alive(scope["fresh"]) == 12_000
    assert sum(scope["units"].values()) >= 60 + 30 - 5
    assert 0 < alive(scope["network"]) <= 5_000
    model = dcformat.load(tmp_path / "pruned.dcf")
    weights = [tensor.to_dense() for name, tensor in model.tensors.items() if name.endswith("weight")]
    assert sum(int((w != 0).sum()) for w in weights) == alive(scope["network"])
    assert all(len(set(w[w != 0].tolist())) <= 16 for w in weights)


def test_the_page_names_everything_that_the_package_offers() -> None:
    import dcformat_pruning
    from dcformat_pruning import criteria, schedules

    for name in set(dcformat_pruning.__all__) - {"Result", "StageReport"}:
        assert f"`{name}`" in TEXT, name
    for name in set(schedules.__all__) - {"Rewind", "Retraining", "one_shot"}:
        assert name in TEXT, name
    for name in ("TfIdf", "Lamp", "Magnitude"):
        assert hasattr(criteria, name)
