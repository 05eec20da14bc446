"""Section 5.4 of `dcformat.md`: products, recurrent layers, pools, reductions and norms, for `run_graph.py`.

Each element of a result is computed in binary64, from operands in binary32, and rounded to binary32; steps that the
text calls exact are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

from run_arrays import Array, Call, Index, divided, f32, places, real, sigmoid

# ------------------------------------------------------------------------------------------------ products


def linear(call: Call, x: Array) -> Array:
    """Section 5.4, "Linear"."""
    w = call.weight()

    def element(index: Index) -> float:
        *front, out = index
        terms = (w.at((out, i)) * x.at((*front, i)) for i in range(w.shape[1]))
        return math.fsum(terms) + call.bias("bias", out)

    return Array.made(call.shape, element)


def conv(call: Call, x: Array) -> Array:
    """Section 5.4, "Conv"."""
    w, a = call.weight(), call.a
    out, per_group, *kernel = w.shape
    k = len(kernel)
    size = x.shape[-k:]

    def element(index: Index) -> float:
        front, o, position = index[: -k - 1], index[-k - 1], index[-k:]
        first = o // (out // a["groups"]) * per_group
        terms = []
        for place in places(kernel):
            at = [position[i] * a["stride"][i] + place[i] * a["dilation"][i] - a["padding"][i] for i in range(k)]
            if all(0 <= at[i] < size[i] for i in range(k)):
                terms += [w.at((o, c, *place)) * x.at((*front, first + c, *at)) for c in range(per_group)]
        return math.fsum(terms) + call.bias("bias", o)

    return Array.made(call.shape, element)


def conv_transpose(call: Call, x: Array) -> Array:
    """Section 5.4, "ConvTranspose": every element of the operand adds its multiples of the kernel."""
    w, a = call.weight(), call.a
    channels, per_group, *kernel = w.shape
    k = len(kernel)
    terms: dict[Index, list[float]] = {}
    for index in places(x.shape):
        front, c, position = index[: -k - 1], index[-k - 1], index[-k:]
        first = c // (channels // a["groups"]) * per_group
        for o, *place in places(w.shape[1:]):
            at = [position[i] * a["stride"][i] + place[i] * a["dilation"][i] - a["padding"][i] for i in range(k)]
            terms.setdefault((*front, first + o, *at), []).append(x.at(index) * w.at((c, o, *place)))
    return Array.made(call.shape, lambda index: math.fsum(terms.get(index, [])) + call.bias("bias", index[-k - 1]))


def matmul(call: Call, x: Array, y: Array) -> Array:
    """Section 5.4, "MatMul"."""
    inner = x.shape[-1]

    def element(index: Index) -> float:
        *front, n, m = index
        return math.fsum(x.spread((*front, n, i)) * y.spread((*front, i, m)) for i in range(inner))

    return Array.made(call.shape, element)


def steps(call: Call, x: Array) -> Iterator[tuple[int, Callable[[int], float]]]:
    """Section 5.4, "LSTM and GRU": the steps in order, each with a function that gives W x + b for a row of W."""
    w = call.weight()
    count = x.shape[0]
    for step in reversed(range(count)) if call.a["reverse"] else range(count):
        yield (
            step,
            lambda row, step=step: (  # type: ignore[misc]
                math.fsum(w.at((row, i)) * x.at((step, i)) for i in range(w.shape[1])) + call.bias("bias", row)
            ),
        )


def recurrent(call: Call, state: list[float], row: int) -> float:
    """Section 5.4: R h for a row of R."""
    r = call.weight("recurrent_weight")
    return math.fsum(r.at((row, i)) * state[i] for i in range(len(state)))


def lstm(call: Call, x: Array, *states: Array) -> Array:
    """Section 5.4, "LSTM"."""
    units = call.weight("recurrent_weight").shape[1]
    h, c = ([*state.values] for state in states) if states else ([0.0] * units, [0.0] * units)
    rows = [[0.0]] * x.shape[0]
    for step, wx in steps(call, x):
        z = [wx(row) + recurrent(call, h, row) + call.bias("recurrent_bias", row) for row in range(4 * units)]
        i, f, n, o = (z[gate * units : (gate + 1) * units] for gate in range(4))
        c = [f32(sigmoid(f[u]) * c[u] + sigmoid(i[u]) * math.tanh(n[u])) for u in range(units)]
        h = [f32(sigmoid(o[u]) * math.tanh(c[u])) for u in range(units)]
        rows[step] = [*h, *c]
    return Array(call.shape, [value for row in rows for value in row])


def gru(call: Call, x: Array, *states: Array) -> Array:
    """Section 5.4, "GRU"."""
    units = call.weight("recurrent_weight").shape[1]
    h = [*states[0].values] if states else [0.0] * units
    rows = [[0.0]] * x.shape[0]
    for step, wx in steps(call, x):
        s, z = (
            [
                sigmoid(wx(row) + recurrent(call, h, row) + call.bias("recurrent_bias", row))
                for row in range(gate * units, (gate + 1) * units)
            ]
            for gate in (0, 1)
        )
        n = []
        for u in range(units):
            row = 2 * units + u
            if call.a["reset_after"]:
                back = s[u] * (recurrent(call, h, row) + call.bias("recurrent_bias", row))
            else:
                reset = [s[v] * h[v] for v in range(units)]
                back = recurrent(call, reset, row) + call.bias("recurrent_bias", row)
            n.append(math.tanh(wx(row) + back))
        h = [f32((1 - z[u]) * n[u] + z[u] * h[u]) for u in range(units)]
        rows[step] = h
    return Array(call.shape, [value for row in rows for value in row])


# ---------------------------------------------------------------------------------------------- reductions


def pool(call: Call, x: Array) -> Array:
    """Section 5.4, "Pools"."""
    a, k = call.a, len(call.a["kernel"])
    size = x.shape[-k:]

    def element(index: Index) -> float:
        front, position = index[:-k], index[-k:]
        inside, padded = [], 0
        for place in places(a["kernel"]):
            at = [position[i] * a["stride"][i] - a["padding"][i] + place[i] for i in range(k)]
            padded += all(at[i] < size[i] + a["padding_end"][i] for i in range(k))
            if all(0 <= at[i] < size[i] for i in range(k)):
                inside.append(x.at((*front, *at)))
        if "count_include_pad" not in a:
            return max(inside)
        return math.fsum(inside) / (padded if a["count_include_pad"] else len(inside))

    return Array.made(call.shape, element)


def reduce(call: Call, x: Array) -> Array:
    """Section 5.4, "Reduce"."""
    axes = call.a["axes"]
    function: Callable[[list[float]], float] = {
        "mean": lambda v: math.fsum(v) / len(v), "max": max, "sum": math.fsum, "min": min, "prod": math.prod,
        "argmax": lambda v: v.index(max(v)), "argmin": lambda v: v.index(min(v)),
    }[call.a["function"]]  # fmt: skip
    groups: dict[Index, list[float]] = {}
    for index in places(x.shape):
        key = tuple(place for axis, place in enumerate(index) if axis not in axes)
        groups.setdefault(key, []).append(x.at(index))
    return Array(call.shape, [f32(function(groups[key])) for key in sorted(groups)])


def softmax(call: Call, x: Array) -> Array:
    """Section 5.4, "Softmax"."""
    axis = len(x.shape) - 1 if call.a["axis"] is None else call.a["axis"]

    def element(index: Index) -> float:
        line = [x.at((*index[:axis], i, *index[axis + 1 :])) for i in range(x.shape[axis])]
        return math.exp(x.at(index) - max(line)) / math.fsum(math.exp(v - max(line)) for v in line)

    return Array.made(call.shape, element)


def normalize(call: Call, x: Array) -> Array:
    """Section 5.4, "Normalize"."""
    axes = call.a["axes"]
    ranges = [range(size) if axis in axes else range(1) for axis, size in enumerate(x.shape)]

    def element(index: Index) -> float:
        line = [x.at([p if i in axes else index[i] for i, p in enumerate(place)]) for place in product(*ranges)]
        mean = math.fsum(line) / len(line) if call.a["centered"] else 0.0
        variance = math.fsum((v - mean) ** 2 for v in line) / len(line)
        return divided(x.at(index) - mean, math.sqrt(variance + real(call.a["epsilon"])))

    return Array.made(call.shape, element)
