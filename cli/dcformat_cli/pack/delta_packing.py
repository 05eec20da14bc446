"""The part of `pack` for `--base`: it stores only what changes from the base to the new model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dcformat
from dcformat import layout
from dcformat.deltas import counts
from dcformat.errors import FormatError
from dcformat.model import Delta, Model
from dcformat.read_back import ReadBackError
from dcformat.records import replace
from dcformat.wording import counted
from dcformat_cli.input_files import opened
from dcformat_cli.terminal import note
from dcformat_cli.writing import packed_model

if TYPE_CHECKING:
    from dcformat.codecs import Mode


def is_dcf(path: Path) -> bool:
    """Return whether a file begins like a ``.dcf`` file; stdin and pipes count as something else."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(layout.MAGIC)) == layout.MAGIC


def with_network_of(base: str, model: Model, max_memory: int | None) -> Model:
    """Return a model without a network with that of the base and its labels, if its tensors fit them."""
    with opened(base, max_memory) as file:
        graph, labels = file.graph, file.labels
    if graph is None:
        return model
    try:
        graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
        graph.check_dtypes({name: tensor.dtype for name, tensor in model.tensors.items()})
    except FormatError:
        note(f"the tensors do not fit the network of {base}: the new file holds only tensors and cannot be run")
        return model
    note(f"the network and the labels are those of {base}")
    return replace(model, graph=graph, labels=labels)


def packed_delta(model: Model, base: str, label: str, mode: Mode, max_memory: int | None) -> bytes:
    """Return the bytes of the delta that makes a model from a base, after applying it as a check.

    Raises
    ------
    ReadBackError
        The delta and the base do not make the model.
    FormatError
        The base is damaged, or a delta.
    """
    with opened(base, max_memory) as file:
        packed = packed_model(dcformat.delta(model, file, mode=mode), label, mode)
        try:
            dcformat.apply(packed, file, max_memory=None, max_work=None)
        except FormatError as error:
            raise ReadBackError(f"{label}: expected the model when applied to {base}, found {error}") from None
    return packed


def line(label: str, size: int, delta: Delta, model: Model) -> str:
    """Return one line about a delta: its size beside that of the new elements, and how many tensors change."""
    dense = sum(tensor.nbytes for tensor in model.tensors.values())
    compared = f"{dense / size:.1f}x smaller than the {dense:,} bytes of the new tensors"
    return f"{label}: {size:,} bytes, {compared}: {parts(delta)}"


def parts(delta: Delta) -> str:
    """Return how many tensors are kept, changed and new, in words."""
    found = counts(delta)
    kept = "the others kept" if found["kept"] is None else f"{found['kept']:,} kept"
    return f"{counted(found['changed'] or 0, 'tensor')} changed, {found['new']:,} new, {kept}"


def as_json(delta: Delta) -> dict[str, Any]:
    """Describe a delta for programs."""
    return {"base": delta.base.hex(), "result": delta.result.hex(), **counts(delta)}
