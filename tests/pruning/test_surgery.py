"""Optimal Brain Surgeon and Castellano: the remaining weights make up for pruned ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from dcformat_pruning.criteria import (
    Obs,
    hessians,
    prune_layer,
    refit,
    remove_and_refit,
    remove_while,
    sparsegpt_layer,
    surgery,
)
from torch import nn

from tests.pruning.support import everything, image_data, mlp, mlp_data, own


def dense_layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    x = torch.rand(40, 7, generator=g, dtype=torch.float64)
    weight = torch.randn(3, 7, generator=g, dtype=torch.float64)
    return weight, x.T @ x / 40, x


def layer_error(change: torch.Tensor, x: torch.Tensor) -> float:
    return float((x @ change.T).square().sum() / len(x))


def test_obs_score_is_the_least_error_of_removing_one_weight() -> None:
    """Compare with the definition: remove a weight, solve the rest of its row by least squares, measure the outputs."""
    weight, _, x = dense_layer()
    net = nn.Sequential(nn.Linear(7, 3, bias=False)).double()
    net.get_parameter("0.weight").data.copy_(weight)
    scores = Obs(damping=0.0).scores(net, [(x, torch.zeros(40, dtype=torch.long))])["0.weight"]
    for i, q in itertools.product(range(3), range(7)):
        rest = [j for j in range(7) if j != q]
        target = (x @ weight[i]).numpy()
        residual = np.linalg.lstsq(x[:, rest].numpy(), target, rcond=None)[1][0]
        assert float(scores[i, q]) == pytest.approx(residual / 40, rel=1e-4)


def test_the_cost_of_an_obs_update_equals_its_score() -> None:
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
    """With one block as wide as the layer, the error of each column goes to the columns on its right by OBS updates."""
    weight, hessian, x = dense_layer()
    found, mask = sparsegpt_layer(weight, hessian, 12, block=7)
    assert int(mask.sum()) == 12 and bool((found[~mask] == 0).all())
    by_hand = weight.clone()
    for q in range(7):
        inverse = torch.linalg.inv(hessian[q:, q:])  # once the columns before q are fixed
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
    """Removing a unit that is the sum of two others changes nothing; in other cases no other weights are better."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    data = mlp_data(30)
    x = everything(data)[0]
    with torch.no_grad():
        net.get_parameter("0.weight").abs_()
        net.get_parameter("0.bias").abs_()
        net.get_parameter("0.weight")[4] = net.get_parameter("0.weight")[0] + 2 * net.get_parameter("0.weight")[1]
        net.get_parameter("0.bias")[4] = net.get_parameter("0.bias")[0] + 2 * net.get_parameter("0.bias")[1]
    hidden, net_inputs = net[:2](x).detach(), net[:3](x).detach()
    old = net.get_parameter("2.weight").detach().clone()
    remove_and_refit(net, data, {"0.weight": torch.tensor([True, True, True, True, False])})
    torch.testing.assert_close(net[:3](x), net_inputs, rtol=1e-4, atol=1e-5)
    assert (
        net.get_parameter("2.weight")[:, 4].count_nonzero() == 0
        and net.get_parameter("0.weight")[4].count_nonzero() == 0
    )
    # For a unit that is not redundant, the residual equals that of NumPy's least squares.
    net.get_parameter("2.weight").data.copy_(old)
    with torch.no_grad():
        net.get_parameter("0.weight")[4], net.get_parameter("0.bias")[4] = torch.rand(6), 0.1
    hidden, net_inputs = net[:2](x).detach(), net[:3](x).detach()
    remove_and_refit(net, data, {"0.weight": torch.tensor([True, False, True, True, True])})
    rest = [0, 2, 3, 4]
    target = (net_inputs - net.get_parameter("2.bias").detach()).double().numpy()
    best = np.linalg.lstsq(hidden[:, rest].double().numpy(), target, rcond=None)[1]
    found = (net[:3](x) - net_inputs).double().square().sum(0).detach().numpy()
    np.testing.assert_allclose(found, best, rtol=1e-3, atol=1e-9)


def test_remove_while_stops_and_undoes_the_last_removal() -> None:
    net, data = mlp(), mlp_data()
    seen: list[torch.Tensor] = []

    def good(module: nn.Module) -> bool:
        seen.append(module.get_parameter("0.weight").detach().clone())
        return len(seen) < 3

    left = remove_while(net, data, good)
    assert sum(left.values()) == 5 + 4 - 2
    assert torch.equal(net.get_parameter("0.weight").detach(), seen[1]) or not torch.equal(seen[1], seen[2])
    assert sum(int((w != 0).any(1).sum()) for w in (net.get_parameter("0.weight"), net.get_parameter("2.weight"))) == 7
