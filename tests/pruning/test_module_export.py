"""A module and its exported graph compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dcformat_pruning import from_module
from dcformat_pruning.lenets import build
from dcformat_pruning.tracing import UnsupportedModuleError
from dcformat_runtime import Session
from torch import nn
from torch.nn import functional

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


@pytest.mark.slow
def test_vgg_with_batch_norm_dropout_and_pooling_to_the_same_size() -> None:
    def block(channels: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]

    features = [*block(3, 8), nn.MaxPool2d(2, 2), *block(8, 12), *block(12, 12), nn.MaxPool2d(2, 2)]
    head = nn.Sequential(nn.Linear(12 * 4 * 4, 10), nn.ReLU(True), nn.Dropout(), nn.Linear(10, 4))
    vgg = nn.Sequential(nn.Sequential(*features), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), head)
    model = check(with_statistics(vgg), 3, 16, 16)
    assert kinds_of(model).count("conv") == 3
    assert not any("running" in name for name in model.tensors)


@pytest.mark.slow
def test_resnet_with_in_place_operations() -> None:
    model = check(with_statistics(ResNet()), 3, 32, 32)
    kinds = kinds_of(model)
    assert kinds.count("add") == 2 and kinds.count("reduce") == 1 and kinds.count("conv") == 6


def test_functions_methods_and_string_padding() -> None:
    check(Fire(), 2, 8, 8)


def test_batch_norm_that_follows_no_layer_stays() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(3))
    assert kinds_of(check(with_statistics(module), 2, 6, 6)) == ["binary", "add", "conv", "relu", "binary", "add"]


def test_batch_norm_behind_a_linear_layer_and_grouped_convolutions() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5, bias=False),
        nn.BatchNorm1d(5),
    )
    check(with_statistics(module), 4, 7, 6)


@pytest.mark.slow
def test_pooling_with_ceil_mode_and_padding_not_counted() -> None:
    check(nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, 1, True, False)), 2, 10, 10)
    check(nn.Sequential(nn.AdaptiveAvgPool2d((2, 4))), 2, 6, 8)


@pytest.mark.slow
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


class Recurrent(nn.Module):
    """Tokens, a state with the batch in its second dimension, and a table without one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(
        self, tokens: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor], table: torch.Tensor
    ) -> dict[str, object]:
        y, state = self.lstm(self.embedding(tokens), state)
        return {"logits": y @ table, "state": state, "best": y.argmax(-1)}


def test_several_inputs_and_outputs_by_name() -> None:
    module = Recurrent().eval()
    state = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    tokens, table = torch.randint(7, (2, 5)), torch.randn(4, 6)
    example = {"tokens": tokens, "state": state, "table": table}
    model = from_module(module, example, batch_axis={"state": 1, "table": None})
    session = Session.from_model(model, backend="numpy")
    assert session.inputs == (
        ("tokens", (None, 5), "int64"), ("state_0", (1, None, 4), "float32"), ("state_1", (1, None, 4), "float32"),
        ("table", (4, 6), "float32"),
    )  # fmt: skip
    assert session.outputs == (
        ("logits", (None, 5, 6), "float32"), ("state.0", (1, None, 4), "float32"), ("state.1", (1, None, 4), "float32"),
        ("best", (None, 5), "int64"),
    )  # fmt: skip
    given = {"tokens": tokens, "state_0": state[0], "state_1": state[1], "table": table}
    found = session({name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        expected = module(**example)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["state.1"], expected["state"][1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["best"], expected["best"])
    assert set(model.tensors) >= {"embedding.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"}


def test_a_network_for_single_inputs() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Softmax(0))
    model = from_module(module, torch.zeros(1, 4), batch_axis=None)
    assert graph_of(model).inputs[0].shape == (4,) and kinds_of(model)[0] == "linear"


def test_tied_weights_have_one_tensor_and_equal_ones_keep_their_names() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    for name in ("2.bias", "3.bias"):
        nn.init.zeros_(module.get_parameter(name))
    model = check(module, 4)
    assert list(model.tensors) == ["0.weight", "0.bias", "2.bias", "3.weight", "3.bias"]


@pytest.mark.slow
def test_an_attention_layer_keeps_its_names() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = check(layer, 5, 8)
    assert set(model.tensors) >= {
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.bias",
    }
    assert "self_attn.in_proj_bias" in model.tensors


def test_parts_of_a_value() -> None:
    class Shuffle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, 1)
            c, d, e = torch.split(b, 2, dim=-1)
            return torch.cat((a[..., :2] * c, d - a[..., 2:4], e.expand(-1, -1, 2), *b.split([1, 4], 2)), 2)

    assert set(kinds_of(check(Shuffle(), 4, 5))) == {"slice", "binary", "tile", "concat"}


def test_the_largest_difference_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from_module(nn.Linear(4, 2), (4,))
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"Linear: checked against torch {torch.__version__} with batches of 1 and 3: largest diff"
    )
    from_module(nn.Linear(4, 2), (4,), verbose=False)
    assert not capsys.readouterr().out


def test_unused_results_are_left_out() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            self.fc(torch.relu(y))
            return y

    assert kinds_of(check(Aside(), 4)) == ["linear"]


@pytest.mark.slow
def test_inputs_of_too_many_dimensions() -> None:
    with pytest.raises(UnsupportedModuleError, match="input shape: expected at most 7 dimensions"):
        from_module(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), (1,) * 8)
