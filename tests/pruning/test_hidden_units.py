"""Hidden units of any network: which are found, which are kept, and that removed ones change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dcformat_pruning import Goal, Settings, compress, from_module
from dcformat_pruning.compression.hidden_units import UnitGroup, best_units, unit_groups, zero_unread
from dcformat_pruning.masks import Masks, PruningError
from dcformat_runtime import Session
from dcformat_runtime.c_export.unread_units import without_unread_units
from torch import Tensor, nn
from torch.nn import functional

from dcformat.dense import from_dense
from dcformat.records import replace
from tests.pruning.test_compression import images

pytestmark = pytest.mark.needs_compiler


class Branched(nn.Module):
    """A chain of convolutions with a norm, a residual branch, and a layer that two others read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.branch = nn.Conv2d(6, 6, 1)
        self.hidden = nn.Linear(6 * 16, 5)
        self.left = nn.Linear(5, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.norm(self.first(x))), 2)
        x = self.second(x)
        x = torch.flatten(torch.relu(x + self.branch(x)), 1)
        x = functional.silu(self.hidden(x))
        return self.left(x) + self.right(x)


def branched() -> Branched:
    torch.manual_seed(0)
    return Branched().eval()


def test_units_are_followed_through_norms_pools_and_activations() -> None:
    module = branched()
    assert unit_groups(from_module(module, (1, 8, 8), verbose=False), module) == [
        UnitGroup("first.weight", "first.bias", ("second.weight",)),
        UnitGroup("hidden.weight", "hidden.bias", ("left.weight", "right.weight")),
    ]


def test_the_middle_of_a_transformer_has_units_and_attention_and_sums_have_none() -> None:
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True).eval()
    model = from_module(module, torch.zeros(1, 5, 8), verbose=False)
    assert unit_groups(model, module) == [UnitGroup("linear1.weight", "linear1.bias", ("linear2.weight",))]


def test_units_of_sequences_that_are_flattened_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(30, 2)).eval()
    assert unit_groups(from_module(module, torch.zeros(1, 5, 4), verbose=False), module) == []


def test_a_smaller_network_equals_the_masked_one() -> None:
    module = branched()
    groups = unit_groups(from_module(module, (1, 8, 8), verbose=False), module)
    masks = best_units(module, groups, 0.5)
    assert [int(masks[n].flatten(1).any(1).sum()) for n in ("first.weight", "hidden.weight")] == [2, 2]
    assert [int(masks[n].transpose(0, 1).flatten(1).any(1).sum()) for n in ("second.weight", "left.weight")] == [2, 2]
    assert bool(masks["branch.weight"].all())
    Masks(module, masks).apply()
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(x).numpy()
    zero_unread(module, groups)
    assert int((module.hidden.bias == 0).sum()) == 3
    model = from_module(module, (1, 8, 8), verbose=False)
    assert model.graph is not None
    shapes = model.graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    dense = {name: tensor.to_dense() for name, tensor in model.tensors.items()}
    small = without_unread_units(model.graph, shapes, dense)
    assert {name: small[name].shape for name in ("first.weight", "second.weight", "hidden.weight", "left.weight")} == {
        "first.weight": (2, 1, 3, 3),
        "second.weight": (6, 2, 3, 3),
        "hidden.weight": (2, 96),
        "left.weight": (3, 2),
    }
    tensors = {name: from_dense(name, np.ascontiguousarray(value)) for name, value in small.items()}
    found = np.asarray(Session.from_model(replace(model, tensors=tensors))(x.numpy()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_best_units_have_the_largest_norms_in_and_out() -> None:
    first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    module = nn.Sequential(first, nn.ReLU(), second)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 6.0]]))
        second.weight.copy_(torch.tensor([[1.0, 9.0, 0.5]]))
    groups = [UnitGroup("0.weight", "0.bias", ("2.weight",))]
    masks = best_units(module, groups, 0.6)
    assert masks["0.weight"].tolist() == [[True, True], [True, True], [False, False]]
    assert masks["2.weight"].tolist() == [[True, True, False]]
    assert int(best_units(module, groups, 0.01)["2.weight"].sum()) == 1


def compressed(module: nn.Module, density: float, **settings: Any) -> Any:
    chosen = Settings(epochs=3, dense_epochs=3, trials=1, batch=32, lr=1e-2, clusters=8, **settings)
    return compress(module, train=images(128), validate=images(64, 1), goal=Goal(density=density), settings=chosen)


@pytest.mark.slow
def test_half_of_the_units_are_pruned_first_and_stay_pruned() -> None:
    module = branched()
    compressed(module, 0.3, units=0.5)
    assert int(module.first.weight.flatten(1).any(1).sum()) <= 2
    assert int(module.second.weight.transpose(0, 1).flatten(1).any(1).sum()) <= 2
    unread = ~(torch.cat([module.left.weight, module.right.weight]) != 0).any(0)
    assert int(unread.sum()) >= 3
    assert not module.hidden.weight[unread].any() and not module.hidden.bias[unread].any()


def test_a_density_that_the_units_leave_no_room_for() -> None:
    message = "^density: expected at most 0.46, as the units that are kept have 366 of 798 weights, found 0.7$"
    with pytest.raises(PruningError, match=message):
        compressed(branched(), 0.7, units=0.5)
    with pytest.raises(PruningError, match=r"^units: expected above 0 and at most 1, found 0$"):
        Settings(units=0)
