"""Packs a model, then reads the bytes back and compares them before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dcformat.model import Model, Tensor
from dcformat.piecewise import ReadBackError

if TYPE_CHECKING:
    from dcformat.codecs import Mode, RelativeIndex
    from dcformat.graph import Graph


def packed_model(model: Model, label: str, mode: Mode, relative_index: RelativeIndex = "escape") -> bytes:
    """Pack `model`, read the bytes back, compare the two, and return the bytes; errors call them `label`.

    Raises
    ------
    ReadBackError
        The packed bytes do not decode to the model.
    FormatError
        The model breaks a limit of the format.
    """
    import dcformat

    packed = dcformat.dumps(model, mode=mode, relative_index=relative_index)
    _compare(model, packed, label)
    return packed


def _compare(model: Model, packed: bytes, label: str) -> None:
    """Decode each tensor once, to compare its values and to compute the content digest."""
    import dcformat
    from dcformat.contents_writer import small_sections
    from dcformat.digest import ContentDigest, tensor_digest

    with dcformat.open(packed, max_memory=None) as content:
        kept = (_graph(content.graph, content.names), content.labels, dict(content.metadata), content.self_test)
        given = (_graph(model.graph, content.names), model.labels, dict(model.metadata), model.self_test)
        if content.names != tuple(model.tensors) or kept != given or content.extensions != model.extensions:
            raise ReadBackError(f"{label}: expected the model's names and network when read back, found others")
        digest = ContentDigest(small_sections(model))
        for name, tensor in model.tensors.items():
            found = content.tensor(name)
            if not _same(found, tensor):
                raise ReadBackError(f"{label}: {name}: expected the model's values when read back, found others")
            digest.add(name, tensor_digest(found))
        if digest.take() != content.digest:
            raise ReadBackError(f"{label}: expected the model's digest when read back, found another")


def _graph(graph: Graph | None, names: tuple[str, ...]) -> bytes:
    """Return a graph's bytes, which do not tell a number from the float32 to which it is rounded."""
    from dcformat.graph_codec import write_graph

    return b"" if graph is None else write_graph(graph, names)


def _same(found: Tensor, tensor: Tensor) -> bool:
    same = found.dtype == tensor.dtype and found.shape == tensor.shape and found.scale == tensor.scale
    return same and np.array_equal(_bits(found.to_dense()), _bits(tensor.to_dense()))


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
