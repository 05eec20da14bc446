"""Makes a `Model` with a graph from a user's `nn.Module`: PyTorch exports it, and the ONNX importer reads the result.

The module is copied, and the original is not changed. Anything that the graph cannot express raises an
`UnsupportedModuleError` that names it. The graph is compared with the module before it is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from dcformat_interop.refusals import UnfitError
from dcformat_interop.torch_import import import_program
from torch import nn

from dcformat.graph import Preprocessing
from dcformat.model import Model
from dcformat.records import replace
from dcformat_pruning.export.example_inputs import BatchAxis, ExampleInputs, example_inputs
from dcformat_pruning.export.preparation import prepare
from dcformat_pruning.export.torch_program import exported
from dcformat_pruning.tracing import UnsupportedModuleError

#: The setting that makes a network one for single inputs.
_ONE_INPUT = "batch_axis=None, with an example whose batch is 1"


@torch.no_grad()
def from_module(
    module: nn.Module,
    inputs: ExampleInputs,
    *,
    batch_axis: BatchAxis = 0,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    exact: bool = False,
    verbose: bool = True,
) -> Model:
    """Make a `Model` from a module: its weights under their own names, and the graph of its forward pass in eval mode.

    The graph is compared with the module on random inputs before it is returned. The module is not changed.

    Parameters
    ----------
    module : nn.Module
        Any module that `torch.export` takes, with the operators that `docs/onnx.md` lists. Weights may be masked
        (`torch.nn.utils.prune`), parametrised, shared, or computed from other parameters. DataParallel,
        DistributedDataParallel and `torch.compile` are unwrapped.
    inputs : sequence of int, tensor, sequence or mapping
        For one float32 input, its shape without the batch, such as ``(channels, height, width)``. Otherwise examples
        with a batch of any size: a tensor, a sequence of the forward pass's arguments by position, or a mapping of them
        by name. Only their shapes and dtypes matter.
    batch_axis : int, None, or mapping of str to int or None
        The dimension that is the batch, for all inputs or by the names of the forward pass's parameters (0 for those
        that are missing). None for an input, such as a table, that has none; None for all makes a network whose shapes
        are those of the examples, where a first dimension of 1 is the batch.
    preprocessing : Preprocessing, optional
        How pixels are normalised before the first layer.
    labels : sequence of str
        The names of the classes.
    metadata : mapping of str to str, optional
        Metadata of the file.
    exact : bool
        Keep every bit, including the sign of negative zeros. Otherwise negative zeros become positive, which computes
        the same and packs smaller. `dcformat.dense.negative_zeros` counts them.
    verbose : bool
        Print the largest difference between the graph and the module.

    Returns
    -------
    Model
        Its inputs have the names of the forward pass's parameters. Its output is called ``output``; those of a dict
        have its keys, and those of a tuple are ``output.0``, ``output.1``, and so on.

    Raises
    ------
    UnsupportedModuleError
        PyTorch cannot export the module, operators have no counterpart (all of them are named), or the graph and the
        module differ.
    PruningError
        A mask of `torch.nn.utils.prune` has values other than zero and one; the message names the parameter.
    FormatError
        The format does not support the preprocessing or the labels.
    ImportError
        onnx or onnxscript is not installed: ``pip install 'dcformat[pruning]'``.
    """
    # The forward pass is called, and may draw random numbers.
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), torch.inference_mode(False):
        own, reference = prepare(module)
        examples = example_inputs(own, inputs, batch_axis)
        try:
            imported = import_program(
                exported(own, examples),
                type(module).__name__,
                run=lambda tensors: reference(*examples.args(tensors)[0], **examples.args(tensors)[1]),
                one_input=_ONE_INPUT,
                single=True,
                exact=exact,
                max_memory=None,
            )
            compared = imported.check(_session(imported.model))
        except UnfitError as error:
            raise UnsupportedModuleError(str(error)) from error
    if verbose:
        print(f"{type(module).__name__}: {compared.describe()}")
    model = imported.model
    assert model.graph is not None
    graph = replace(model.graph, preprocessing=preprocessing)
    graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    return replace(model, graph=graph, labels=tuple(labels), metadata=dict(metadata or {}))


def _session(model: Model) -> Any:
    from dcformat_runtime import Session

    return Session.from_model(model, max_memory=None, max_work=None)
