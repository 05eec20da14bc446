"""The kernel that sorts the columns of each four rows by which of the rows have an entry there."""

from __future__ import annotations

from dcformat.jit import device, kernel
from dcformat_runtime.kernels.simd_widths import MASKS, QUAD


@kernel(
    "void(const int64[::1], const int32[::1], const float32[::1], const int32[::1], const int64[::1], int64[::1], "
    "uint8[::1], int64[::1], int32[::1], int32[::1], int32[::1], float32[::1])",
    work=lambda keys, bounds, masks, ends, starts: (
        len(keys) + len(masks) * len(starts) // (len(bounds) - 1) + len(ends) + 10
    ),
)
def lay_out_quads(  # type: ignore[no-untyped-def]
    indptr, keys, values, places, bounds, cursors, masks, room, ends, starts, indices, kept
):
    """Lay out entries by run of columns, then by quad of rows, then by mask: the rows that have an entry in a column.

    Parameters
    ----------
    indptr : int64 (rows + 1,)
        `indptr` of the weight.
    keys : int32 (entries,)
        The number of each entry's column in `places`, ascending in each row.
    values : float32 (entries,)
        The values of the entries.
    places : int32 (columns,)
        What the entries of each column multiply; -1 drops them.
    bounds : int64 (runs + 1,)
        The first column of each run, and the end of the last, which may lie beyond the columns.
    cursors : int64 (rows,)
        Room for the place of each row's next entry.
    masks : uint8 (columns,)
        Room for the mask of each column, as zeros.
    room : int64 (32,)
        Room for the places of the next column of each of 16 masks, and of the next value.
    ends : int32 (runs * quads * masks + 1,)
        Receives 0, then where the columns of each mask of each quad of each run end.
    starts : int32 (runs * quads,)
        Receives where the values of each quad of each run begin.
    indices : int32 (entries,)
        Receives the places of the columns.
    kept : float32 (entries,)
        Receives the values: for each column, those of the rows in its mask.
    """
    rows = len(cursors)
    quads = (rows + QUAD - 1) // QUAD
    for r in range(rows):
        cursors[r] = indptr[r]
    ends[0] = 0
    value = 0
    for run in range(len(bounds) - 1):
        start = bounds[run]
        end = min(bounds[run + 1], len(places))
        for quad in range(quads):
            piece = run * quads + quad
            at = MASKS * piece
            first = QUAD * quad
            last = min(first + QUAD, rows)
            for r in range(first, last):
                p = cursors[r]
                while p < indptr[r + 1] and keys[p] < end:
                    masks[keys[p]] |= 1 << (r - first)
                    p += 1
            starts[piece] = value
            value = _count(places[start:end], masks[start:end], room, ends[at : at + MASKS + 1], value)
            _move(places[start:end], masks[start:end], values, cursors[first:last], room, indices, kept)


@device
def _count(places, masks, room, ends, value):  # type: ignore[no-untyped-def]
    """Find where the columns and the values of each mask begin; return where the values of the last one end."""
    for mask in range(MASKS + 1):
        room[mask] = 0
    for c in range(len(masks)):
        room[masks[c]] += places[c] >= 0
    column = ends[0]
    for mask in range(1, MASKS + 1):
        count = room[mask]
        room[mask] = column
        room[MASKS + 1 + mask] = value
        column += count
        value += count * ((mask & 1) + (mask >> 1 & 1) + (mask >> 2 & 1) + (mask >> 3))
        ends[mask] = column
    return value


@device
def _move(places, masks, values, cursors, room, indices, kept):  # type: ignore[no-untyped-def]
    """Write the columns of a quad of rows in a run and their values, and clear the masks."""
    for c in range(len(masks)):
        mask = masks[c]
        if mask:
            masks[c] = 0
            seen = places[c] >= 0
            if seen:
                indices[room[mask]] = places[c]
                room[mask] += 1
            value = room[MASKS + 1 + mask]
            for r in range(len(cursors)):
                if mask >> r & 1:
                    if seen:
                        kept[value] = values[cursors[r]]
                        value += 1
                    cursors[r] += 1
            room[MASKS + 1 + mask] = value
