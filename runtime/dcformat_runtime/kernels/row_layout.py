"""The kernel that puts the entries of a weight into the order in which products read them."""

from __future__ import annotations

from dcformat.jit import device, kernel


@kernel(
    "void(const int64[::1], const uint32[::1], const float32[::1], const float32[::1], const int32[::1], "
    "const uint32[::1], int64[::1], uint32[::1], int32[::1], uint32[::1], int32[::1], float32[::1], float32[::1])",
    work=lambda keys, counts, starts: len(keys) + len(counts) + len(starts) + 10,
)
def lay_out(  # type: ignore[no-untyped-def]
    indptr, keys, values, biases, places, pieces, counts, ranks, order, starts, indices, kept, bias
):
    """Lay out entries by piece, then by row, longest rows first; within a row of a piece they keep their order.

    Indices are unsigned because negative ones, which count from the end, would take a comparison each.

    Parameters
    ----------
    indptr : int64 (rows + 1,)
        `indptr` of the weight.
    keys : uint32 (entries,)
        The number of each entry's column in `places`.
    values : float32 (entries,)
    biases : float32 (rows,)
    places : int32 (columns,)
        The place that the entries of each column multiply; -1 drops them.
    pieces : uint32 (columns,)
        Where the piece of each column begins in `starts`, which has an element for each of its rows.
    counts : int64 (longest row + 2,)
        Space for numbers of rows.
    ranks : uint32 (rows,)
        Space for the place of each row in `order`.
    order : int32 (rows,)
        Receives the number of each row.
    starts : uint32 (elements of all pieces + 1,)
        Receives where each row of each piece begins, and the end of the last. Elements between pieces receive the end
        of the piece before.
    indices : int32 (entries,)
        Receives the places.
    kept : float32 (entries,)
        Receives the values.
    bias : float32 (rows,)
        Receives the biases in the new order.
    """
    _sort(indptr, counts, ranks, order)
    for at in range(len(starts)):
        starts[at] = 0
    ends = starts[1:]
    for r in range(len(order)):
        rank = ranks[r]
        bias[rank] = biases[r]
        for p in range(indptr[r], indptr[r + 1]):
            ends[pieces[keys[p]] + rank] += places[keys[p]] >= 0
    for at in range(1, len(starts)):
        starts[at] += starts[at - 1]
    # While entries are written, a start is the place of the next one, and at last the next start.
    for r in range(len(order)):
        rank = ranks[r]
        for p in range(indptr[r], indptr[r + 1]):
            place = places[keys[p]]
            if place >= 0:
                piece = pieces[keys[p]] + rank
                at = starts[piece]
                indices[at] = place
                kept[at] = values[p]
                starts[piece] = at + 1
    for at in range(len(starts) - 1, 0, -1):
        starts[at] = starts[at - 1]
    starts[0] = 0


@device
def _sort(indptr, counts, ranks, order):  # type: ignore[no-untyped-def]
    """Order rows by length, the longest first; rows of equal length keep their order."""
    for rest in range(len(counts)):
        counts[rest] = 0
    longest = len(counts) - 2
    for r in range(len(order)):
        counts[longest - (indptr[r + 1] - indptr[r]) + 1] += 1
    for rest in range(1, len(counts)):
        counts[rest] += counts[rest - 1]
    for r in range(len(order)):
        rest = longest - (indptr[r + 1] - indptr[r])
        ranks[r] = counts[rest]
        order[counts[rest]] = r
        counts[rest] += 1
