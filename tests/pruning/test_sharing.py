"""Shared weights: exact zeros, clusters that stay tied while training, summed gradients, and balanced scales."""

from __future__ import annotations

import copy

import pytest
import torch
from dcformat_pruning.lenets import build
from dcformat_pruning.masks import Masks, PruningError, magnitude_masks, weight_names
from dcformat_pruning.sharing import (
    METHODS,
    SharedWeights,
    balance_scales,
    quantise_biases,
    round_weights,
    share,
    share_across,
)
from torch import nn

from tests.pruning.support import gradient


def pruned(seed: int = 0) -> nn.Sequential:
    module = build("lenet-300-100", seed)
    Masks(module, magnitude_masks(module, dict.fromkeys(weight_names(module), 0.02))).apply()
    return module


def values(module: nn.Module, name: str) -> torch.Tensor:
    weight = module.get_parameter(name).detach()
    return torch.unique(weight[weight != 0])


@pytest.mark.parametrize("method", METHODS)
def test_each_layer_gets_few_values_and_zeros_stay(method: str) -> None:
    module = pruned()
    zeros = {name: module.get_parameter(name) == 0 for name in weight_names(module)}
    share(module, {"fc1.weight": 16, "fc2.weight": 8, "fc3.weight": 4}, method, rate=0.01)
    for name, max_values in (("fc1.weight", 16), ("fc2.weight", 8), ("fc3.weight", 4)):
        assert 2 <= len(values(module, name)) <= max_values
        assert torch.equal(module.get_parameter(name) == 0, zeros[name])


def test_one_codebook_across_layers_after_balancing_their_scales() -> None:
    module = pruned()
    x = torch.rand(4, 1, 28, 28)
    before = module(x)
    factors = balance_scales(module)
    torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-5)
    assert torch.tensor(list(factors.values())).prod().item() == pytest.approx(1.0)
    sizes = [values(module, name).square().mean().sqrt() for name in weight_names(module)]
    assert max(sizes) < 1.5 * min(sizes)  # of distinct values rather than of weights, so only about equal
    share_across(module, weight_names(module), 6)
    together = torch.unique(torch.cat([values(module, name) for name in weight_names(module)]))
    assert len(together) == 6


def test_balancing_works_through_pooling_and_refuses_an_empty_layer() -> None:
    module = build("lenet-5", 0)
    x = torch.rand(4, 1, 28, 28)
    before = module(x)
    balance_scales(module)
    torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-5)
    module.get_parameter("fc1.weight").data.zero_()
    with pytest.raises(PruningError, match=r"fc1\.weight: expected nonzero weights, found none"):
        balance_scales(module)


def test_a_step_moves_each_centroid_by_its_members_summed_gradients() -> None:
    module = pruned()
    names = weight_names(module)
    share(module, dict.fromkeys(names, 4), "exact")
    start = copy.deepcopy(module.state_dict())
    shared = SharedWeights.from_values(module, names)
    x, y = torch.rand(32, 1, 28, 28), torch.arange(32) % 10
    nn.functional.cross_entropy(module(x), y).backward()
    gradients = {name: gradient(module, name).clone() for name in names}
    shared.before_step(0)
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    shared.after_step(0)
    for name in names:
        weight = module.get_parameter(name).detach()
        for centroid in torch.unique(start[name]):
            members = start[name] == centroid
            if centroid == 0:
                assert not weight[members].any()
                continue
            expected = centroid - 0.1 * gradients[name][members].sum()
            assert len(torch.unique(weight[members])) == 1
            torch.testing.assert_close(weight[members][0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("across", [False, True])
def test_values_stay_tied_through_adam(across: bool) -> None:
    module = pruned()
    names = weight_names(module)
    balance_scales(module)
    share_across(module, names, 5)
    codes = [torch.unique(module.get_parameter(n).detach(), return_inverse=True)[1] for n in names]
    shared = SharedWeights.from_values(module, names, across=across)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.rand(32, 1, 28, 28)), torch.arange(32) % 10).backward()
        shared.before_step(0)
        optimizer.step()
        shared.after_step(0)
    for name, code in zip(names, codes, strict=True):
        assert torch.equal(torch.unique(module.get_parameter(name).detach(), return_inverse=True)[1], code)
    together = torch.unique(torch.cat([values(module, name) for name in names]))
    assert (len(together) == 5) == across


def test_biases_end_on_a_grid() -> None:
    module = build("lenet-300-100", 0)
    before = module.get_parameter("fc1.bias").detach().clone()
    quantise_biases(module, 7)
    after = module.get_parameter("fc1.bias").detach()
    step = after.abs().max() / 7
    counts = after / step
    assert torch.equal(counts, counts.round())
    assert step == pytest.approx(before.abs().max().item() / 7, rel=1 / 128)
    assert (module.get_parameter("fc1.bias").detach() - before).abs().max() <= step / 2 + 1e-7
    with pytest.raises(PruningError, match="levels: expected at least 1, found 0"):
        quantise_biases(module, 0)


def test_rounded_weights_have_few_significant_bits_and_stay_tied() -> None:
    module = pruned()
    share(module, dict.fromkeys(weight_names(module), 8), "exact")
    before = {name: module.get_parameter(name).detach().clone() for name in weight_names(module)}
    round_weights(module, 12)
    for name, old in before.items():
        new = module.get_parameter(name).detach()
        assert ((new - old).abs() <= old.abs() * 2**-12).all()
        assert torch.equal(torch.unique(new, return_inverse=True)[1], torch.unique(old, return_inverse=True)[1])
        mantissa = torch.frexp(new)[0] * 2**12
        assert torch.equal(mantissa, mantissa.round())
    with pytest.raises(PruningError, match="bits: expected 1 to 24, found 0"):
        round_weights(module, 0)


def test_errors_name_the_layer() -> None:
    module = pruned()
    with pytest.raises(PruningError, match="fc9: expected a parameter of the module"):
        share(module, {"fc9": 3})
    with pytest.raises(PruningError, match=r"fc3\.weight: clusters: expected 1 to 20 for 20 values, found 99"):
        share(module, {"fc3.weight": 99})
    with pytest.raises(PruningError, match=r"fc1\.weight: method: expected one of linear, .*, found 'best'"):
        share(module, {"fc1.weight": 3}, "best")
    with pytest.raises(PruningError, match=r"fc2\.weight, fc3\.weight: clusters: expected 1 to"):
        share_across(module, ["fc2.weight", "fc3.weight"], 10**6)
    with pytest.raises(PruningError, match=r"fc3\.weight: expected codes of shape \(10, 100\), found \(3,\)"):
        SharedWeights(module, [{"fc3.weight": torch.zeros(3, dtype=torch.int64)}])
