"""Makes the bytes of a compressed module's file, and measures the network in these bytes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import dcformat
from dcformat.codecs import MODES, Mode
from dcformat.model import Model
from dcformat.transforms import reorder_units
from dcformat_pruning.export import from_module
from dcformat_pruning.export.example_inputs import BatchAxis
from dcformat_pruning.export.preparation import copied


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A model and its file.

    Attributes
    ----------
    model : dcformat.Model
    mode : {'fast', 'small', 'tiny'}
        The mode of the file.
    data : bytes
        The file.
    """

    model: Model
    mode: Mode
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ExampleCall:
    """The arguments of a call of the module, which show an export the inputs.

    Attributes
    ----------
    args : tuple
    kwargs : dict
    batch_axis : int, None, or mapping of str to int or None
        See `from_module`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    batch_axis: BatchAxis

    def named(self, module: nn.Module) -> dict[str, Any]:
        """Return the arguments by name."""
        return dict(inspect.signature(module.forward).bind(*self.args, **self.kwargs).arguments)


@torch.no_grad()
def export(module: nn.Module, call: ExampleCall) -> Model:
    """Return the model of a module, with its hidden units in the order that takes the fewest bytes.

    Raises
    ------
    UnsupportedModuleError
        The module cannot be exported; all operators that stand in the way are named.
    """
    examples = call.named(module) if call.kwargs else call.args
    return reorder_units(from_module(module, examples, batch_axis=call.batch_axis, verbose=False), "fast")


def pack(model: Model, mode: Mode | None) -> Packed:
    """Make the file of a model in the given mode, or in the one that is smallest; ties go to the fastest to decode."""
    made = [Packed(model, each, dcformat.dumps(model, mode=each)) for each in ([mode] if mode else MODES)]
    return min(made, key=lambda packed: len(packed.data))


def packed_metric(data: bytes, module: nn.Module, call: ExampleCall, validate: Callable[[nn.Module], float]) -> float:
    """Return the metric of the network in a file, computed by the runtime.

    `validate` gets a copy of the module whose calls run the file. A network that takes single inputs only is measured
    in PyTorch, because the batches of the validation data do not fit the file.
    """
    if call.batch_axis is None:
        return validate(module)
    import dcformat_runtime

    session = dcformat_runtime.load(data, max_memory=None, max_work=None)
    runner = copied(module)
    structure = pytree.tree_structure(runner(*call.args, **call.kwargs))
    signature = inspect.signature(module.forward)

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = [leaf for leaf in pytree.tree_leaves(signature.bind(*args, **kwargs).arguments) if _is_tensor(leaf)]
        device = given[0].device
        ports = zip(session.inputs, given, strict=True)
        results = session({port.name: tensor.detach().cpu().numpy() for port, tensor in ports})
        leaves = [torch.from_numpy(results[output.name]).to(device) for output in session.outputs]
        return pytree.tree_unflatten(leaves, structure)

    runner.forward = forward
    return validate(runner)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)
