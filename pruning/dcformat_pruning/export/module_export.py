"""From a user's own `nn.Module` to a `Model` with a graph, by tracing the module with `torch.fx`.

The module is copied, and the original is not changed. A part for which the graph has no operator raises an
`UnsupportedModuleError` that names it. The graph is compared with the module before it is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from dcformat.dense import from_dense
from dcformat.graph import Graph, Preprocessing
from dcformat.model import Model
from dcformat_pruning.export.agreement import check_agreement
from dcformat_pruning.export.architecture_export import to_numpy
from dcformat_pruning.export.graph_builder import GraphBuilder
from dcformat_pruning.export.preparation import prepare


@torch.no_grad()
def from_module(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    exact: bool = False,
) -> Model:
    """Make a `Model` of a module: its weights under their own names, and the graph of its forward pass in eval mode.

    The graph is compared with the module on random inputs before it is returned. The module is not changed.

    Parameters
    ----------
    module : nn.Module
        The forward pass takes one tensor and may use Linear, Conv2d, BatchNorm, ReLU, max, average and global average
        pooling, Flatten, Dropout (left out), additions, concatenation of channels and Softmax, as modules or functions.
        Weights may be masked (`torch.nn.utils.prune`), parametrised, or computed from other parameters. DataParallel,
        DistributedDataParallel and `torch.compile` are unwrapped.
    input_shape : sequence of int
        The shape of an input without the batch: ``(features,)`` or ``(channels, height, width)``.
    preprocessing : Preprocessing, optional
        How pixels are normalised before the first layer.
    labels : sequence of str
        The names of the classes.
    metadata : mapping of str to str, optional
        Metadata of the file.
    exact : bool
        Keep every bit, including the sign of negative zeros. Otherwise negative zeros become positive, which computes
        the same and packs smaller. `dcformat.dense.negative_zeros` counts them.

    Raises
    ------
    UnsupportedModuleError
        A part of the module has no counterpart, cannot be traced, or was traced wrongly; the message names the part.
    PruningError
        A mask of `torch.nn.utils.prune` has values other than zero and one; the message names the parameter.
    FormatError
        The format does not support the input shape or the preprocessing.
    """
    # The forward pass is traced and called, and may draw random numbers.
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False):
        own, reference = prepare(module)
        builder = GraphBuilder(own, tuple(int(n) for n in input_shape))
        nodes, numbers = builder.build()
        graph = Graph.sequential(builder.shapes[0], nodes, preprocessing)
        used = {name for node in nodes for name in node.tensors}
        tensors = {n: from_dense(n, to_numpy(t), exact=exact) for n, t in builder.tensors.items() if n in used}
        graph.shapes({name: tensor.shape for name, tensor in tensors.items()})
        model = Model(tensors, graph, tuple(labels), dict(metadata or {}))
        marks = [(path, numbers[number]) for path, number in builder.marks if number in numbers]
        check_agreement(model, reference, marks)
    return model
