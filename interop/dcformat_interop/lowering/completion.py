"""The last rewrites of an imported network: the batch taken out, constants folded, and layers of integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dcformat.graph import Output
from dcformat.model import Model
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.graph_passes import clean, fold_affine, to_integers, without_batch


class ImportedOutput(NamedTuple):
    """An output of an imported network: its name and dtype, the value, and the dimension that is the batch, if any."""

    name: str
    dtype: str
    value: Value
    batch_axis: int | None


def complete(
    builder: GraphBuilder, batch_axes: Sequence[int | None], results: Sequence[ImportedOutput], exact: bool = False
) -> Model:
    """Return a builder's graph as a model.

    Parameters
    ----------
    builder : GraphBuilder
        The graph; its shapes include the batch.
    batch_axes : sequence of int or None
        For each input, the dimension that is the batch.
    results : sequence of ImportedOutput
    exact : bool
        Keep the sign of negative zeros in tensors.

    Raises
    ------
    FormatError, ValueError
        A `.dcf` file cannot hold the graph.
    """
    ends = [(result.value, result.batch_axis) for result in results]
    built, values = without_batch(builder, batch_axes, ends)
    built, values = clean(*fold_affine(*clean(built, values)))
    built, values = clean(*to_integers(built, values))
    if not built.nodes:
        values = [built.copy(value) for value in values]
    outputs = [
        Output(value.number, result.name, result.dtype, result.batch_axis)
        for value, result in zip(values, results, strict=True)
    ]
    model = built.model(outputs, exact)
    assert model.graph is not None
    model.graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    return model
