"""The kernel that puts the entries of a weight into the order in which products read them."""

from __future__ import annotations

from dcformat.jit import device, kernel


@kernel(
    "void(const int64[::1], const int32[::1], const float32[::1], const float32[::1], const int32[::1], "
    "const int64[::1], int64[::1], int32[::1], int32[::1], int32[::1], float32[::1], float32[::1])",
    work=lambda keys, ranks, starts: len(keys) + len(ranks) + len(starts) + 10,
)
def lay_out(  # type: ignore[no-untyped-def]
    indptr, keys, values, biases, places, bounds, ranks, order, starts, indices, kept, bias
):
    """Lay out entries by run of columns, then by row, longest rows first; within a row they keep their order.

    Parameters
    ----------
    indptr : int64 (rows + 1,)
        `indptr` of the weight.
    keys : int32 (entries,)
        The number of each entry's column in `places`, ascending in each row.
    values : float32 (entries,)
    biases : float32 (rows,)
    places : int32 (columns,)
        The place that the entries of each column multiply; -1 drops them.
    bounds : int64 (runs + 1,)
        The first column of each run, and the end of the last.
    ranks : int64 (longest row + 2,)
        Space for numbers of rows.
    order : int32 (rows,)
        Receives the number of each row.
    starts : int32 (runs * rows + 1,)
        Receives where each row of each run begins, and the end of the last.
    indices : int32 (entries,)
        Receives the places.
    kept : float32 (entries,)
        Receives the values.
    bias : float32 (rows,)
        Receives the biases in the new order.
    """
    rows = len(order)
    _sort(indptr, ranks, order)
    for piece in range(len(starts)):
        starts[piece] = 0
    for q in range(rows):
        bias[q] = biases[order[q]]
        run = 0
        count = 0
        for p in range(indptr[order[q]], indptr[order[q] + 1]):
            while keys[p] >= bounds[run + 1]:
                starts[run * rows + q + 1] = count
                count = 0
                run += 1
            count += places[keys[p]] >= 0
        starts[run * rows + q + 1] = count
    for piece in range(1, len(starts)):
        starts[piece] += starts[piece - 1]
    # While entries are written, a start is the place of the next one, and at last the next start.
    for q in range(rows):
        run = 0
        at = starts[q]
        for p in range(indptr[order[q]], indptr[order[q] + 1]):
            while keys[p] >= bounds[run + 1]:
                starts[run * rows + q] = at
                run += 1
                at = starts[run * rows + q]
            place = places[keys[p]]
            if place >= 0:
                indices[at] = place
                kept[at] = values[p]
                at += 1
        starts[run * rows + q] = at
    for piece in range(len(starts) - 1, 0, -1):
        starts[piece] = starts[piece - 1]
    starts[0] = 0


@device
def _sort(indptr, ranks, order):  # type: ignore[no-untyped-def]
    """Order rows by length, the longest first; rows of equal length keep their order."""
    for rank in range(len(ranks)):
        ranks[rank] = 0
    longest = len(ranks) - 2
    for r in range(len(order)):
        ranks[longest - (indptr[r + 1] - indptr[r]) + 1] += 1
    for rank in range(1, len(ranks)):
        ranks[rank] += ranks[rank - 1]
    for r in range(len(order)):
        rank = longest - (indptr[r + 1] - indptr[r])
        order[ranks[rank]] = r
        ranks[rank] += 1
