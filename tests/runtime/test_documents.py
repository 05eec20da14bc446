"""The Python of docs/runtime.md runs, and computes what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import Session

import dcformat
from dcformat import Model, from_dense
from dcformat.graph import GRU, Flatten, Graph, Linear, Node, Output, Port, Reshape
from tests.runtime.example_networks import lenet

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "runtime.md").read_text("utf-8"), re.DOTALL)


def tensors() -> dict[str, dcformat.Tensor]:
    random = np.random.default_rng(0)
    shapes = {"weight": (18, 8), "recurrent": (18, 6), "tags": (3, 6)}
    return {name: from_dense(name, random.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}


def tagger() -> Model:
    """Return a cell that takes a frame and a state, and gives tags and the next state."""
    nodes: tuple[Node, ...] = (
        Reshape((0,), (1, 8)), Flatten((1,)), GRU((2, 3), "weight", "recurrent"), Flatten((4,)), Linear((5,), "tags"),
    )  # fmt: skip
    ports = Port((8,), "frame"), Port((1, 6), "state", "float32", 1)
    outputs = Output(6, "tags"), Output(4, "next_state", "float32", 1)
    return Model(tensors(), Graph(ports, nodes, outputs))


def test_the_python_of_the_runtime_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dcformat.save(lenet().model(), tmp_path / "lenet.dcf")
    dcformat.save(tagger(), tmp_path / "tagger.dcf")
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(1).standard_normal((5, 2, 8)).astype(np.float32)
    scope: dict[str, Any] = {"images": np.zeros((2, 1, 12, 12), np.float32), "frames": frames}
    for program in PROGRAMS:
        exec(compile(program, "runtime.md", "exec"), scope)
    assert scope["logits"].shape == (2, 10)
    printed = re.findall(r"^# (.*)$", "".join(PROGRAMS), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == printed
    # The same weights over the whole sequence at once.
    nodes = GRU((0,), "weight", "recurrent"), Linear((1,), "tags")
    whole = Session.from_model(Model(tensors(), Graph.sequential((5, 8), nodes)))(frames.swapaxes(0, 1))
    np.testing.assert_allclose(np.stack(scope["tags"], axis=1), whole, rtol=1e-5, atol=1e-5)
