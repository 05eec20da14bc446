"""How much memory running a file takes, known before a weight is decoded.

What a program needs follows from shapes and from how many entries each weight stores; only how evenly these are spread
over rows is unknown, and taken to be as bad as can be. So a prediction is an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dcformat.errors import GraphError, MemoryLimitError
from dcformat.graph import Conv2d, Linear
from dcformat.records import replace
from dcformat_runtime import machine
from dcformat_runtime.network import Layer, Network, outline
from dcformat_runtime.program import lay_out
from dcformat_runtime.storage import Constants, aligned
from dcformat_runtime.tables import Int32s, Window
from dcformat_runtime.weights import (
    Gather,
    Rows,
    Weights,
    conv_runs,
    conv_window,
    has_dense_columns,
    linear_runs,
    permute_limit,
)

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.graph import Shape

#: Bytes for each entry of the largest layer that sorting its entries takes.
_MAKING_BYTES = 64


class MemoryRow(NamedTuple):
    """What takes memory, and how many bytes."""

    what: str
    bytes: int


def predict_memory(file: DcfFile, *, threads: int | None = None, backend: str = "numba") -> list[MemoryRow]:
    """Return what running a file's network takes at most, beside the interpreter and the caller's own arrays.

    Parameters
    ----------
    file : DcfFile
    threads : int or None
        As for `load`.
    backend : {'numba', 'numpy'}
        The NumPy backend's intermediate arrays grow with the batch; they are given for one input.

    Raises
    ------
    GraphError
        The file holds no network.
    """
    if file.graph is None:
        raise GraphError("graph", got="none (a bag of tensors)", expected="a network to run")
    infos = {name: file.info(name) for name in file.names}
    network = outline(file.graph, {name: info.shape for name, info in infos.items()})
    entries = {name: info.stored if info.form == "sparse" else prod(info.shape) for name, info in infos.items()}
    rows = [MemoryRow("tensors as the file holds them", sum(info.decoded_bytes for info in infos.values()))]
    return rows + rows_of(network, {n: (infos[n].shape, e) for n, e in entries.items()}, threads, backend)


def rows_of(
    network: Network, weights: Mapping[str, tuple[Shape, int]], threads: int | None, backend: str
) -> list[MemoryRow]:
    """Return the rows for a network; `weights`: each tensor's shape and stored entries."""
    used = [
        (layer, *weights[layer.node.weight]) for layer in network.layers if isinstance(layer.node, (Linear, Conv2d))
    ]
    csr = sum(8 * (shape[0] + 1) + 12 * entries + 4 * shape[0] for _, shape, entries in used)
    rows = [MemoryRow("weights as sparse float32 rows", csr)]
    if backend == "numpy":
        rows.append(MemoryRow("weights as dense float32", 4 * sum(prod(shape) for _, shape, _ in used)))
        values = prod(network.input_shape) + sum(prod(layer.out_shape) for layer in network.layers)
        return [*rows, MemoryRow("intermediate values of one input", 4 * values)]
    largest = 0
    for single, what, copies in ((True, "one input", 1), (False, "many inputs", threads or machine.cores())):
        sizes = _Sizes({id(layer): (shape, entries) for layer, shape, entries in used})
        arena, _ = lay_out(network, sizes, single)
        rows.append(MemoryRow(f"tables of the kernels for {what}", 4 * sizes.constants.size))
        rows.append(MemoryRow(f"arenas of the kernels for {what}", 4 * arena * copies))
        largest = max(largest, 4 * sizes.constants.size)
    making = largest + _MAKING_BYTES * max((entries for _, _, entries in used), default=0)
    return [*rows, MemoryRow("for a moment, while tables are made", making)]


def check(rows: list[MemoryRow], limit: int | None) -> None:
    """Raise `MemoryLimitError` if the rows add up to more than `limit` bytes."""
    total = sum(row.bytes for row in rows)
    if limit is not None and total > limit:
        raise MemoryLimitError("running the network", got=f"{total} bytes", expected=f"at most {limit} (max_memory)")


class _Sizes(Weights):
    """Makes room for tables of which only shapes and numbers of entries are known."""

    def __init__(self, known: Mapping[int, tuple[Shape, int]]) -> None:
        super().__init__(Constants(), False, machine.blocks_in_registers(), machine.permutes(), machine.halves())
        self._known = known

    def _linear_rows(self, layer: Layer) -> Rows:
        shape, entries = self._known[id(layer)]
        return self._skip_rows(shape, entries, linear_runs(shape, entries), None)

    def _conv_rows(self, layer: Layer, flat: bool) -> Rows:
        shape, entries = self._known[id(layer)]
        view = conv_window(layer, shape, flat, self.halves)
        return self._skip_rows(shape, entries, conv_runs(layer, shape, entries, view, flat, self.most), view)

    def _skip_rows(self, shape: Shape, entries: int, runs: int, view: Window | None) -> Rows:
        skip, rows = self.constants.skip, shape[0]
        pointers, order = skip(runs * rows + 1), skip(rows)
        indices, values, bias = skip(entries), skip(entries), skip(rows)
        starts = skip(len(view.starts)) if view is not None else 0
        return Rows(rows, entries, runs, pointers, order, indices, values, bias, view, starts)

    def _gather(self, layer: Layer, renamed: Int32s | None) -> Gather:
        shape, entries = self._known[id(layer)]
        rows, columns = shape
        groups = -(-rows // 16)
        # A group is as long as its longest row, which is no longer than the rows of the group before.
        slots = min(entries, groups * columns, columns + entries // 16)
        wide = columns > 1 << 16
        skip = self.constants.skip
        pointers, indices = skip(groups + 1), skip(slots * (16 if wide else 8))
        values, bias, order = skip(16 * slots), skip(16 * groups), np.arange(rows, dtype=np.int32)
        place = Gather(rows, groups, slots, pointers, indices, values, bias, wide, order, skip(rows), 0.0)
        # One or the other, or neither.
        dense = aligned(rows) * aligned(columns) if has_dense_columns(shape, entries, renamed is not None) else 0
        blocks = 20 * min(permute_limit(entries), 4 * groups * -(-columns // 16)) if self.permutes else 0
        extra = skip(max(dense, blocks))
        return replace(place, columns=extra) if dense else place
