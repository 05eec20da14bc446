"""`dcformat pack` of PyTorch programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dcformat_interop.torch_import import quiet
from torch import nn

import dcformat
from tests.cli.support import PACK, Invoke, refused

pytestmark = pytest.mark.needs_compiler


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "network.bin"
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with quiet():
        exported = torch.export.export(
            module, (torch.randn(3, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(exported, path)
    return path


def test_a_program_is_packed_after_a_check(invoke: Invoke, tmp_path: Path, program: Path) -> None:
    packed = tmp_path / "network.dcf"
    result = invoke(*PACK, program, "-o", packed, "--labels", "a,b", "--mean", "0.5", "--std", "0.25")
    assert result.exit_code == 0, result.output
    assert f"checked against torch {torch.__version__} with batches of 1 and 3: largest difference" in result.stderr
    model = dcformat.load(packed)
    assert model.graph is not None
    assert [node.kind for node in model.graph.nodes] == ["conv", "relu", "flatten", "linear"]
    assert list(model.tensors) == ["0.weight", "0.bias", "3.weight", "3.bias"] and model.labels == ("a", "b")


def test_the_sign_of_zeros(invoke: Invoke, tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    module.weight.data = torch.tensor([[-0.0, 0.0, 1.0], [2.0, -0.0, -3.0]])
    with quiet():
        torch.export.save(torch.export.export(module, (torch.randn(1, 3),)), tmp_path / "a.pt2")
    for exact in (False, True):
        packed = tmp_path / f"{exact}.dcf"
        assert invoke(*PACK, tmp_path / "a.pt2", "-o", packed, *["--exact"] * exact).exit_code == 0
        (weight,) = (tensor.to_dense() for tensor in dcformat.load(packed).tensors.values() if tensor.shape == (2, 3))
        assert np.signbit(weight).tolist() == [[exact, False, False], [False, exact, True]]


def test_what_cannot_be_packed(invoke: Invoke, tmp_path: Path, program: Path) -> None:
    packed = tmp_path / "network.dcf"
    result = invoke(*PACK, program, "-o", packed, "--architecture", "lenet-5")
    refused(result, "are for checkpoints: a PyTorch program holds its own network", code=2)
    for options in (("--jobs", "2"), ("--engine", "ray"), ("--address", "x"), ("--shards", "1M")):
        refused(invoke(*PACK, program, "-o", packed, *options), f"{options[0]}: only for safetensors files", code=2)
    program.write_bytes(program.read_bytes()[:400])
    renamed = program.rename(tmp_path / "network.pt2")
    refused(invoke(*PACK, renamed, "-o", packed), renamed, "expected a torch.export program, found a damaged one")
    assert not packed.exists()
