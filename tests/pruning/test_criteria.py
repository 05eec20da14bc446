"""Each criterion against its formula, written out for small networks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from dcformat_pruning.criteria import (
    Apoz,
    Castellano,
    Criterion,
    Fisher,
    Lamp,
    Magnitude,
    Obd,
    Obs,
    Random,
    Taylor,
    TfIdf,
    Wanda,
    scored_layers,
    surgery,
)
from dcformat_pruning.masks import PruningError
from dcformat_pruning.selection import keep_in_rows
from torch import nn
from torch.nn import functional

from tests.pruning.support import everything, gradient, image_data, mlp, mlp_data, own


def mlp_inputs(net: nn.Sequential, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the inputs of each Linear of `mlp`, computed with NumPy."""
    w = {k: v.detach().double().numpy() for k, v in net.state_dict().items()}
    a0 = x.double().numpy()
    a1 = np.maximum(a0 @ w["0.weight"].T + w["0.bias"], 0)
    a2 = np.maximum(a1 @ w["2.weight"].T + w["2.bias"], 0)
    return {"0.weight": a0, "2.weight": a1, "4.weight": a2}


def test_magnitude_is_the_absolute_weight() -> None:
    net = mlp()
    scores = Magnitude().scores(net)
    assert list(scores) == ["0.weight", "2.weight", "4.weight"]
    assert scores["2.weight"][3, 1] == abs(float(net.get_parameter("2.weight")[3, 1].detach()))


def test_random_repeats_by_seed_and_differs_between_seeds() -> None:
    a, b, c = Random(1).scores(mlp()), Random(1).scores(mlp(5)), Random(2).scores(mlp())
    assert torch.equal(a["0.weight"], b["0.weight"])
    assert not torch.equal(a["0.weight"], c["0.weight"])


def test_tfidf_by_hand() -> None:
    net, data = mlp(), mlp_data()
    scores = TfIdf(weight_power=0.5, tf_power=2, idf_power=3, tau=0.2, smooth=0.5, add=0.25).scores(net, data)
    for name, x in mlp_inputs(net, everything(data)[0]).items():
        weight = net.state_dict()[name].numpy()
        for i, j in itertools.product(*map(range, weight.shape)):
            tf = sum(abs(v) for v in x[:, j]) / 12
            df = sum(abs(v) > 0.2 for v in x[:, j])
            idf = max(0.0, math.log((12 + 0.5) / (df + 0.5)) + 0.25)
            assert float(scores[name][i, j]) == pytest.approx(abs(weight[i, j]) ** 0.5 * tf**2 * idf**3, rel=1e-5)


def test_wanda_by_hand_on_a_grouped_padded_convolution() -> None:
    net, data = own(), image_data()
    scores = Wanda().scores(net, data)["conv.weight"]
    x = np.pad(data[0][0].numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = net.conv.weight.detach().numpy()
    for o, c, u, v in itertools.product(range(4), range(1), range(3), range(3)):
        channel = c + (0 if o < 2 else 1)
        energy = sum(x[n, channel, 2 * p + u, 2 * q + v] ** 2 for n in range(6) for p in (0, 1) for q in (0, 1))
        assert float(scores[o, c, u, v]) == pytest.approx(abs(weight[o, c, u, v]) * math.sqrt(energy), rel=1e-5)


def test_wanda_ranks_as_magnitude_when_all_inputs_have_one_norm() -> None:
    net = nn.Sequential(nn.Linear(6, 4))
    data = [(torch.eye(6) * 0.7, torch.zeros(6, dtype=torch.long))]
    wanda = keep_in_rows(Wanda().scores(net, data), {"0.weight": 0.5})["0.weight"]
    magnitude = keep_in_rows(Magnitude().scores(net), {"0.weight": 0.5})["0.weight"]
    assert torch.equal(wanda, magnitude)
    assert wanda.sum(1).tolist() == [3, 3, 3, 3]


def test_apoz_by_hand() -> None:
    net, data = mlp(), mlp_data()
    scores = Apoz().scores(net, data)
    after = mlp_inputs(net, everything(data)[0])["2.weight"]
    for unit in range(5):
        zeros = sum(v == 0 for v in after[:, unit]) / 12
        assert float(scores["0.weight"][unit]) == pytest.approx(1 - zeros)


def test_castellano_by_hand_also_behind_a_flatten() -> None:
    net, data = mlp(), mlp_data()
    scores = Castellano().scores(net, data)
    assert set(scores) == {"0.weight", "2.weight"}
    y = mlp_inputs(net, everything(data)[0])["2.weight"]
    w = net.get_parameter("2.weight").detach().numpy()
    for h in range(5):
        by_hand = sum(w[i, h] ** 2 for i in range(4)) * sum(v**2 for v in y[:, h])
        assert float(scores["0.weight"][h]) == pytest.approx(by_hand, rel=1e-5)
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    images = image_data()
    found = Castellano().scores(conv, images)["0.weight"]
    flat = conv[:3](images[0][0]).detach().numpy()
    w = conv.get_parameter("3.weight").detach().numpy()
    for h in range(3):
        by_hand = sum((w[:, c] ** 2).sum() * (flat[:, c] ** 2).sum() for c in range(4 * h, 4 * h + 4))
        assert float(found[h]) == pytest.approx(by_hand, rel=1e-5)


def sample_gradients(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Return the gradient of each sample, from a backward pass for each."""
    out = []
    for i in range(len(x)):
        loss = functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1])
        names = [n for n, _ in net.named_parameters()]
        out.append(dict(zip(names, torch.autograd.grad(loss, list(net.parameters())), strict=True)))
    return out


@pytest.mark.parametrize(("make", "data"), [(mlp, mlp_data()), (own, image_data())])
def test_fisher_by_one_backward_pass_for_each_sample(make, data) -> None:
    net = make()
    x, y = everything(data)
    gradients = sample_gradients(net, x, y)
    for name, score in Fisher().scores(net, data).items():
        weight = dict(net.named_parameters())[name].detach()
        by_hand = 0.5 * sum(g[name] ** 2 for g in gradients) / len(x) * weight**2
        torch.testing.assert_close(score, by_hand, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("floats", [False, True], ids=["a class at each position", "numbers at each position"])
def test_fisher_of_linear_layers_on_sequences(floats: bool) -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(5, 7, 4)
    y = torch.randn(5, 7, 3) if floats else torch.randint(0, 3, (5, 7))
    squares = {name: torch.zeros_like(p) for name, p in net.named_parameters() if p.ndim > 1}
    for i in range(5):
        out = net(x[i])
        loss = functional.mse_loss(out, y[i]) if floats else functional.cross_entropy(out, y[i])
        found = torch.autograd.grad(loss, [net.get_parameter(name) for name in squares])
        for name, each in zip(squares, found, strict=True):
            squares[name] += each.square()
    scores = Fisher().scores(net, [(x[:3], y[:3]), (x[3:], y[3:])])
    for name, square in squares.items():
        torch.testing.assert_close(scores[name], 0.5 * square / 5 * net.get_parameter(name).detach().square())
    with pytest.raises(PruningError, match=r"output: expected logits of shape \(samples, classes\), found \(3, 7, 3\)"):
        Obd().scores(net, [(x[:3], y[:3])])


def test_fisher_of_units_equals_the_derivative_of_a_gate() -> None:
    """The sum of a * dL/da over positions is the gradient of a gate that scales the unit (Theis et al. 2018, eq. 6)."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    data = image_data()
    x, y = everything(data)
    total = torch.zeros(3)
    for i in range(len(x)):
        gate = torch.ones(3, 1, 1, requires_grad=True)
        out = net[3](net[2](net[1](net[0](x[i : i + 1])) * gate))
        total += torch.autograd.grad(functional.cross_entropy(out, y[i : i + 1]), gate)[0].flatten() ** 2
    torch.testing.assert_close(Fisher(units=True).scores(net, data)["0.weight"], 0.5 * total / len(x))


def test_taylor_by_hand_for_weights_and_units() -> None:
    net, data = own(), image_data() + image_data(4)
    weights, units, absolute = torch.zeros(net.conv.weight.shape), torch.zeros(4), torch.zeros(net.conv.weight.shape)
    for x, y in data:
        net.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        change, bias = (gradient(net, n) * net.get_parameter(n).detach() for n in ("conv.weight", "conv.bias"))
        weights += change**2 / 2
        absolute += change.abs() / 2
        units += (change.sum((1, 2, 3)) + bias) ** 2 / 2
    torch.testing.assert_close(Taylor().scores(net, data)["conv.weight"], weights)
    torch.testing.assert_close(Taylor(squared=False).scores(net, data)["conv.weight"], absolute)
    torch.testing.assert_close(Taylor(units=True).scores(net, data)["conv.weight"], units)


def test_obd_is_the_diagonal_of_the_hessian() -> None:
    net, data = mlp(), mlp_data()
    x, y = everything(data)
    for name in ("0.weight", "2.weight", "4.weight"):
        weight = net.get_parameter(name).detach()
        shape = weight.shape

        def loss(flat: torch.Tensor, name: str = name, shape: torch.Size = shape) -> torch.Tensor:
            out = torch.func.functional_call(net, {name: flat.view(shape)}, (x,))
            return functional.cross_entropy(out, y)

        diagonal = torch.autograd.functional.hessian(loss, weight.flatten()).diagonal().view(shape)
        by_hand = 0.5 * diagonal * weight**2
        torch.testing.assert_close(Obd().scores(net, data)[name], by_hand, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(
    "criterion",
    [Magnitude(), Random(), TfIdf(), Wanda(), Apoz(), Taylor(), Fisher(), Obd(), Obs()],
    ids=lambda c: c.name,
)
def test_every_criterion_scores_a_users_module_and_leaves_it_alone(criterion: Criterion) -> None:
    net = own()
    net.act.eval()
    net.twice.weight.grad = torch.ones_like(net.twice.weight)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    scores = criterion.scores(net, image_data())
    assert isinstance(criterion, Criterion)
    assert set(scores) == {"conv.weight", "twice.weight", "head.weight"}
    for name, score in scores.items():
        weight = dict(net.named_parameters())[name]
        assert score.shape in (weight.shape, weight.shape[:1])
        assert bool((score >= 0).all())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert bool((net.twice.weight.grad == 1).all()) and net.head.weight.grad is None
    assert net.training and not net.act.training and not net.conv._forward_hooks


def test_unsupported_modules_and_masks_in_place_are_named() -> None:
    odd = nn.ModuleDict({"fc": nn.Linear(2, 2), "rnn": nn.LSTM(2, 2, bias=False), "table": nn.Embedding(3, 2)})
    with pytest.raises(PruningError, match=r"found rnn.weight_ih_l0 \(LSTM\), .*, table.weight \(Embedding\)"):
        Apoz().scores(odd, [])
    odd["up"] = nn.ConvTranspose1d(2, 2, 3)
    for criterion in (TfIdf(), Wanda(), Obs()):
        with pytest.raises(PruningError, match=r"found table.weight \(Embedding\), up.weight \(ConvTranspose1d\)$"):
            criterion.scores(odd, [])
    net = mlp()
    nn.utils.prune.l1_unstructured(net[2], "weight", 0.5)
    with pytest.raises(PruningError, match=r"2.weight_orig: .*fold_torch_prune"):
        scored_layers(net)
    with pytest.raises(PruningError, match="padding with zeros, found 'circular'"):
        scored_layers(nn.Conv2d(1, 1, 3, padding_mode="circular"))
    with pytest.raises(PruningError, match="expected weights that multiply inputs, found none"):
        Wanda().scores(nn.ReLU(), [])
    with pytest.raises(PruningError, match="ReLU: expected weights, found none"):
        Magnitude().scores(nn.ReLU())


class Tagger(nn.Module):
    """Attention and a recurrent layer; takes tokens and factors by name, and gives logits for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.recurrent = nn.GRU(4, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, tokens: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) * factor[:, None, None]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.recurrent(x)[0])


def test_weights_of_any_layer_and_any_inputs() -> None:
    torch.manual_seed(0)
    net = Tagger()
    tokens, factor = torch.arange(12).view(4, 3) % 5, torch.linspace(0.5, 2, 4)
    data = [({"tokens": tokens[:3], "factor": factor[:3]}, tokens[:3] % 2)]
    data += [({"tokens": tokens[3:], "factor": factor[3:]}, tokens[3:] % 2)]
    weights = {name: p for name, p in net.named_parameters() if p.ndim > 1}
    squares = {name: torch.zeros_like(p) for name, p in weights.items()}
    for i in range(4):
        logits = net(tokens[i : i + 1], factor[i : i + 1])
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[i] % 2)
        for name, found in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            squares[name] += found.square()
    scores = Fisher().scores(net, data)
    for name, weight in weights.items():
        torch.testing.assert_close(scores[name], 0.5 * squares[name] / 4 * weight.detach().square())
    for criterion in (Magnitude(), Lamp(), Random(), Taylor()):
        scored = criterion.scores(net, data)
        assert {name: score.shape for name, score in scored.items()} == {n: w.shape for n, w in weights.items()}
    assert torch.equal(Magnitude().scores(net)["attention.in_proj_weight"], net.attention.in_proj_weight.detach().abs())


@pytest.mark.parametrize("criterion", [Taylor(), Fisher(), Obd()], ids=lambda c: c.name)
def test_gradients_that_are_nan_name_the_layer(criterion: Criterion) -> None:
    net, data = mlp(), mlp_data()
    net.get_parameter("2.weight").data[0, 0] = math.nan
    with pytest.raises(PruningError, match=r"\d.weight: expected finite gradients, found NaN"):
        criterion.scores(net, data)


def test_scores_that_are_nan_name_the_layer() -> None:
    net = mlp()
    net.get_parameter("2.weight").data[0, 0] = math.nan
    with pytest.raises(PruningError, match=r"2.weight: expected finite scores"):
        Magnitude().scores(net)


def test_no_data_and_unused_layers_are_errors() -> None:
    with pytest.raises(PruningError, match="data: expected at least one batch"):
        Wanda().scores(mlp(), [])
    net = own()
    net.spare = nn.Linear(2, 2)
    for criterion in (TfIdf(), Wanda(), Apoz(), Fisher(), Obs()):
        with pytest.raises(PruningError, match=r"spare.weight: expected a layer that the forward pass uses"):
            criterion.scores(net, image_data())
    with pytest.raises(PruningError, match=r"spare.weight: expected a gradient"):
        Taylor().scores(net, image_data())
    with pytest.raises(PruningError, match="smooth > 0"):
        TfIdf(smooth=0)
    with pytest.raises(PruningError, match=r"2.weight: expected to keep 1 to 20, found 21"):
        surgery(mlp(), mlp_data(), {"2.weight": 21})
