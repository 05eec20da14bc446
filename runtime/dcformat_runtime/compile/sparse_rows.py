"""Places the tables of sparse rows, which products take one or four at a time."""

from __future__ import annotations

import numpy as np

from dcformat_runtime.compile.constants import CsrPlace, QuadPlace, Room, ShiftedPlace
from dcformat_runtime.compile.tables import EntryTable
from dcformat_runtime.kernels.simd_widths import MASKS, QUAD
from dcformat_runtime.weight_matrices import Floats, Sparse


def place_rows(room: Room, rows: int, entries: int, runs: int) -> CsrPlace:
    """Make room for sparse rows."""
    skip = room.skip
    indptr, order, indices = skip(runs * rows + 1), skip(rows), skip(entries)
    return CsrPlace(rows, entries, runs, indptr, order, indices, skip(entries), skip(rows))


def put_rows(room: Room, weight: Sparse, bias: Floats, table: EntryTable, runs: int) -> CsrPlace:
    """Make room for sparse rows, and let the kernel that lays them out write there at last."""
    place = place_rows(room, weight.rows, weight.nnz, runs)
    room.write_later(lambda out: write_rows(out, place, weight, bias, table))
    return place


def write_rows(
    out: Floats, place: CsrPlace | ShiftedPlace, weight: Sparse, bias: Floats, table: EntryTable, lists: int = 1
) -> None:
    """Lay out sparse rows as so many lists."""
    from dcformat_runtime.kernels import row_layout

    words, unsigned, rows, nnz = out.view(np.int32), out.view(np.uint32), weight.rows, weight.nnz
    places, bounds, of = table.columns
    size = place.runs * rows + 1
    pieces = np.repeat(np.arange(place.runs) * rows, np.diff(np.minimum(bounds, places.size))) + of * size
    longest = int(np.diff(weight.indptr).max(initial=0))
    row_layout.lay_out(
        weight.indptr, table.keys.view(np.uint32), weight.values, bias, places, pieces.astype(np.uint32),
        np.empty(longest + 2, np.int64), np.empty(rows, np.uint32), words[place.order :][:rows],
        unsigned[place.indptr :][: lists * size], words[place.indices :][:nnz],
        out[place.values :][:nnz], out[place.bias :][:rows],
    )  # fmt: skip


def place_quads(room: Room, rows: int, entries: int, runs: int) -> QuadPlace:
    """Make room for quads of sparse rows."""
    quads, skip = -(-rows // QUAD), room.skip
    ends, starts, indices = skip(runs * quads * MASKS + 1), skip(runs * quads), skip(entries)
    return QuadPlace(rows, entries, runs, ends, starts, indices, skip(entries), skip(quads * QUAD))


def put_quads(room: Room, weight: Sparse, bias: Floats, table: EntryTable, runs: int) -> QuadPlace:
    """Make room for quads of sparse rows, and let the kernel that lays them out write there at last."""
    place = place_quads(room, weight.rows, weight.nnz, runs)
    room.fill(place.bias, bias)
    places, bounds, _ = table.columns

    def write(out: Floats) -> None:
        from dcformat_runtime.kernels import quad_layout

        words, pieces, nnz = out.view(np.int32), runs * -(-weight.rows // QUAD), weight.nnz
        quad_layout.lay_out_quads(
            weight.indptr, table.keys, weight.values, places, bounds, np.empty(weight.rows, np.int64),
            np.zeros(places.size, np.uint8), np.empty(2 * (MASKS + 1), np.int64),
            words[place.ends :][: pieces * MASKS + 1], words[place.starts :][:pieces], words[place.indices :][:nnz],
            out[place.values :][:nnz],
        )  # fmt: skip

    room.write_later(write)
    return place
