"""The examples of docs/pytorch.md run and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dcformat_runtime
import pytest
import torch
from torch import Tensor, nn

TEXT = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text("utf-8")


class Siamese(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().amax((2, 3))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 32)
        self.gru = nn.GRU(32, 64, 2, batch_first=True)

    def forward(self, tokens: Tensor, state: Tensor, table: Tensor) -> dict[str, Tensor]:
        y, state = self.gru(self.embedding(tokens), state)
        return {"logits": y[:, -1] @ table, "state": state}


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {
        "torch": torch, "module": nn.Sequential(nn.Conv2d(3, 2, 7, 32), nn.Flatten()),
        "tagger": nn.Sequential(nn.Embedding(1000, 4), nn.Linear(4, 9)), "siamese": Siamese(), "decoder": Decoder(),
    }  # fmt: skip
    first, second, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(first, "docs/pytorch.md", "exec"), scope)
    assert dcformat_runtime.load("model.dcf", backend="numpy").outputs[0].shape == (None, 98)
    exec(compile(second, "docs/pytorch.md", "exec"), scope)
