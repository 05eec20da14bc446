"""Each criterion against loops written out by hand, on networks small enough for that."""

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
    Magnitude,
    Obd,
    Obs,
    Random,
    Taylor,
    TfIdf,
    Wanda,
    hessians,
    prune_layer,
    refit,
    scored_layers,
    sparsegpt_layer,
    surgery,
)
from dcformat_pruning.masks import PruningError
from dcformat_pruning.selection import keep_in_rows
from dcformat_pruning.units import remove_and_refit, remove_while
from torch import nn
from torch.nn import functional


class OwnNet(nn.Module):
    """A user's module: grouped and padded convolution, functional ReLU, in-place ReLU, a linear layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.act = nn.ReLU(inplace=True)
        self.twice = nn.Linear(4 * 2 * 2, 16)
        self.head = nn.Linear(16, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x)).flatten(1)
        x = functional.relu(self.twice(x))
        x = functional.relu(self.twice(x))
        return self.head(x)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def own(seed: int = 0) -> OwnNet:
    torch.manual_seed(seed)
    return OwnNet()


def mlp_data(n: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(n, 6, generator=g) * (torch.rand(n, 6, generator=g) > 0.4)
    y = torch.randint(3, (n,), generator=g)
    return [(x[:5], y[:5]), (x[5:], y[5:])]


def image_data(n: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(2)
    return [(torch.randn(n, 2, 4, 4, generator=g), torch.randint(3, (n,), generator=g))]


def mlp_inputs(net: nn.Sequential, x: torch.Tensor) -> dict[str, np.ndarray]:
    """What each Linear of `mlp` is fed, in numpy."""
    w = {k: v.detach().double().numpy() for k, v in net.state_dict().items()}
    a0 = x.double().numpy()
    a1 = np.maximum(a0 @ w["0.weight"].T + w["0.bias"], 0)
    a2 = np.maximum(a1 @ w["2.weight"].T + w["2.bias"], 0)
    return {"0.weight": a0, "2.weight": a1, "4.weight": a2}


def everything(data: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])


def test_magnitude_is_the_absolute_weight() -> None:
    net = mlp()
    scores = Magnitude().scores(net)
    assert list(scores) == ["0.weight", "2.weight", "4.weight"]
    assert scores["2.weight"][3, 1] == abs(float(net[2].weight[3, 1].detach()))


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
    w = net[2].weight.detach().numpy()
    for h in range(5):
        by_hand = sum(w[i, h] ** 2 for i in range(4)) * sum(v**2 for v in y[:, h])
        assert float(scores["0.weight"][h]) == pytest.approx(by_hand, rel=1e-5)
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    images = image_data()
    found = Castellano().scores(conv, images)["0.weight"]
    flat = conv[:3](images[0][0]).detach().numpy()
    w = conv[3].weight.detach().numpy()
    for h in range(3):
        by_hand = sum((w[:, c] ** 2).sum() * (flat[:, c] ** 2).sum() for c in range(4 * h, 4 * h + 4))
        assert float(found[h]) == pytest.approx(by_hand, rel=1e-5)


def sample_gradients(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Every sample's own gradient, one backward pass each."""
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


def test_fisher_of_units_equals_the_derivative_of_a_gate() -> None:
    """a * dL/da summed over positions is the gradient of a gate that scales the unit (Theis 2018, eq. 6)."""
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
    weights, units, absolute = 0, 0, 0
    for x, y in data:
        net.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        change = net.conv.weight.grad * net.conv.weight.detach()
        weights = weights + change**2 / 2
        absolute = absolute + change.abs() / 2
        units = units + (change.sum((1, 2, 3)) + net.conv.bias.grad * net.conv.bias.detach()) ** 2 / 2
    torch.testing.assert_close(Taylor().scores(net, data)["conv.weight"], weights)
    torch.testing.assert_close(Taylor(squared=False).scores(net, data)["conv.weight"], absolute)
    torch.testing.assert_close(Taylor(units=True).scores(net, data)["conv.weight"], units)


def test_obd_is_the_diagonal_of_the_hessian() -> None:
    net, data = mlp(), mlp_data()
    x, y = everything(data)
    for number, name in ((0, "0.weight"), (2, "2.weight"), (4, "4.weight")):
        shape = net[number].weight.shape

        def loss(flat: torch.Tensor, name: str = name, shape: torch.Size = shape) -> torch.Tensor:
            out = torch.func.functional_call(net, {name: flat.view(shape)}, (x,))
            return functional.cross_entropy(out, y)

        flat = net[number].weight.detach().flatten()
        diagonal = torch.autograd.functional.hessian(loss, flat).diagonal().view(shape)
        by_hand = 0.5 * diagonal * net[number].weight.detach() ** 2
        torch.testing.assert_close(Obd().scores(net, data)[name], by_hand, rtol=1e-3, atol=1e-8)


def dense_layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    x = torch.rand(40, 7, generator=g, dtype=torch.float64)
    weight = torch.randn(3, 7, generator=g, dtype=torch.float64)
    return weight, x.T @ x / 40, x


def layer_error(change: torch.Tensor, x: torch.Tensor) -> float:
    return float((x @ change.T).square().sum() / len(x))


def test_obs_score_is_the_least_error_of_removing_one_weight() -> None:
    """Against the definition: remove the weight, solve the rest of its row by least squares, measure the outputs."""
    weight, _, x = dense_layer()
    net = nn.Sequential(nn.Linear(7, 3, bias=False)).double()
    net[0].weight.data.copy_(weight)
    scores = Obs(damping=0.0).scores(net, [(x, torch.zeros(40, dtype=torch.long))])["0.weight"]
    for i, q in itertools.product(range(3), range(7)):
        rest = [j for j in range(7) if j != q]
        target = (x @ weight[i]).numpy()
        residual = np.linalg.lstsq(x[:, rest].numpy(), target, rcond=None)[1][0]
        assert float(scores[i, q]) == pytest.approx(residual / 40, rel=1e-4)


def test_obs_update_costs_what_its_score_predicts() -> None:
    weight, hessian, x = dense_layer()
    score = weight**2 / torch.linalg.inv(hessian).diagonal()
    pruned, mask = prune_layer(weight, hessian, 20, rounds=99)
    assert int(mask.sum()) == 20
    assert int((score == score.min()).nonzero()[0] @ torch.tensor([7, 1])) == int((~mask).flatten().nonzero())
    assert layer_error(pruned - weight, x) == pytest.approx(float(score.min()), rel=1e-9)
    # Hassibi's update by hand: w - w_q / [H^-1]_qq * H^-1[:, q]
    i, q = map(int, (~mask).nonzero()[0])
    inverse = torch.linalg.inv(hessian)
    by_hand = weight[i] - weight[i, q] / inverse[q, q] * inverse[:, q]
    torch.testing.assert_close(pruned[i], by_hand)


def test_compensation_beats_zeroing_and_greedy_beats_one_round() -> None:
    weight, hessian, x = dense_layer()
    greedy, mask = prune_layer(weight, hessian, 8, rounds=13)
    once, _ = prune_layer(weight, hessian, 8, rounds=1)
    assert layer_error(greedy - weight, x) < layer_error(weight * mask - weight, x)
    assert layer_error(greedy - weight, x) <= layer_error(once - weight, x)


def test_refit_is_numpys_least_squares() -> None:
    weight, hessian, x = dense_layer()
    mask = torch.rand(3, 7, generator=torch.Generator().manual_seed(9)) > 0.5
    fitted = refit(weight, hessian, mask)
    for i in range(3):
        rest = mask[i].nonzero().flatten().tolist()
        by_hand = np.linalg.lstsq(x[:, rest].numpy(), (x @ weight[i]).numpy(), rcond=None)[0]
        np.testing.assert_allclose(fitted[i, rest].numpy(), by_hand, rtol=1e-8)
    assert torch.equal(fitted[~mask], torch.zeros(int((~mask).sum()), dtype=torch.float64))


def test_sparsegpt_by_hand_for_a_given_order() -> None:
    """One block as wide as the layer; then each column's error goes to the columns on its right, OBS by OBS."""
    weight, hessian, x = dense_layer()
    found, mask = sparsegpt_layer(weight, hessian, 12, block=7)
    assert int(mask.sum()) == 12 and bool((found[~mask] == 0).all())
    by_hand = weight.clone()
    for q in range(7):
        inverse = torch.linalg.inv(hessian[q:, q:])  # what is left once the columns before q are fixed
        for i in range(3):
            if not mask[i, q]:
                by_hand[i, q:] -= by_hand[i, q] / inverse[0, 0] * inverse[:, 0]
    torch.testing.assert_close(found, by_hand * mask)
    assert layer_error(found - weight, x) < layer_error(weight * mask - weight, x)


def test_surgery_prunes_grouped_convolutions_and_own_modules() -> None:
    net, data = own(), image_data(64)
    before = net(data[0][0]).detach()
    masks = surgery(net, data, {"conv.weight": 25, "twice.weight": 128, "head.weight": 24})
    assert {n: int(m.sum()) for n, m in masks.items()} == {"conv.weight": 25, "twice.weight": 128, "head.weight": 24}
    assert int((net.conv.weight != 0).sum()) == 25
    plain = own()
    for name, mask in masks.items():
        dict(plain.named_parameters())[name].data.mul_(mask)
    after, without = net(data[0][0]).detach(), plain(data[0][0]).detach()
    assert float((after - before).norm()) < float((without - before).norm())


def test_hessian_of_a_layer_fed_zeros_can_be_inverted() -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    found = hessians(net, [(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))])["0.weight"]
    assert bool(torch.isfinite(torch.linalg.inv(found)).all())


def test_castellano_least_squares_keeps_net_inputs() -> None:
    """A unit that is the sum of two others can go without a trace; in any case no other weights do better."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    data = mlp_data(30)
    x = everything(data)[0]
    with torch.no_grad():
        net[0].weight.abs_()
        net[0].bias.abs_()
        net[0].weight[4] = net[0].weight[0] + 2 * net[0].weight[1]
        net[0].bias[4] = net[0].bias[0] + 2 * net[0].bias[1]
    hidden, net_inputs = net[:2](x).detach(), net[:3](x).detach()
    old = net[2].weight.detach().clone()
    remove_and_refit(net, data, {"0.weight": torch.tensor([True, True, True, True, False])})
    torch.testing.assert_close(net[:3](x), net_inputs, rtol=1e-4, atol=1e-5)
    assert net[2].weight[:, 4].count_nonzero() == 0 and net[0].weight[4].count_nonzero() == 0
    # Another one, which is not redundant: the residual equals numpy's best.
    net[2].weight.data.copy_(old)
    with torch.no_grad():
        net[0].weight[4], net[0].bias[4] = torch.rand(6), 0.1
    hidden, net_inputs = net[:2](x).detach(), net[:3](x).detach()
    remove_and_refit(net, data, {"0.weight": torch.tensor([True, False, True, True, True])})
    rest = [0, 2, 3, 4]
    target = (net_inputs - net[2].bias.detach()).double().numpy()
    best = np.linalg.lstsq(hidden[:, rest].double().numpy(), target, rcond=None)[1]
    found = (net[:3](x) - net_inputs).double().square().sum(0).detach().numpy()
    np.testing.assert_allclose(found, best, rtol=1e-3, atol=1e-9)


def test_remove_while_stops_and_takes_the_last_removal_back() -> None:
    net, data = mlp(), mlp_data()
    seen: list[torch.Tensor] = []

    def good(module: nn.Module) -> bool:
        seen.append(module[0].weight.detach().clone())
        return len(seen) < 3

    left = remove_while(net, data, good)
    assert sum(left.values()) == 5 + 4 - 2
    assert torch.equal(net[0].weight.detach(), seen[1]) or not torch.equal(seen[1], seen[2])
    assert sum(int((w != 0).any(1).sum()) for w in (net[0].weight, net[2].weight)) == 7


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
    with pytest.raises(PruningError, match=r"rnn.weight_ih_l0: expected a Linear or Conv2d layer, found LSTM"):
        Magnitude().scores(nn.Sequential(nn.Linear(2, 2)).append(nn.ModuleDict({"rnn": nn.LSTM(2, 2)})))
    net = mlp()
    nn.utils.prune.l1_unstructured(net[2], "weight", 0.5)
    with pytest.raises(PruningError, match=r"2.weight_orig: .*fold_torch_prune"):
        scored_layers(net)
    with pytest.raises(PruningError, match="padding with zeros, found 'circular'"):
        scored_layers(nn.Conv2d(1, 1, 3, padding_mode="circular"))
    with pytest.raises(PruningError, match="expected a Linear or Conv2d layer, found none"):
        Magnitude().scores(nn.ReLU())


@pytest.mark.parametrize("criterion", [Taylor(), Fisher(), Obd()], ids=lambda c: c.name)
def test_gradients_that_are_nan_name_the_layer(criterion: Criterion) -> None:
    net, data = mlp(), mlp_data()
    net[2].weight.data[0, 0] = math.nan
    with pytest.raises(PruningError, match=r"\d.weight: expected finite gradients, found NaN"):
        criterion.scores(net, data)


def test_scores_that_are_nan_name_the_layer() -> None:
    net = mlp()
    net[2].weight.data[0, 0] = math.nan
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
