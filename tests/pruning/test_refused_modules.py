"""Modules that a graph cannot express are refused; errors name the part and the remedy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dcformat_pruning import from_module
from dcformat_pruning.tracing import UnsupportedModuleError
from torch import Tensor, nn
from torch.ao.nn import qat
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn import functional

from tests.pruning.exporting import Forward, Net, fc

#: Exporting a module with PyTorch takes about a second.
pytestmark = pytest.mark.slow

#: The advice of each message about a batch of one size.
ONE = "take the batch's size from x.shape\\[0\\]; for single inputs give batch_axis=None and an example of one"


def behind_dropout(s: Any, x: Tensor) -> Tensor:
    """Change in place what PyTorch's dropout returns unchanged in eval mode."""
    y = s.fc(x)
    functional.relu_(s.drop(y))
    return y


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda s, x: s.part(x), r"^part \(.*Net\): expected .* branches, .* not depend on values, .*torch.where"),
        (lambda s, x: torch.cat([x, torch.ones(3, 4)], 1), f"expected a forward pass for a batch of any size.*; {ONE}"),
        (lambda s, x: x.view(x.size(1), -1), f"expected a forward pass for a batch of any size.*; {ONE}"),
        (lambda s, x: x.view(-1, 2), "'output': expected a dimension that grows with the batch .*batch_axis=None"),
        (lambda s, x: functional.softmax(s.fc(x), 0), "a batch of 3 depend on each other\\? give batch_axis=None"),
        (lambda s, x: s.drop.train()(s.fc(x)), r"Dropout in training mode \(node 'drop'\): replace it in the forward"),
        (lambda s, x: s.fc(x) + torch.randn(4), "RandomNormalLike .*: give the random numbers as an input"),
        (
            lambda s, x: (torch.linalg.svdvals(s.fc(x).view(-1, 2, 2)), torch.special.bessel_j0(x), s.drop.train()(x)),
            r"^Net: 3 operators cannot be imported: .*svd \(.*bessel_j0 \(.*Dropout in training mode \(node 'drop'\)",
        ),
        (lambda s, x: torch.fft.fft(s.fc(x)), "expected real numbers .*, found torch.complex64 .*view_as_real"),
        (behind_dropout, "'output': expected at most 0.0001 .*found .*export has lost something of the program"),
        (lambda s, x: s.fc(x).missing(), r"^the module \(.*Net\): .* found .* no attribute 'missing'; fit the inputs"),
    ],
)  # fmt: skip
def test_modules_that_a_graph_cannot_express_are_refused(how: Forward, message: str) -> None:
    branching = Net(lambda s, x: x if x.sum() > 0 else -x)
    with pytest.raises(UnsupportedModuleError, match=message):
        from_module(Net(how, fc=fc(), drop=nn.Dropout(), part=branching), (4,))


def test_a_forward_pass_with_a_state_is_refused() -> None:
    class Alternating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.even, self.odd = 0, fc(), fc()

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.odd(x) if self.calls % 2 else self.even(x)

    with pytest.raises(UnsupportedModuleError, match=r"^Alternating: output 'output': expected at"):
        from_module(Alternating(), (4,))


def inexact() -> nn.Module:
    module = fc().double()
    nn.init.constant_(module.weight, 0.1)
    return module


def sparse(layout: torch.layout) -> nn.Module:
    module = nn.Sequential(fc())
    dense = module.get_parameter("0.weight").detach()
    module[0].weight = nn.Parameter(dense.to_sparse() if layout == torch.sparse_coo else dense.to_sparse_csr())
    return module


def filled(value: float) -> nn.Module:
    module = nn.Sequential(fc())
    nn.init.constant_(module.get_parameter("0.weight"), value)
    return module


class Locked(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(fc())
        self.lock = threading.Lock()


@pytest.mark.filterwarnings("ignore")  # PyTorch warns that it will remove features that this test uses
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LazyLinear(3), r"0 \(LazyLinear\), weight: expected initialised parameters, found lazy ones; call"),
        (lambda: nn.Linear(4, 4, device="meta"), r"0 \(Linear\), weight: expected values, found .* meta device; load"),
        (
            lambda: nn.Linear(4, 4, dtype=torch.complex64),
            r"0 \(Linear\), weight: expected real values, found torch.comp",
        ),
        (lambda: sparse(torch.sparse_coo), r"0.0 \(Linear\), weight: expected a dense tensor, found torch.sparse_coo"),
        (lambda: sparse(torch.sparse_csr), r"0.0 \(Linear\), weight: expected a dense tensor, found torch.sparse_csr"),
        (lambda: inexact(), r"weight: .* float32 holds"),
        (
            lambda: torch.jit.script(fc()),
            r"0 \(torch.jit.*\): expected a module in Python, found TorchScript; pass the",
        ),
        (lambda: torch.jit.trace(fc(), torch.ones(1, 4)), "found TorchScript; pass the module that it was compiled"),
        (
            lambda: qat.Linear(4, 4, qconfig=get_default_qat_qconfig("fbgemm")),
            r"1 operator cannot be imported: aten._fused_moving_avg_obs.* \(node '0.weight_fake_quant'\): replace it",
        ),
        (lambda: nn.MultiheadAttention(4, 2), r"0 \(MultiheadAttention\): .* missing 2 required positional arguments"),
        (lambda: nn.Linear(5, 2), r"^0 \(Linear\): .* found .* must have same reduction dim.*; fit the inputs to it"),
        (lambda: filled(float("nan")), r"'0.0' .*: .* tensor '0.0.weight': expected finite values, found NaN or infin"),
        (Locked, "expected a module that copy.deepcopy can copy, found .*lock.*; keep what cannot be copied"),
    ],
)
def test_modules_and_tensors_that_cannot_be_exported_are_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedModuleError, match=message):
        from_module(nn.Sequential(make()), (4,))


def test_inputs_that_do_not_fit_are_named() -> None:
    module = Net(lambda s, x: s.fc(x), fc=fc())
    for inputs, batch_axis, message in (
        (fc().state_dict(), 0, "expected inputs that the forward pass takes, found missing a required argument: 'x'"),
        ((torch.ones(2, 4), torch.ones(2, 4)), 0, "found too many positional arguments; give an example for each"),
        (torch.ones(2, 4), 2, r"Net\), x: expected a batch in dimension 2, found an example of shape \(2, 4\)"),
        (torch.ones(0, 4), 0, r"Net\), x: expected a batch in dimension 0, found an example of shape \(0, 4\)"),
        (torch.ones(2, 4), {"y": 0}, r"expected a batch axis for one of its inputs \(x\), found 'y'"),
        (torch.ones(2, 4, dtype=torch.complex64), 0, r"Net\), x: expected real numbers, found torch.complex64; give"),
    ):
        with pytest.raises(UnsupportedModuleError, match=message):
            from_module(module, inputs, batch_axis=batch_axis)
    with pytest.raises(UnsupportedModuleError, match=r"expected an nn\.Module, found OrderedDict; pass the module"):
        from_module(fc().state_dict(), (4,))  # type: ignore[arg-type]
