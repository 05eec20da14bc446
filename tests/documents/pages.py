"""The files in the working directory, and the names, that the code blocks of pages take as given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils import prune

import dcformat
from dcformat.graph import GRU, Flatten, Graph, Linear, Node, Output, Port, Reshape
from tests.cli.support import lenet_300_100
from tests.interop.onnx import models as onnx
from tests.interop.tflite import writer as tflite
from tests.pruning.support import digit_images
from tests.runtime.example_networks import lenet

ROOT = Path(__file__).resolve().parents[2]
Scope = dict[str, Any]


def _floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _labels(count: int = 10) -> None:
    Path("labels.txt").write_text("".join(f"class {number}\n" for number in range(count)))


class Tagger(nn.Module):
    """Gives four scores to each token."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Embedding(9, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.scores(tokens)


def readme() -> Scope:
    """Files of the names that the README uses, and a small module."""
    for name in ("model", "another", "old", "new"):
        shutil.copy(ROOT / "models" / "lenet-300-100.dcf", f"{name}.dcf")
    state = lenet_300_100()
    save_file(state, "model.safetensors")
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return {"x": np.zeros((3, 784), np.float32), "module": module, "tagger": Tagger()}


def deltas() -> Scope:
    """Two checkpoints, the first of them packed."""
    old, new = lenet_300_100(), lenet_300_100()
    new["fc3.bias"] += 1
    for name, state in (("step_1000", old), ("step_2000", new)):
        tensors = {tensor: dcformat.from_dense(tensor, values) for tensor, values in state.items()}
        dcformat.save(dcformat.Model(tensors), f"{name}.dcf")
    save_file(new, "step_2000.safetensors")
    model = dcformat.load("step_2000.dcf")
    Path("step_2000.dcf").unlink()
    return {"dcformat": dcformat, "model": model}


def repository() -> Scope:
    """Links to the parts of the repository that pages name."""
    for name in ("data", "models", "spec"):
        Path(name).symlink_to(ROOT / name)
    return {}


def faq() -> Scope:
    """A pruned checkpoint with its masks, and a damaged file."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
    for name in ("1", "3"):
        prune.l1_unstructured(network.get_submodule(name), "weight", amount=0.9)
    torch.save(network.state_dict(), "pruned.pt")
    data = bytearray((ROOT / "models" / "lenet-5.dcf").read_bytes())
    data[1500] ^= 1
    Path("damaged.dcf").write_bytes(data)
    return repository()


def limits() -> Scope:
    """Two files, of which one is from a stranger."""
    for name in ("model", "upload"):
        shutil.copy(ROOT / "models" / "lenet-5.dcf", f"{name}.dcf")
    return {"dcformat": dcformat}


def onnx_page() -> Scope:
    """A model, one with an open length, a classifier, and a model that takes a constant and an open dimension."""
    weight = _floats(64, 3)
    layers = [
        onnx.node("MatMul", ["x", "w"], ["p"]),
        onnx.node("Softmax", ["p"], ["s"]),
        onnx.node("Sin", ["s"], ["y"]),
    ]
    for name, shape in (("model", ["n", 64]), ("tagger", ["n", "length", 64])):
        Path(f"{name}.onnx").write_bytes(onnx.model(layers, {"x": shape}, {"y": None}, {"w": weight}))
    layers = [onnx.node("Conv", ["x", "w"], ["c"]), onnx.node("ReduceMean", ["c"], ["y"], axes=[2, 3], keepdims=0)]
    tensors = {"w": _floats(10, 3, 3, 3)}
    classifier = onnx.model(layers, {"x": ["n", 3, 8, 8]}, {"y": None}, tensors, opset=17)
    Path("classifier.onnx").write_bytes(classifier)
    nodes = [onnx.node("Cast", ["sr"], ["rate"], to=onnx.FLOAT), onnx.node("Div", ["input", "rate"], ["y"])]
    ports: onnx.Ports = {"input": [1, None], "sr": (onnx.INT64, [])}
    Path("silero_vad.onnx").write_bytes(onnx.model(nodes, ports, {"y": None}))
    _labels()
    return {}


def pruning() -> Scope:
    """Images."""
    images = digit_images(160, 0)
    torch.manual_seed(0)
    return {"pixels": images.pixels, "labels": images.labels}


class Siamese(nn.Module):
    """Compares two images."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().amax((2, 3))


class Decoder(nn.Module):
    """Takes a token, a state and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 32)
        self.gru = nn.GRU(32, 64, 2, batch_first=True)

    def forward(self, tokens: torch.Tensor, state: torch.Tensor, table: torch.Tensor) -> dict[str, torch.Tensor]:
        y, state = self.gru(self.embedding(tokens), state)
        return {"logits": y[:, -1] @ table, "state": state}


def pytorch() -> Scope:
    """Modules, and a program."""
    program = torch.export.export(nn.Linear(6, 10).eval(), (torch.zeros(1, 6),))
    torch.export.save(program, "model.pt2")
    _labels()
    return {
        "torch": torch, "module": nn.Sequential(nn.Conv2d(3, 2, 7, 32), nn.Flatten()),
        "tagger": nn.Sequential(nn.Embedding(1000, 4), nn.Linear(4, 9)), "siamese": Siamese(), "decoder": Decoder(),
    }  # fmt: skip


def recurrent_tensors() -> dict[str, dcformat.Tensor]:
    """The weights of the tagger of the runtime's page."""
    shapes = {"weight": (18, 8), "recurrent": (18, 6), "tags": (3, 6)}
    return {name: dcformat.from_dense(name, _floats(*shape, seed=len(name))) for name, shape in shapes.items()}


def runtime() -> Scope:
    """A network for images, and a cell that takes a frame and a state and gives tags and the next state."""
    dcformat.save(lenet().model(), "lenet.dcf")
    nodes: tuple[Node, ...] = (
        Reshape((0,), (1, 8)), Flatten((1,)), GRU((2, 3), "weight", "recurrent"), Flatten((4,)), Linear((5,), "tags"),
    )  # fmt: skip
    ports = Port((8,), "frame"), Port((1, 6), "state", "float32", 1)
    outputs = Output(6, "tags"), Output(4, "next_state", "float32", 1)
    dcformat.save(dcformat.Model(recurrent_tensors(), Graph(ports, nodes, outputs)), "tagger.dcf")
    return {"images": np.zeros((2, 1, 12, 12), np.float32), "frames": _floats(5, 2, 8)}


def scale() -> Scope:
    """A checkpoint in two files."""
    Path("checkpoint").mkdir()
    for number in (1, 2):
        weights = {f"layer{number}.weight": _floats(30, 40, seed=number)}
        save_file(weights, f"checkpoint/model-{number:05}-of-00002.safetensors")
    return {}


def tflite_page() -> Scope:
    """A layer, twice."""
    tensors = [tflite.Tensor((1, 8)), tflite.constant(_floats(10, 8)), tflite.Tensor((1, 10))]
    data = tflite.model(tensors, [tflite.Operator("FULLY_CONNECTED", [0, 1, -1], [2])], [0], [2])
    for name in ("model", "keywords"):
        Path(f"{name}.tflite").write_bytes(data)
    _labels()
    return {}


#: The page -> the function that makes its files in the working directory, and returns its names.
SETUPS: dict[str, Callable[[], Scope]] = {
    "docs/README.md": repository, "docs/deltas.md": deltas, "docs/faq.md": faq, "docs/limits.md": limits,
    "docs/onnx.md": onnx_page, "docs/own-model.md": repository, "docs/pruning.md": pruning, "docs/pytorch.md": pytorch,
    "docs/reading-the-specification.md": repository, "docs/runtime.md": runtime, "docs/scale.md": scale,
    "docs/report.md": repository, "docs/security.md": limits, "docs/tflite.md": tflite_page,
}  # fmt: skip
