"""The kernel that removes the weights of a row one after another, each time the one that costs least.

The other weights make up for each removal before the next one (Optimal Brain Compression, Frantar and Alistarh, 2022).
"""

from __future__ import annotations

from dcformat.jit import kernel


@kernel(
    "void(float64[:, ::1], float64[:, :, ::1], float64[:, ::1], float64[:, ::1], float64[::1], uint8[::1])",
    work=lambda weights: int(weights.size * weights.shape[1] ** 2),
)
def eliminate(weights, inverses, losses, inverse, factors, gone):  # type: ignore[no-untyped-def]
    """Write the loss at which each weight is removed; `weights` become 0.

    Parameters
    ----------
    weights : float64 ``(rows, columns)``
    inverses : float64 ``(groups, columns, columns)``
        The inverse Hessian of each block of equally many rows, with positive numbers on the diagonal.
    losses : float64 ``(rows, columns)``
        Twice the increase of the quadratic form at the removal of a weight, or at an earlier one if that cost more.
    inverse : float64 ``(columns, columns)``
        Space for the inverse of the Hessian of the weights that are left.
    factors : float64 ``(columns,)``
        Space for a row of it.
    gone : uint8 ``(columns,)``
        Space for the weights that have been removed.
    """
    rows, columns = weights.shape
    each = rows // len(inverses)
    for row in range(rows):
        inverse[:] = inverses[row // each]
        gone[:] = 0
        highest = 0.0
        for _ in range(columns):
            best = -1
            least = 0.0
            for column in range(columns):
                if gone[column] == 0:
                    loss = weights[row, column] ** 2 / inverse[column, column]
                    if best < 0 or loss < least:
                        best = column
                        least = loss
            highest = max(highest, least)
            losses[row, best] = highest
            gone[best] = 1
            factors[:] = inverse[best]
            pivot = factors[best]
            share = weights[row, best] / pivot
            for column in range(columns):
                weights[row, column] -= share * factors[column]
            weights[row, best] = 0.0
            for column in range(columns):
                if gone[column] == 0:
                    factor = factors[column] / pivot
                    for other in range(columns):
                        inverse[column, other] -= factor * factors[other]
