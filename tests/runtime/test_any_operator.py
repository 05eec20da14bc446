"""Every operator against PyTorch, in sessions of both backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import Session

import dcformat
from dcformat import Model
from dcformat.graph import (
    GRU,
    LSTM,
    Add,
    AvgPool,
    Binary,
    Concat,
    Conv,
    ConvTranspose,
    Flatten,
    Gather,
    Graph,
    Linear,
    MatMul,
    MaxPool,
    Node,
    Normalize,
    Output,
    Pad,
    Port,
    Quantize,
    Reduce,
    ReLU,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Tile,
    Transpose,
    Unary,
    Where,
)

torch = pytest.importorskip("torch")
F = torch.nn.functional
Compute = Callable[..., Any]


def random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape).astype(np.float32)


W = {
    "fc": random(5, 6), "fc_b": random(5), "c2": random(4, 3, 3, 2), "c2_b": random(4), "c2g": random(6, 1, 3, 3),
    "c1": random(4, 3, 3), "t2": random(3, 2, 3, 3), "t2_b": random(4), "t1": random(3, 4, 3), "m": random(6, 4),
    "row": random(1, 6), "emb": random(7, 3),
}  # fmt: skip
T = {name: torch.from_numpy(value) for name, value in W.items()}

CASES: list[tuple[str, tuple[int, ...], Sequence[Node], Compute]] = [
    ("linear", (4, 6), [Linear((0,), "fc", "fc_b")], lambda x: F.linear(x, T["fc"], T["fc_b"])),
    ("linear of rank 0 lead", (6,), [Linear((0,), "fc")], lambda x: F.linear(x, T["fc"])),
    (
        "conv",
        (3, 7, 8),
        [Conv((0,), "c2", "c2_b", (2, 1), (1, 0), (1, 0), (1, 2))],
        lambda x: F.conv2d(x, T["c2"], T["c2_b"], (2, 1), (1, 0), (1, 2)),
    ),
    (
        "conv with uneven padding",
        (3, 7, 8),
        [Conv((0,), "c2", "c2_b", (2, 2), (0, 1), (2, 0)), ReLU((1,))],
        lambda x: F.conv2d(F.pad(x, (1, 0, 0, 2)), T["c2"], T["c2_b"], 2).relu(),
    ),
    (
        "grouped conv with leading dimensions",
        (2, 3, 6, 6),
        [Reshape((0,), (1, 6, 6, 6)), Conv((1,), "c2g", None, groups=6)],
        lambda x: F.conv2d(x.reshape(-1, 6, 6, 6), T["c2g"], groups=6).unsqueeze(1),
    ),
    (
        "conv over lines",
        (3, 9),
        [Conv((0,), "c1", None, (2,), (1,), (1,), (2,)), ReLU((1,)), MaxPool((2,), (2,), (1,), (1,), (1,))],
        lambda x: F.max_pool1d(F.conv1d(x, T["c1"], None, 2, 1, 2).relu(), 2, 1, 1),
    ),
    (
        "transposed conv",
        (3, 4, 5),
        [ConvTranspose((0,), "t2", None, (2, 3), (1, 0), (1, 0), (1, 2), (1, 2))],
        lambda x: F.conv_transpose2d(x, T["t2"], None, (2, 3), (1, 0), (1, 2), 1, (1, 2)),
    ),
    (
        "grouped transposed conv",
        (6, 4, 4),
        [Slice((0,), 0, 0, 3), ConvTranspose((1,), "t2", None)],
        lambda x: F.conv_transpose2d(x[:, :3], T["t2"]),
    ),
    (
        "transposed conv over lines",
        (3, 5),
        [ConvTranspose((0,), "t1", "t2_b", (2,), (0,), (0,), (1,), (1,))],
        lambda x: F.conv_transpose1d(x, T["t1"], T["t2_b"], 2, 0, 1),
    ),
    ("product with a tensor", (2, 5, 6), [MatMul((0, "m"))], lambda x: x @ T["m"]),
    ("product of values", (5, 6), [Transpose((0,), (1, 0)), MatMul((0, 1))], lambda x: x @ x.transpose(1, 2)),
    ("sum with a tensor", (5, 6), [Add(("row", 0, 1.5))], lambda x: x + T["row"] + 1.5),
    ("values of two ranks", (5, 6), [Reduce((0,), "max", (0,)), Add((1, 0))], lambda x: x + x.amax(1, keepdim=True)),
    ("where", (5, 6), [Binary((0, 0.0), "less"), Where((1, -1.0, 0))], lambda x: torch.where(x < 0, -1.0, x)),
    ("quantise", (50,), [Quantize((0,), 0.05, 3, -128, 127)], lambda x: torch.fake_quantize_per_tensor_affine(
        x, 0.05, 3, -128, 127)),
    ("softmax along an axis", (3, 4, 5), [Softmax((0,), 1)], lambda x: x.softmax(2)),
    ("layer norm", (3, 8), [Normalize((0,), (1,), 1e-5)], lambda x: F.layer_norm(x, (8,))),
    ("instance norm", (3, 4, 5), [Normalize((0,), (1, 2), 1e-5)], F.instance_norm),
    ("root mean square norm", (3, 8), [Normalize((0,), (1,), 1e-6, False)], lambda x: F.rms_norm(x, (8,), eps=1e-6)),
    (
        "mean pool without padding",
        (3, 7, 7),
        [AvgPool((0,), (3, 2), (2, 2), (1, 1), (1, 1), True, False)],
        lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 1), True, False),
    ),
    ("max pool with ceil", (3, 8, 8), [MaxPool((0,), (3, 3), (2, 2), (1, 1), (1, 1), True)], lambda x: F.max_pool2d(
        x, 3, 2, 1, 1, True)),
    ("flatten", (3, 4), [Flatten((0,))], lambda x: x.flatten(1)),
    ("transpose", (3, 4, 5), [Transpose((0,), (2, 0, 1))], lambda x: x.permute(0, 3, 1, 2)),
    ("slice backwards", (3, 9), [Slice((0,), 1, 8, 4, -2)], lambda x: x[:, :, [8, 6, 4, 2]]),
    ("reflect", (3, 4, 5), [Pad((0,), (0, 1, 2), (0, 3, 4), "reflect")], lambda x: F.pad(x, (2, 4, 1, 3), "reflect")),
    ("edge", (3, 4, 5), [Pad((0,), (0, 1, 2), (0, 3, 4), "edge")], lambda x: F.pad(x, (2, 4, 1, 3), "replicate")),
    ("constant", (3, 4), [Pad((0,), (1, 0), (0, 2), "constant", 2.5)], lambda x: F.pad(x, (0, 2, 1, 0), value=2.5)),
    ("concat", (3, 4), [ReLU((0,)), Concat((0, 1), 1)], lambda x: torch.cat([x, x.relu()], 2)),
    ("tile", (3, 4), [Tile((0,), (2, 3))], lambda x: x.tile(1, 2, 3)),
    ("embedding", (4,), [Reduce((0,), "argmax", (0,)), Gather(("emb", 1))], lambda x: T["emb"][x.argmax(1)]),
    (
        "gather of values",
        (4, 5),
        [Reduce((0,), "argmin", (1,)), Gather((0, 1), 1)],
        lambda x: torch.stack([row[:, row.argmin(1)] for row in x]),
    ),
    ("bilinear", (2, 4, 5), [Resize((0,), (8, 7), (2.0, 1.4), "linear")], lambda x: F.interpolate(
        x, (8, 7), mode="bilinear")),
    ("bilinear with corners", (2, 4, 5), [Resize((0,), (8, 7), (2.0, 1.4), "linear", "align_corners")],
     lambda x: F.interpolate(x, (8, 7), mode="bilinear", align_corners=True)),
    ("nearest", (2, 4, 5), [Resize((0,), (8, 10), (2.0, 2.0), "nearest", "asymmetric", "floor")],
     lambda x: F.interpolate(
        x, (8, 10), mode="nearest")),
]  # fmt: skip
UNARY_TORCH = {
    "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "floor": torch.floor, "ceil": torch.ceil,
    "round": torch.round, "exp": torch.exp, "erf": torch.erf, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "sin": torch.sin, "cos": torch.cos, "sqrt": lambda x: (x * x).sqrt(), "log": lambda x: (x * x).log(),
}  # fmt: skip


def model_of(shape: tuple[int, ...], nodes: Sequence[Node]) -> Model:
    names = {name for node in nodes for name in node.tensors}
    tensors = {name: dcformat.from_dense(name, W[name]) for name in W if name in names}
    return Model(tensors, Graph.sequential(shape, nodes))


def check(model: Model, expected: Any, x: Any, backend: Any) -> None:
    for batch in (3, 1):
        found = Session.from_model(model, backend=backend)(x[:batch])
        np.testing.assert_allclose(found, expected[:batch], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("name", "shape", "nodes", "compute"), CASES, ids=[case[0] for case in CASES])
def test_operator(name: str, shape: tuple[int, ...], nodes: Sequence[Node], compute: Compute, backend: str) -> None:
    x = random(3, *shape)
    check(model_of(shape, nodes), compute(torch.from_numpy(x)).numpy(), x, backend)


@pytest.mark.parametrize("name", UNARY_TORCH)
def test_function_of_each_element(name: str) -> None:
    x = random(3, 40) * 2
    node: list[Node] = [Unary((0,), name)]
    if name in ("sqrt", "log"):
        node = [Binary((0, 0), "mul"), Unary((1,), name)]
    check(model_of((40,), node), UNARY_TORCH[name](torch.from_numpy(x)).numpy(), x, "numpy")


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm(reverse: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.LSTM(6, 4, batch_first=True)
    x, h, c = torch.randn(3, 5, 6), torch.randn(3, 4), torch.randn(3, 4)
    w = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    graph = Graph(
        (Port((5, 6), "x"), Port((4,), "h"), Port((4,), "c")),
        (LSTM((0, 1, 2), *names, reverse), Slice((3,), 1, 0, 4), Slice((3,), 1, 4, 4)),
        (Output(4, "y"), Output(5, "cells")),
    )
    model = Model({name: dcformat.from_dense(name, value) for name, value in w.items()}, graph)
    found = Session.from_model(model)({"x": x.numpy(), "h": h.numpy(), "c": c.numpy()})
    with torch.no_grad():
        expected, (_, last) = layer(x.flip(1) if reverse else x, (h[None], c[None]))
    expected = expected.flip(1) if reverse else expected
    np.testing.assert_allclose(found["y"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["cells"][:, 0 if reverse else -1], last[0], rtol=1e-5, atol=1e-5)


def test_gru() -> None:
    torch.manual_seed(0)
    layer = torch.nn.GRU(6, 4, batch_first=True)
    x = torch.randn(3, 5, 6)
    w = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    node = GRU((0,), "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    model = Model(
        {name: dcformat.from_dense(name, value) for name, value in w.items()}, Graph.sequential((5, 6), [node])
    )
    with torch.no_grad():
        expected = layer(x)[0].numpy()
    np.testing.assert_allclose(Session.from_model(model)(x.numpy()), expected, rtol=1e-5, atol=1e-5)
