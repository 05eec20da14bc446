"""Removing dead parts shrinks the network, keeps its function, and lets weights return to their places."""

from __future__ import annotations

import copy

import pytest
import torch
from dcformat_pruning.lenets import build
from dcformat_pruning.masks import PruningError
from dcformat_pruning.shrinking import Pick, chain_layers, is_chain, keep_best_units, remove_dead_units, shrink
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn


def sparse(architecture: str, density: float, seed: int) -> nn.Sequential:
    module = build(architecture, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.data *= torch.rand(parameter.shape, generator=generator) < density
    return module


@given(
    st.sampled_from(["lenet-300-100", "lenet-5"]),
    st.sampled_from([0.0, 0.001, 0.01, 0.1]),
    st.integers(0, 100),
)
@settings(max_examples=20)
def test_removing_dead_units_and_shrinking_keep_the_function(architecture: str, density: float, seed: int) -> None:
    module = sparse(architecture, density, seed)
    x = torch.rand((5, 1, 28, 28), generator=torch.Generator().manual_seed(seed))
    expected = module(x)
    before = copy.deepcopy(module.state_dict())
    small = shrink(module)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    torch.testing.assert_close(small.module(x), expected)
    full = build(architecture, seed + 1)
    small.expand(full)
    torch.testing.assert_close(full(x), expected)
    remove_dead_units(module)
    torch.testing.assert_close(module(x), expected)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, full.state_dict()[name], rtol=0, atol=0)


def test_constant_units_are_folded_through_relu_and_unread_units_removed() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    first, last = module[1], module[3]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]))
        first.bias.copy_(torch.tensor([5.0, 6.0, 7.0]))
        last.weight.copy_(torch.tensor([[2.0, 1.0, 0.0]]))
        last.bias.fill_(1.0)
    remove_dead_units(module)
    assert last.bias.item() == 11.0  # 1 + 2 * relu(5)
    assert last.weight.tolist() == [[0.0, 1.0, 0.0]]
    assert first.weight.tolist() == [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]
    assert first.bias.tolist() == [0.0, 6.0, 0.0]


def test_shrinking_leaves_out_pixels_units_and_channels() -> None:
    module = build("lenet-300-100", 0)
    with torch.no_grad():
        module.get_parameter("fc1.weight")[10:] = 0
        module.get_parameter("fc1.weight")[:, 20:] = 0
        module.get_parameter("fc2.weight")[:, :3] = 0
    small = shrink(module).module
    assert isinstance(small.flatten, Pick) and len(small.flatten.index) == 20
    assert [tuple(small.get_parameter(f"{n}.weight").shape) for n in ("fc1", "fc2", "fc3")] == [
        (7, 20),
        (100, 7),
        (10, 100),
    ]
    again = shrink(small).module
    assert [p.shape for p in again.parameters()] == [p.shape for p in small.parameters()]


def test_the_best_units_have_the_largest_product_of_norms() -> None:
    module = build("lenet-5", 0)
    with torch.no_grad():
        module.get_parameter("conv1.weight")[[4, 9]] *= 100
        module.get_parameter("fc1.weight")[:, 16 * 7 : 16 * 8] *= 100  # the weights that read channel 7 of conv2
    keep_best_units(module, {"conv1": 2, "conv2": 1})
    alive = {
        link.name: (link.weight != 0).flatten(1).any(1).nonzero().flatten().tolist() for link in chain_layers(module)
    }
    assert alive["conv1"] == [4, 9]
    assert alive["conv2"] == [7]
    assert (
        not module.get_parameter("fc1.weight")[:, : 16 * 7].any()
        and not module.get_parameter("fc1.weight")[:, 16 * 8 :].any()
    )
    small = shrink(module).module
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(small(x), module(x))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"fc9": 1}, "fc9: expected one of fc1, fc2, a layer that another one reads"),
        ({"fc3": 5}, "fc3: expected one of fc1, fc2"),
        ({"fc1": 0}, "fc1: expected to keep 1 to 300 units, found 0"),
        ({"fc2": 101}, "fc2: expected to keep 1 to 100 units, found 101"),
    ],
)
def test_impossible_numbers_of_units_are_refused(units: dict[str, int], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        keep_best_units(build("lenet-300-100"), units)


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (nn.Sigmoid(), "0: expected Linear, Conv2d, ReLU, MaxPool2d or Flatten, found Sigmoid"),
        (nn.Linear(2, 2, bias=False), "0: expected a layer with a bias"),
        (nn.Conv2d(2, 2, 3, padding=1), "0: expected a convolution with one group and no padding"),
    ],
)
def test_other_layers_are_named_in_the_error(child: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        remove_dead_units(nn.Sequential(child))


class Skip(nn.Sequential):
    """A Sequential whose forward is not that of its children one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Doubled(nn.Linear):
    """A Linear with its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


RELU = nn.ReLU()


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
        nn.Sequential(nn.Linear(8, 8), nn.Flatten(), nn.Linear(8, 3)),
        nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)),
        nn.Sequential(nn.Flatten(2), nn.Linear(8, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(6, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.Linear(36, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(8, 8), RELU, nn.Linear(8, 8), RELU, nn.Linear(8, 3)),
        nn.Sequential(nn.Flatten(), Doubled(8, 3)),
        Skip(nn.Flatten(), nn.Linear(8, 8)),
    ],
)
def test_other_modules_are_no_chains_and_train_whole(module: nn.Sequential) -> None:
    assert not is_chain(module)
    with pytest.raises(TypeError):
        shrink(module)


def test_networks_of_flat_or_convolved_inputs_are_chains() -> None:
    assert is_chain(nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)))
    assert is_chain(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)))
