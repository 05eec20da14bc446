"""A module and its exported graph compute the same; errors name the parts that have no operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from dcformat_pruning import from_module
from dcformat_pruning.networks import build
from dcformat_pruning.tracing import UnsupportedModuleError
from torch import nn
from torch.nn import functional

from dcformat import graph as ops
from dcformat.errors import FormatError
from dcformat.graph import Preprocessing
from tests.pruning.exporting import check, graph_of, kinds_of, with_statistics


class Block(nn.Module):
    """The basic block of a ResNet, with operations in place."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = None
        if stride != 1 or channels != out:
            self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(Block(8, 8, 1), Block(8, 12, 2))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.maxpool(functional.relu(self.bn1(self.conv1(x)), inplace=True)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Fire(nn.Module):
    """A forward pass of functions: concatenation, methods, pooling, and a reshape by the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(2, 3, 1)
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding="same", dilation=2)
        self.fc = nn.Linear(8 * 4 * 4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x).relu()
        x = torch.cat([torch.relu(self.left(x)), functional.relu(self.right(x))], dim=1)
        x = functional.avg_pool2d(x, 3, stride=2, padding=1)
        x = functional.dropout(x, training=self.training)
        return self.fc(x.view(x.shape[0], -1)).softmax(-1)


def test_lenets_have_the_graph_of_their_architecture() -> None:
    assert kinds_of(check(build("lenet-300-100"), 1, 28, 28)) == ["flatten", *["linear", "relu"] * 2, "linear"]
    model = check(build("lenet-5"), 1, 28, 28)
    assert list(model.tensors)[:2] == ["conv1.weight", "conv1.bias"]


def test_vgg_with_batch_norm_dropout_and_pooling_to_the_same_size() -> None:
    def block(channels: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]

    features = [*block(3, 8), nn.MaxPool2d(2, 2), *block(8, 12), *block(12, 12), nn.MaxPool2d(2, 2)]
    head = nn.Sequential(nn.Linear(12 * 4 * 4, 10), nn.ReLU(True), nn.Dropout(), nn.Linear(10, 4))
    vgg = nn.Sequential(nn.Sequential(*features), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), head)
    model = check(with_statistics(vgg), 3, 16, 16)
    assert kinds_of(model).count("conv") == 3
    assert not any("running" in name for name in model.tensors)


def test_resnet_with_in_place_operations() -> None:
    model = check(with_statistics(ResNet()), 3, 32, 32)
    kinds = kinds_of(model)
    assert kinds.count("add") == 2 and kinds.count("reduce") == 1 and kinds.count("conv") == 6


def test_functions_methods_and_string_padding() -> None:
    check(Fire(), 2, 8, 8)


def test_batch_norm_that_follows_no_layer_becomes_a_convolution() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(3))
    model = check(with_statistics(module), 2, 6, 6)
    assert [n.groups for n in graph_of(model).nodes if isinstance(n, ops.Conv)] == [2, 1, 3]


def test_batch_norm_behind_a_linear_layer_and_grouped_convolutions() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5, bias=False),
        nn.BatchNorm1d(5),
    )
    check(with_statistics(module), 4, 7, 6)


def test_pooling_with_ceil_mode_and_padding_not_counted() -> None:
    check(nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, 1, True, False)), 2, 10, 10)
    check(nn.Sequential(nn.AdaptiveAvgPool2d((2, 4))), 2, 6, 8)


def test_in_place_relu_changes_later_reads() -> None:
    class Preactivated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.fc(x)
            y = self.fc(functional.relu(x, inplace=True))
            return x + y

    check(Preactivated(), 4)


def test_pruned_and_masked_weights_are_stored_sparse() -> None:
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.utils.prune.l1_unstructured(module[0], "weight", amount=40)
    model = check(module, 8)
    assert model.tensors["0.weight"].is_sparse and model.tensors["0.weight"].nnz == 8


def test_preprocessing_labels_and_metadata_go_along() -> None:
    preprocessing = Preprocessing((0.5,), (0.25,))
    module = nn.Sequential(nn.Linear(2, 2))
    model = from_module(module, [2], preprocessing=preprocessing, labels=["a", "b"], metadata={"k": "v"})
    assert graph_of(model).preprocessing == preprocessing
    assert model.labels == ("a", "b") and model.metadata == {"k": "v"}
    assert graph_of(model).input_shape == (2,)
    np.testing.assert_array_equal(model.tensors["0.weight"].shape, (2, 2))


class Odd(nn.Module):
    def __init__(self, how: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.how, self.fc = how, nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> object:
        return self.how(self.fc(x))


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn.GELU(), (4,), r"^0 \(GELU\): expected a supported layer \(Linear, .*\), found GELU; replace it, or"),
        (nn.Conv2d(1, 1, 3, padding_mode="reflect", padding=1), (1, 4, 4), "padding with zeros, found 'reflect'"),
        (nn.Conv2d(1, 1, 2, padding="same"), (1, 4, 4), r"^0 \(Conv2d\): expected the same padding on both sides"),
        (nn.MaxPool2d(2, dilation=2), (1, 8, 8), r"^0 \(MaxPool2d\): expected max pooling without dilation"),
        (nn.AvgPool2d(2, divisor_override=3), (1, 8, 8), r"^0 \(AvgPool2d\): expected average pooling by"),
        (nn.AdaptiveAvgPool2d(3), (1, 8, 8), r"^0 \(.*\): expected an output size that divides \(8, 8\)"),
        (nn.Flatten(0), (4,), r"^0 \(Flatten\): expected all dimensions but the batch"),
        (nn.Softmax(0), (4,), r"^0 \(Softmax\): expected softmax over another dimension than the batch"),
        (Odd(torch.sigmoid), (4,), r"Odd\), sigmoid: expected a supported function \(.*\), found sigmoid; replace it"),
        (Odd(lambda x: x.view(2, 2)), (4,), r"view: expected a reshape to \(batch, 4\), found"),
        (Odd(lambda x: x.view(-1, 2)), (4,), "view: expected a reshape"),
        (Odd(lambda x: torch.cat([x, x], 0)), (4,), "cat: expected values joined along the channels"),
        (Odd(lambda x: x + 1), (4,), "add: expected a sum of two results"),
        (Odd(lambda x: torch.add(x, x, alpha=2)), (4,), "add: expected a sum of two results"),
        (Odd(lambda x: x.mean(1)), (4,), r"mean: expected an image \(channels, height, width\), found \(4,\)"),
        (Odd(lambda x: functional.dropout(x)), (4,), "dropout: expected dropout that is off"),
        (Odd(lambda x: (x, x)), (4,), "output: expected one tensor as result, found tuple"),
    ],
)
def test_parts_without_an_operator_are_named(module: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UnsupportedModuleError, match=message):
        from_module(module if isinstance(module, Odd) else nn.Sequential(module), shape)


def test_bare_parameters_and_two_inputs_are_named() -> None:
    class Scaled(Odd):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) + self.scale

    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(UnsupportedModuleError, match=r"Scaled\), add: expected a sum of two results of layers"):
        from_module(Scaled(abs), (4,))
    with pytest.raises(
        UnsupportedModuleError, match=r"Two\), y: expected one input, found another: y; give it a default"
    ):
        from_module(Two(), (4,))


def test_unused_results_are_left_out() -> None:
    class Aside(Odd):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            self.fc(torch.relu(y))
            return y

    assert kinds_of(check(Aside(abs), 4)) == ["linear"]


def test_shapes_that_do_not_fit_are_named() -> None:
    fit = r"^0 \(Linear\): expected inputs that the graph's operator takes, found invalid: .*E09.*; fit input_shape"
    with pytest.raises(UnsupportedModuleError, match=fit):
        from_module(nn.Sequential(nn.Linear(4, 2)), (5,))
    with pytest.raises(FormatError, match="input shape"):
        from_module(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), (1,) * 8)
