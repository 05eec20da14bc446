"""The kernel that gives each weight a code, column by column, and makes the later columns correct its error.

This is the update of Optimal Brain Surgeon in the order of GPTQ and SparseGPT, with a price for each code's bits.
"""

from __future__ import annotations

from dcformat.jit import kernel

#: Number of rows that are treated together, so that the inverse Hessian is read once for all of them.
BLOCK = 16


@kernel(
    "void(float64[:, ::1], const float64[:, :, ::1], const int64[::1], const float64[::1], const uint8[:, ::1], "
    "const float64[::1], const float64[::1], const float64[:, ::1], int32[:, ::1], float64[::1])",
    work=lambda weights, values: int(weights.size * (len(values) + weights.shape[0])),
)
def assign_codes(weights, upper, which, importance, allowed, values, price, zero_price, codes, work):  # type: ignore[no-untyped-def]
    """Write the code of each weight; `weights` receive the corrections of the errors of earlier columns.

    Parameters
    ----------
    weights : float64 ``(columns, rows)``
        Transposed, so that the weights of a column are together.
    upper : float64 ``(groups, columns, columns)``
        The upper Cholesky factor of each inverse Hessian.
    which : int64 ``(rows,)``
        The Hessian of each row, ascending.
    importance : float64 ``(rows,)``
        The factor of each row's squared error.
    allowed : uint8 ``(columns, rows)``
        0 for a weight that must become 0.
    values : float64 ``(codes,)``
        The shared values; the first one is 0.
    price : float64 ``(codes,)``
        The price of each code among the weights other than zero.
    zero_price : float64 ``(columns, rows)``
        The cost of a zero minus that of the presence of another number.
    codes : int32 ``(columns, rows)``
    work : float64 ``(16,)``
        The errors of a block of rows.
    """
    columns, rows = weights.shape
    first = 0
    while first < rows:
        group = which[first]
        stop = first + 1
        while stop < rows and stop < first + BLOCK and which[stop] == group:
            stop += 1
        for column in range(columns):
            pivot = upper[group, column, column]
            for row in range(first, stop):
                weight = weights[column, row]
                scale = importance[row] / (pivot * pivot)
                best = 0
                least = scale * weight * weight + zero_price[column, row]
                if allowed[column, row]:
                    for code in range(1, len(values)):
                        off = weight - values[code]
                        cost = scale * off * off + price[code]
                        if cost < least:
                            least = cost
                            best = code
                codes[column, row] = best
                work[row - first] = (weight - values[best]) / pivot
            for later in range(column + 1, columns):
                factor = upper[group, column, later]
                for row in range(first, stop):
                    weights[later, row] -= work[row - first] * factor
        first = stop
