"""Criteria of 1-D convolutions, attention and recurrent layers, against their formulas."""

from __future__ import annotations

import pytest
import torch
from dcformat_pruning.criteria import (
    Apoz,
    Obd,
    Obs,
    TfIdf,
    Wanda,
    surgery,
)
from torch import nn
from torch.nn import functional


def test_conv1d_by_hand() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(4, 4, 3, stride=2, dilation=2, padding=2, groups=2), nn.ReLU(), nn.Flatten())
    net.append(nn.Linear(12, 3))
    x, y = torch.randn(6, 4, 6), torch.randint(3, (6,))
    weight = net.get_parameter("0.weight").detach()
    wide = functional.pad(x, (2, 2))
    wanda, tfidf, obs = (c.scores(net, [(x, y)])["0.weight"] for c in (Wanda(), TfIdf(tau=0.3), Obs(damping=0.0)))
    for o in range(4):
        columns = torch.stack([wide[:, c + 2 * (o // 2), 2 * u : 2 * u + 5 : 2] for c in range(2) for u in range(3)])
        columns = columns.flatten(1)  # a row for each weight, a column for each of 6 samples at 3 positions
        flat = weight[o].flatten().abs()
        torch.testing.assert_close(wanda[o].flatten(), flat * columns.norm(dim=1))
        present = (columns.abs() > 0.3).sum(1)
        torch.testing.assert_close(tfidf[o].flatten(), flat * columns.abs().mean(1) * ((19 / (present + 1)).log() + 1))
        inverse = torch.linalg.inv((columns @ columns.T / 18).double()).diagonal()
        torch.testing.assert_close(obs[o].flatten().double(), flat.double().square() / inverse, rtol=1e-4, atol=0)
    alive = (net[0](x) > 0).float().mean((0, 2))
    torch.testing.assert_close(Apoz().scores(net, [(x, y)])["0.weight"], alive)
    torch.testing.assert_close(Obd().scores(net, [(x, y)])["0.weight"], gauss_newton(net, x, "0.weight"))


def gauss_newton(net: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
    """Return OBD's scores from the Jacobian of the logits and the Hessian of the cross-entropy in them."""
    weight = net.get_parameter(name).detach()
    jacobian = torch.autograd.functional.jacobian(lambda w: torch.func.functional_call(net, {name: w}, (x,)), weight)
    p = net(x).softmax(1).detach()
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    diagonal = torch.einsum("ncw,ncd,ndw->w", jacobian.flatten(2), hessian, jacobian.flatten(2)) / len(x)
    return 0.5 * diagonal.view_as(weight) * weight.square()


class Crossing(nn.Module):
    """Attention of the last positions to all positions, then recurrent layers."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, kdim=width, vdim=width)
        self.recurrent = nn.LSTM(4, 3, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.attention(x[:, -2:], x, value=x.flip(2), need_weights=False)[0]
        return self.head(self.recurrent(found)[0][:, 0])


@pytest.mark.parametrize("shared", [True, False])
def test_attention_by_hand(shared: bool) -> None:
    torch.manual_seed(1)
    net = Crossing()
    if not shared:  # an own parameter for each projection, as PyTorch has it for keys of another width
        net.attention = nn.MultiheadAttention(4, 2, batch_first=True, kdim=4, vdim=4)
        weights = net.attention.in_proj_weight.detach().clone().chunk(3)
        net.attention._qkv_same_embed_dim = False
        net.attention.register_parameter("in_proj_weight", None)
        for name, weight in zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), weights, strict=True):
            setattr(net.attention, name, nn.Parameter(weight))
    x = torch.randn(5, 6, 4)
    inputs = [x[:, -2:], x, x.flip(2)]
    own = net.attention
    weights = own.in_proj_weight.chunk(3) if shared else (own.q_proj_weight, own.k_proj_weight, own.v_proj_weight)
    q, k, v = (
        (given @ w.T).unflatten(2, (2, 2)).transpose(1, 2) for given, w in zip(inputs, weights, strict=True)
    )  # (batch, heads, positions, 2); the biases are zero at first
    heads = (torch.softmax(q @ k.transpose(2, 3) / 2**0.5, 3) @ v).transpose(1, 2).flatten(2).detach()
    scores = Wanda().scores(net, [(x, torch.zeros(5))])
    projections = [w.detach().abs() * given.flatten(0, 1).norm(dim=0) for w, given in zip(weights, inputs, strict=True)]
    if shared:
        torch.testing.assert_close(scores["attention.in_proj_weight"], torch.cat(projections))
    else:
        for name, expected in zip("qkv", projections, strict=True):
            torch.testing.assert_close(scores[f"attention.{name}_proj_weight"], expected)
    weight = own.out_proj.weight.detach()
    torch.testing.assert_close(scores["attention.out_proj.weight"], weight.abs() * heads.flatten(0, 1).norm(dim=0))
    # The keys have three times as many rows as the queries.
    loud = TfIdf(idf_power=0).scores(net, [(x, torch.zeros(5))])
    means = [w.detach().abs() * given.abs().mean((0, 1)) for w, given in zip(weights, inputs, strict=True)]
    if shared:
        torch.testing.assert_close(loud["attention.in_proj_weight"], torch.cat(means))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_layers_by_hand(kind: str, packed: bool) -> None:
    torch.manual_seed(2)
    layer = getattr(nn, kind)(3, 2, num_layers=2, bidirectional=True)
    x, lengths = torch.randn(4, 3, 3), [2, 4, 3] if packed else [4, 4, 4]
    state = torch.randn(4, 3, 2)
    given = (state, torch.randn(4, 3, 2)) if kind == "LSTM" else state
    inputs = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False) if packed else x
    scores = Wanda().scores(layer, [((inputs, given), torch.zeros(3))])
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in layer.state_dict() if name.startswith("weight")}
    for sample, length in enumerate(lengths):
        before = x[:length, sample]
        for number in range(2):
            results = []
            for way, suffix in enumerate(("", "_reverse")):
                cell = getattr(nn, f"{kind}Cell")(before.shape[1], 2)
                cell.load_state_dict({n: getattr(layer, f"{n}_l{number}{suffix}") for n in cell.state_dict()})
                each = [s[2 * number + way, sample] for s in (given if isinstance(given, tuple) else (given,))]
                found = []
                for row in before.flip(0) if way else before:
                    rows[f"weight_ih_l{number}{suffix}"].append(row)
                    rows[f"weight_hh_l{number}{suffix}"].append(each[0])
                    each = list(cell(row, tuple(each))) if kind == "LSTM" else [cell(row, each[0])]
                    found.append(each[0])
                results.append(torch.stack(found[::-1] if way else found))
            before = torch.cat(results, 1)
    assert set(scores) == set(rows)
    for name, found in rows.items():
        expected = layer.get_parameter(name).detach().abs() * torch.stack(found).norm(dim=0).detach()
        torch.testing.assert_close(scores[name], expected)


def test_cells_by_hand() -> None:
    torch.manual_seed(3)
    cell, x, h = nn.GRUCell(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    scores = Wanda().scores(cell, [((x, h), None)])
    torch.testing.assert_close(scores["weight_ih"], cell.weight_ih.detach().abs() * x.norm(dim=0))
    torch.testing.assert_close(scores["weight_hh"], cell.weight_hh.detach().abs() * h.norm(dim=0))
    assert not bool(Wanda().scores(cell, [(x, None)])["weight_hh"].any())


def test_obd_of_attention_and_recurrent_layers() -> None:
    torch.manual_seed(4)
    net, x = Crossing(), torch.randn(4, 3, 4)
    scores = Obd().scores(net, [(x, torch.zeros(4, dtype=torch.long))])
    for name in ("attention.in_proj_weight", "attention.out_proj.weight", "recurrent.weight_hh_l1", "head.weight"):
        torch.testing.assert_close(scores[name], gauss_newton(net, x, name), rtol=1e-4, atol=1e-9)


def test_surgery_of_attention_in_a_transformer_layer() -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 3)).eval()
    x = torch.randn(40, 3, 4)
    masks = surgery(net, [(x, None)], {"0.self_attn.in_proj_weight": 30, "0.linear1.weight": 16})
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "0.self_attn.in_proj_weight": 30,
        "0.linear1.weight": 16,
    }
    assert torch.equal(net.get_parameter("0.self_attn.in_proj_weight") != 0, masks["0.self_attn.in_proj_weight"])
    assert torch.backends.mha.get_fastpath_enabled()
