"""Modules that a graph cannot express or tracing cannot see are refused; errors name the part and the way out."""

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

from tests.pruning.exporting import Forward, Net, check, conv, fc


def view_changed(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    y.flatten(1).relu_()
    return y


def view_added_to(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    flat = y.flatten(1)
    flat += flat
    return y.flatten(1)


def source_changed(s: Any, x: Tensor) -> Tensor:
    y = s.conv(x)
    flat = y.flatten(1)
    y.relu_()
    return flat


def slice_set(s: Any, x: Tensor) -> Tensor:
    y = s.fc(x)
    y[:, 0] = 0
    return y


def multiplied(s: Any, x: Tensor) -> Tensor:
    y = s.fc(x)
    z = y
    z *= x
    return y


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (view_changed, r"relu_: expected in-place operations .* found that conv shares it and is read; do it out of"),
        (view_added_to, "iadd: expected in-place operations .* found that conv shares it and is read"),
        (source_changed, "relu_: expected in-place operations .* found that flatten shares it and is read"),
        (slice_set, "Net\\): expected a forward pass that torch.fx can trace, found .*item assignment; .*assign to no"),
        (multiplied, "imul: expected a supported function"),
        (lambda s, x: s.fc(x)[:, :2].relu_(), "getitem: expected a supported function"),
        (lambda s, x: s.fc(x).data.relu_(), "the attribute data: expected a supported function"),
        (lambda s, x: torch.add(x, x, out=s.fc(x)), "add: expected a call that returns its result, found out="),
        (lambda s, x: s.fc(x) if x.sum() > 0 else x, "expected a forward pass that torch.fx can trace, found"),
        (lambda s, x: functional.dropout(s.fc(x), 0.5, True), "dropout: expected dropout that is off in eval mode"),
        (lambda s, x: s.fc(x) + torch.randn(4), "add: expected a sum of two results of layers"),
        (lambda s, x: functional.linear(x, torch.randn(4, 4)), "expected a graph that computes what the module does"),
        (lambda s, x: s.drop.train()(s.fc(x)), r"found a difference of .*, from drop \(Dropout\) on; its forward"),
        (lambda s, x: torch.cat([x, torch.ones(3, 4)], 1), "cat: expected results of layers to join, found a const"),
        (lambda s, x: x.view(x.size(1), -1), r"view: expected a reshape for any batch, found \(4, -1\)"),
        (lambda s, x: s.fc(x) - x, "sub: expected a supported function"),
        (lambda s, x: x, "output: expected a result that is computed from the input"),
        (lambda s, x: functional.linear(torch.ones(4), s.fc(x)), "linear: expected one result of a layer, and const"),
        (lambda s, x: s.fc(x).half(), "half: expected a supported function"),
        (lambda s, x: x.view(x.shape[0] * 2, -1), "mul: expected a value that does not depend on the batch"),
    ],
)
def test_modules_that_a_graph_cannot_express_are_refused(how: Forward, message: str) -> None:
    image = how in (view_changed, view_added_to, source_changed)
    with pytest.raises(UnsupportedModuleError, match=message):
        from_module(Net(how, fc=fc(), conv=conv(), drop=nn.Dropout()), (2, 5, 5) if image else (4,))


def test_a_forward_pass_with_a_state_is_refused() -> None:
    class Alternating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.even, self.odd = 0, fc(), fc()

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.odd(x) if self.calls % 2 else self.even(x)

    with pytest.raises(UnsupportedModuleError, match="expected a graph that computes what the module does, found a"):
        from_module(Alternating(), (4,))


def hooked(register: Callable[[nn.Module], object]) -> nn.Module:
    module = nn.Sequential(fc())
    register(module)
    return module


def double(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return 2 * output


@pytest.mark.parametrize(
    ("register", "where"),
    [
        (lambda m: m[0].register_forward_hook(double), r"0 \(Linear\)"),
        (lambda m: m.register_forward_hook(double), r"the module \(.*Sequential\)"),
        (lambda m: m[0].register_forward_pre_hook(lambda m, x: (2 * x[0],)), r"0 \(Linear\)"),
        (lambda m: m[0].register_forward_hook(lambda m, a, k, y: 2 * y, with_kwargs=True), r"0 \(Linear\)"),
        (lambda m: m[0].register_forward_pre_hook(lambda m, a, k: (a, k), with_kwargs=True), r"0 \(Linear\)"),
    ],
)
def test_hooks_are_refused_by_name(register: Callable[[nn.Module], object], where: str) -> None:
    for module in (hooked(register), nn.DataParallel(hooked(register))):
        with pytest.raises(
            UnsupportedModuleError, match=r"\): expected no forward hooks, found the hook .*; remove it"
        ):
            from_module(module, (4,))
    with pytest.raises(UnsupportedModuleError, match=f"^{where}: expected no forward hooks"):
        from_module(hooked(register), (4,))


def test_hooks_for_all_modules_are_refused_and_backward_hooks_are_not() -> None:
    module = nn.Sequential(fc())
    for register in (
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
    ):
        handle = register(lambda *_: None)
        try:
            with pytest.raises(UnsupportedModuleError, match="expected no forward hooks for all modules"):
                from_module(module, (4,))
        finally:
            handle.remove()
    module.register_full_backward_hook(lambda *_: None)
    check(module, 4)


def inexact() -> nn.Module:
    module = fc().double()
    nn.init.constant_(module.weight, 0.1)
    return module


def sparse(layout: torch.layout) -> nn.Module:
    module = nn.Sequential(fc())
    dense = module.get_parameter("0.weight").detach()
    module[0].weight = nn.Parameter(dense.to_sparse() if layout == torch.sparse_coo else dense.to_sparse_csr())
    return module


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def replaced(module: nn.Linear) -> nn.Module:
    module.forward = lambda input: 2 * input  # type: ignore[method-assign]
    return nn.Sequential(module)


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
        (lambda: replaced(fc()), r"0.0 \(Linear\): .*, found Linear with a forward pass of its own; replace it"),
        (lambda: Scaled(4, 4), r"0 \(.*Scaled\), mul: expected a supported function"),
        (
            lambda: qat.Linear(4, 4, qconfig=get_default_qat_qconfig("fbgemm")),
            r"0 \(torch\.ao\.nn\.qat\.modules\.linear\.Linear\): .*, found Linear with a forward pass of its own",
        ),
        (lambda: nn.MultiheadAttention(4, 2), r"0 \(.*MultiheadAttention\): expected a supported layer"),
        (lambda: filled(float("nan")), "expected finite results on random input, found NaN and infinity; look for"),
        (Locked, "expected a module that copy.deepcopy can copy, found .*lock.*; keep what cannot be copied"),
    ],
)
def test_modules_and_tensors_that_cannot_be_exported_are_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedModuleError, match=message):
        from_module(nn.Sequential(make()), (4,))


def test_other_objects_than_modules_are_refused() -> None:
    with pytest.raises(UnsupportedModuleError, match=r"expected an nn\.Module, found OrderedDict; pass the module"):
        from_module(fc().state_dict(), (4,))  # type: ignore[arg-type]
