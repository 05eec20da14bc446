"""Unusual modules: an export computes the same as the module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dcformat_pruning import from_module
from dcformat_pruning.export.folding import fold_batch_norm
from dcformat_pruning.masks import PruningError
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from dcformat import graph as ops
from dcformat.dense import negative_zeros
from tests.pruning.exporting import Forward, Net, check, conv, fc, graph_of, kinds_of, run, with_statistics
from tests.pruning.support import gradient

#: Exporting a module with PyTorch takes about a second.
pytestmark = pytest.mark.slow


def channels_last(module: nn.Conv2d) -> nn.Conv2d:
    module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
    return module


def kinds(module: nn.Module, *shape: int) -> list[str]:
    return kinds_of(check(with_statistics(module), *shape))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# Weights that are computed


def test_weight_norm_of_the_old_style_after_load_state_dict() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)))
    state = {"0.bias": torch.zeros(3), "0.weight_g": torch.full((3, 1), 5.0), "0.weight_v": torch.randn(3, 4)}
    module.load_state_dict(state)
    model = from_module(module, (4,))
    expected = 5 * state["0.weight_v"] / state["0.weight_v"].norm(dim=1, keepdim=True)
    torch.testing.assert_close(torch.tensor(model.tensors["0.weight"].to_dense()), expected)
    assert set(model.tensors) == {"0.weight", "0.bias"}
    assert set(module.state_dict()) == set(state) and module[0]._forward_pre_hooks


def test_spectral_norm_of_the_old_style_after_load_state_dict() -> None:
    module = nn.Sequential(nn.utils.spectral_norm(conv()), nn.BatchNorm2d(3))
    state = {n: torch.rand_like(v) + 0.5 if v.is_floating_point() else v for n, v in module.state_dict().items()}
    module.load_state_dict(state)
    model = from_module(module, (2, 5, 5))
    assert kinds_of(model) == ["conv"]
    x = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(run(model, x), module.eval()(x).detach(), rtol=1e-4, atol=1e-5)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@pytest.mark.parametrize(
    "parametrise", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_parametrisations_of_the_new_style(parametrise: Callable[[nn.Module], nn.Module]) -> None:
    module = nn.Sequential(parametrise(fc()), nn.BatchNorm1d(4))
    assert kinds(module, 4) == ["linear"]
    custom = nn.Sequential(fc(), nn.ReLU())
    parametrize.register_parametrization(custom[0], "weight", Doubled(), unsafe=True)
    model = check(custom, 4)
    expected = 2 * custom.get_parameter("0.parametrizations.weight.original").detach()
    assert torch.equal(torch.tensor(model.tensors["0.weight"].to_dense()), expected)


class Adapted(nn.Linear):
    """A low-rank update of a layer."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.down, self.up = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + functional.linear(functional.linear(x, self.down), self.up)


class Merged(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight + self.up @ self.down, self.bias)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Renamed(nn.Linear):
    """A subclass with the same forward pass."""


def test_subclasses_compute_their_own_forward_pass() -> None:
    assert kinds(nn.Sequential(Adapted()), 4) == ["linear", "linear", "linear", "add"]
    assert kinds(nn.Sequential(Merged(), nn.ReLU()), 4) == ["linear", "relu"]
    assert kinds(nn.Sequential(Standardised(2, 3, 3)), 2, 5, 5) == ["conv"]
    assert kinds(nn.Sequential(Renamed(4, 3), nn.BatchNorm1d(3)), 4) == ["linear"]


# Layers that share


def test_a_norm_is_not_folded_into_weights_that_layers_share() -> None:
    first, second = fc(), fc()
    second.weight = first.weight
    module = with_statistics(nn.Sequential(first, nn.BatchNorm1d(4), nn.ReLU(), second))
    model = check(module, 4)
    assert kinds_of(model) == ["linear", "binary", "add", "relu", "linear"]
    assert [node.weight for node in graph_of(model).nodes if isinstance(node, ops.Linear)] == ["0.weight"] * 2


def test_folding_in_place_leaves_the_other_layer_its_weight() -> None:
    for share in (lambda weight: weight, lambda weight: nn.Parameter(weight.data)):
        first, second = fc(), fc()
        second.weight = share(first.weight)
        module = with_statistics(nn.Sequential(first, nn.BatchNorm1d(4), nn.ReLU(), second)).eval()
        x, kept = torch.randn(3, 4), second.weight.detach().clone()
        before = module(x)
        assert fold_batch_norm(module) == ["1"]
        torch.testing.assert_close(module(x), before)
        assert torch.equal(second.weight, kept)


def test_a_layer_called_twice_keeps_its_weight_and_each_call_its_norm() -> None:
    layer = fc()
    module = nn.Sequential(layer, nn.BatchNorm1d(4), nn.ReLU(), layer, nn.BatchNorm1d(4))
    model = check(with_statistics(module), 4)
    assert [node.weight for node in graph_of(model).nodes if isinstance(node, ops.Linear)] == ["0.weight"] * 2


def test_a_norm_with_two_names_is_folded_once() -> None:
    norm = nn.BatchNorm2d(3)
    module = with_statistics(Net(lambda s, x: s.layers(x), norm=norm, layers=nn.Sequential(conv(), norm)))
    assert kinds(module, 2, 5, 5) == ["conv"]
    x = torch.randn(2, 2, 5, 5)
    before = module(x)
    assert fold_batch_norm(module) == ["norm"]
    torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-5)


# Values that share memory


def added_to_alias(s: Any, x: Tensor) -> Tensor:
    y = s.fc(x)
    z = y
    z += x
    return torch.relu(y)


def relu_of_a_copy(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    z = s.pool(y)
    functional.relu(z, True)
    return y + z


def relu_of_the_input(s: Any, x: Tensor) -> Tensor:
    functional.relu(input=x, inplace=True)
    return s.fc(x) + x


def relu_of_a_view(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    flat = y.flatten(1)
    flat.relu_()
    return y.flatten(1) + flat


def slice_set(s: Any, x: Tensor) -> Tensor:
    y = s.fc(x)
    y[:, 1:3] = 0
    y[:, 0] *= 2
    return y


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (Net(added_to_alias, fc=fc()), (4,), ["linear", "add", "relu"]),
        (
            Net(relu_of_a_copy, conv=nn.Conv2d(2, 3, 3, padding=1), pool=nn.AdaptiveAvgPool2d((5, 5))),
            (2, 5, 5),
            ["conv", "relu", "add"],
        ),
        (Net(relu_of_a_view, conv=conv()), (2, 5, 5), ["conv", "flatten", "relu", "add"]),
        (Net(slice_set, fc=fc()), (4,), None),
    ],
)
def test_operations_in_place(module: nn.Module, shape: tuple[int, ...], expected: list[str] | None) -> None:
    assert expected in (kinds(module, *shape), None)


def test_an_input_changed_in_place() -> None:
    module = Net(relu_of_the_input, fc=fc()).eval()
    x = torch.randn(3, 4)
    torch.testing.assert_close(run(from_module(module, (4,)), x), module(x.clone()).detach())


# Exact forms


def same(channels: int, out: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, out, (3, 5), padding="same", **more)


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (
            nn.Sequential(
                nn.Conv2d(4, 4, 3, 1, 1, 1, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(True), nn.Conv2d(4, 8, 2, 2),
                nn.SyncBatchNorm(8), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 3, 1), nn.MaxPool2d(1), nn.Softmax(1),
            ),
            (4, 6, 6),
            "conv relu conv reduce conv softmax",
        ),
        (nn.Sequential(fc(), nn.ReLU(), *[nn.BatchNorm1d(4)] * 2), (4,), "linear relu binary add binary add"),
        (
            nn.Sequential(
                nn.DataParallel(same(2, 3, dilation=(2, 1))), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
                nn.AvgPool2d((2, 3), 2, (1, 1), True), nn.Identity(), nn.Flatten(1, 3), nn.AlphaDropout(),
            ),
            (2, 7, 8),
            "conv max_pool avg_pool flatten",
        ),
        (nn.Sequential(nn.AvgPool2d(5), nn.Flatten(-3), nn.Linear(2, 3)), (2, 5, 5), "reduce linear"),
        (nn.Sequential(nn.MaxPool2d((5, 4)), nn.Flatten()), (2, 5, 4), "reduce"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Softmax(1)), (4, 3), "linear relu softmax"),
        (nn.Sequential(channels_last(conv()), nn.ReLU(), nn.Flatten()), (2, 5, 5), "conv relu flatten"),
    ],
)  # fmt: skip
def test_layers(module: nn.Module, shape: tuple[int, ...], expected: str) -> None:
    assert kinds(module, *shape) == expected.split()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda s, x: functional.linear(s.fc(x.view((x.size(0), -1))), s.fc.weight.t()), "flatten linear linear"),
        (lambda s, x: s.one(x.mean((2, 3), keepdim=True)).view(-1, 3), "reduce conv flatten"),
        (lambda s, x: torch.cat(tensors=(s.one(x), x, s.same(input=x)), dim=-3), "conv conv concat"),
        (lambda s, x: sum([s.one(x), s.same(x), s.one(x)]), "conv conv add add"),
        (lambda s, x: functional.conv2d(x, weight=s.same.weight, stride=2, bias=s.same.bias), "conv"),
    ],
)
def test_functions(how: Forward, expected: str) -> None:
    parts = {"one": nn.Conv2d(2, 3, 1), "same": nn.Conv2d(2, 3, 3, padding=1), "fc": nn.Linear(50, 4)}
    assert kinds(Net(how, **parts), 2, 5, 5) == expected.split()


def test_arguments_behind_the_first_have_their_defaults() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = fc()

        def forward(
            self, x: Tensor, mask: Tensor | None = None, *more: Tensor, scale: int = 1, **rest: Tensor
        ) -> Tensor:
            y = self.fc(x)
            return y if mask is None and scale == 1 else y * mask

    assert kinds(Optional(), 4) == ["linear"]


# Tensors of other kinds


def double(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return 2 * output


def test_hooks_are_part_of_the_forward_pass() -> None:
    module = nn.Sequential(fc())
    with torch.no_grad():
        module[0].register_forward_hook(double)
        module.register_forward_pre_hook(lambda m, x: (x[0] + 1,))
        module.register_full_backward_hook(lambda *_: None)
    model = check(module, 4)
    doubled = torch.tensor(model.tensors["0.weight"].to_dense())
    assert torch.equal(doubled, 2 * module.get_parameter("0.weight").detach())
    assert len(module[0]._forward_hooks) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_that_float32_holds(dtype: torch.dtype) -> None:
    module = nn.Sequential(fc()).to(dtype)
    model = from_module(module, (4,))
    assert torch.equal(
        torch.tensor(model.tensors["0.weight"].to_dense()), module.get_parameter("0.weight").detach().float()
    )
    assert module[0].weight.dtype == dtype


def test_negative_bits_and_strides_of_zero() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    module[0].weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64).conj().imag)
    assert module[0].weight.is_neg()
    assert kinds(module, 4) == ["linear"]
    module[0].weight = nn.Parameter(torch.randn(1, 1).expand(3, 4))
    assert kinds(module, 4) == ["linear"]


def test_initialised_lazy_modules() -> None:
    module = nn.Sequential(nn.LazyLinear(3))
    module(torch.randn(2, 4))
    assert kinds(module, 4) == ["linear"]


def test_pruned_weights_are_zero_even_where_they_are_not_finite() -> None:
    for dtype in (torch.bool, torch.int64, torch.bfloat16):
        module = nn.Sequential(nn.Linear(3, 2))
        prune.custom_from_mask(module[0], "weight", torch.tensor([[1, 0, 1], [0, 0, 1]]).to(dtype))
        with torch.no_grad():
            module.get_parameter("0.weight_orig")[module[0].weight_mask == 0] = float("inf")
        weight = from_module(module, (3,)).tensors["0.weight"]
        assert weight.nnz == 3 and (weight.to_dense() != 0).tolist() == [[True, False, True], [False, False, True]]
    prune.custom_from_mask(fresh := nn.Linear(3, 2), "weight", torch.full((2, 3), 0.5))
    with pytest.raises(PruningError, match=r"weight: expected a mask of zeros and ones, found 0\.5 in it"):
        from_module(fresh, (3,))


def test_negative_zeros_become_positive_unless_exact() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        module.get_parameter("0.weight").copy_(torch.tensor([[-0.0, 1.0], [0.0, -0.0]]))
    assert negative_zeros(module.get_parameter("0.weight").detach().numpy()) == 2
    plain, exact = from_module(module, (2,)), from_module(module, (2,), exact=True)
    assert plain.tensors["0.weight"].nnz == 1 and exact.tensors["0.weight"].nnz == 3
    assert torch.signbit(torch.tensor(exact.tensors["0.weight"].to_dense())).tolist() == [[True, False], [False, True]]


# Modules that do not change


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # raised by imports of torch.compile
def test_wrappers_are_unwrapped() -> None:
    inner = nn.Sequential(fc())
    parallel = nn.DataParallel(inner)
    for wrapper in (parallel, torch.compile(inner), torch.compile(parallel)):
        assert isinstance(wrapper, nn.Module)
        assert list(from_module(wrapper, (4,)).tensors) == ["0.weight", "0.bias"]


def test_the_module_and_the_random_state_stay_as_they_were() -> None:
    module = with_statistics(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.ReLU(True))).train()
    module[3].eval()
    module.get_parameter("0.weight").grad = torch.ones(3, 4)
    prune.l1_unstructured(module[0], "bias", 1)
    before, hooks = copy.deepcopy(module.state_dict()), dict(module[0]._forward_pre_hooks)
    objects = dict(module.named_parameters())
    noisy = Net(lambda s, x: (torch.rand(1), s.fc(x))[1], fc=fc())
    state = torch.get_rng_state()
    from_module(module, (4,))
    from_module(noisy, (4,))
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in module] == [True, True, True, False] and module.training
    assert all(torch.equal(before[n], v) for n, v in module.state_dict().items())
    assert all(objects[n] is p for n, p in module.named_parameters())
    assert dict(module[0]._forward_pre_hooks) == hooks
    assert torch.equal(gradient(module, "0.weight"), torch.ones(3, 4))


@pytest.mark.parametrize(
    "context", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_surroundings_do_not_matter(context: Callable[[], Any]) -> None:
    module = with_statistics(nn.Sequential(fc(), nn.BatchNorm1d(4), nn.ReLU()))
    with context():
        model = from_module(module, (4,))
    x = torch.randn(3, 4)
    torch.testing.assert_close(run(model, x), module.eval()(x).detach(), rtol=1e-4, atol=1e-5)
