"""Predicts the memory that running a network takes, by arithmetic only, before any weight is decoded.

The memory follows from the shapes and the number of entries of each weight. Only the spread of entries over rows is
unknown; the prediction assumes the worst, so it is an upper bound.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from dcformat.graph import AvgPool, Conv, Linear, MaxPool, Shape, Softmax
from dcformat.limits import require_memory
from dcformat.records import record
from dcformat_runtime import cpu
from dcformat_runtime.compile.constants import Room
from dcformat_runtime.compile.program import lay_out, runs_one_by_one
from dcformat_runtime.compile.weights import Weights
from dcformat_runtime.elementwise_layers import Elementwise
from dcformat_runtime.network import Layer, Network
from dcformat_runtime.weight_matrices import Matrix

if TYPE_CHECKING:
    from dcformat import DcfFile

#: Temporary bytes for each entry and each row of a weight: to check it and convert it to sparse float32 rows, to make
#: it dense, and to sort it into the tables of a linear layer or of a convolution.
_CHECK, _DENSE, _LINEAR, _CONV = (24, 24), (16, 16), (40, 64), (88, 64)
#: Bytes of Python objects for each layer, including its operators in every plan.
_LAYER_BYTES = 16 << 10


class MemoryRow(NamedTuple):
    """One use of memory, and its bytes."""

    what: str
    bytes: int


@record
class Prediction:
    """The memory that running a network takes; `rows` add up to all of it.

    `call` is the part that grows with the inputs of a call, for one input; `threads` the number of threads that the
    limit allows; `words` the number of floats in the largest array that kernels address.
    """

    rows: tuple[MemoryRow, ...]
    call: int
    threads: int
    words: int

    @property
    def total(self) -> int:
        """Bytes for a session and for calls with one input."""
        return sum(row.bytes for row in self.rows)


def matrices_of(file: DcfFile) -> tuple[dict[str, Matrix], int]:
    """Return a `Matrix` for each tensor of an open file, and the size of all decoded tensors in bytes."""
    infos = {name: file.info(name) for name in file.names}
    known = {
        name: Matrix(info.shape, info.stored if info.form == "sparse" else info.size) for name, info in infos.items()
    }
    return known, file.decoded_bytes


def predict(
    network: Network, held: int, threads: int | None, backend: str, exact: bool, limit: int | None
) -> Prediction:
    """Predict the memory that running a network takes, and refuse one that takes more than `limit` bytes.

    Parameters
    ----------
    network : Network
        The result of `network.outline`.
    held : int
        Bytes of the decoded tensors.
    threads : int or None
        None: one for each core, as long as the arenas fit into the limit.
    backend : {'numba', 'numpy'}
    exact : bool
    limit : int or None

    Raises
    ------
    MemoryLimitError
        The network needs more than `limit` bytes.
    """
    rows = [
        MemoryRow("tensors as the file holds them", held),
        MemoryRow("layers and their operators", _LAYER_BYTES * len(network.layers)),
    ]
    _require(rows, limit)  # the prediction itself lays out every operator
    weights, biases = _weights(network), _biases(network)
    csr = sum(8 * (w.rows + 1) + (w.index_bytes + 4) * w.nnz for w in weights) + 4 * sum(biases)
    rows.append(MemoryRow("weights as sparse float32 rows", csr))
    words, arena = 0, 0
    if backend == "numpy":
        rows.append(MemoryRow("weights as dense float32", 0 if exact else 4 * sum(w.size for w in weights)))
    else:
        one = _program(network, exact, True)
        many = _Program(0, one.arena) if runs_one_by_one(network) else _program(network, exact, False)
        words, arena = max(*one, *many), 4 * many.arena
        rows.append(MemoryRow("tables of the kernels for one input", 4 * one.tables))
        rows.append(MemoryRow("arenas of the kernels for one input", 4 * one.arena))
        rows.append(MemoryRow("tables of the kernels for many inputs", 4 * many.tables))
    call = _call(network, backend, exact)
    rows.append(MemoryRow("a call with one input", call))
    if threads is None:
        threads = cpu.threads_in(None if limit is None else limit - sum(row.bytes for row in rows), arena)
    rows.append(MemoryRow("arenas of the kernels for many inputs", arena * threads))
    # No call runs while a network is made ready.
    making = max(_making(weights, backend), 16 * max(biases, default=0), 4 * words)
    rows.append(MemoryRow("temporary memory beyond that of calls", max(0, making - call - arena * threads)))
    _require(rows, limit)
    return Prediction(tuple(rows), call, threads, words)


def _call(network: Network, backend: str, exact: bool) -> int:
    """Return the bytes of a call for each input, without arenas: its copy, its result and all intermediate values."""
    features = prod(network.input_shape)
    pixels = 0 if network.pixels is None else 8 * features  # NumPy's lookup converts pixels to 64-bit indices
    between = 4 * _intermediate(network, exact) if backend == "numpy" else 0
    return 4 * (features + network.outputs) + pixels + between


def _making(weights: list[Matrix], backend: str) -> int:
    """Return the temporary bytes for checking and expanding weights, making them dense or sorting them."""
    expanded = max((4 * w.size for w in weights if w.nnz == w.size), default=0)
    checking = _largest(_CHECK, weights) + expanded
    if backend == "numpy":
        return max(checking, _largest(_DENSE, weights))
    return max(checking, _largest(_LINEAR, weights), _largest(_CONV, [w for w in weights if len(w.shape) == 4]))


def _largest(costs: tuple[int, int], weights: list[Matrix]) -> int:
    """Return the bytes of the largest weight, given the bytes of each entry and of each row."""
    return max((costs[0] * w.nnz + costs[1] * w.rows for w in weights), default=0)


def _require(rows: list[MemoryRow], limit: int | None) -> None:
    require_memory("running the network", sum(row.bytes for row in rows), limit)


def _weights(network: Network) -> list[Matrix]:
    """Return the weights; layers that name the same tensor share one."""
    return list(
        {
            layer.node.weight: layer.matrix
            for layer in network.layers
            if isinstance(layer.node, (Linear, Conv)) and layer.matrix is not None
        }.values()
    )


def _biases(network: Network) -> list[int]:
    """Return the lengths of the biases: one for each tensor, and one for the zeros of each layer without a bias."""
    found: dict[object, int] = {}
    for layer in network.layers:
        if isinstance(layer.node, (Linear, Conv)) and layer.matrix is not None:
            found[layer.node.bias or layer.output] = layer.matrix.rows
    return list(found.values())


class _Program(NamedTuple):
    """The sizes of a program's tables and of its arena, in floats."""

    tables: int
    arena: int


def _program(network: Network, exact: bool, single: bool) -> _Program:
    room = Room()
    arena, _ = lay_out(network, Weights(network, room, exact, cpu.vectors()), single)
    return _Program(room.size, arena)


def _intermediate(network: Network, exact: bool) -> int:
    """Return the number of floats that the NumPy backend holds at a time, for one input."""
    last = {value: k for k, layer in enumerate(network.layers) for value in layer.inputs}
    ends: dict[int, list[int]] = {}
    for value, k in last.items():
        if value:
            ends.setdefault(k, []).append(prod(network.layers[value - 1].out_shape))
    alive = peak = 0
    for k, layer in enumerate(network.layers):
        alive += prod(layer.out_shape)
        peak = max(peak, alive + _temporary(layer, exact))
        alive -= sum(ends.get(k, ()))
    return peak


def _temporary(layer: Layer, exact: bool) -> int:
    """Return the temporary floats with which the NumPy backend computes a layer for one input."""
    node, out = layer.node, layer.out_shape
    if isinstance(node, Conv) and layer.matrix is not None:
        positions, columns = prod(layer.conv_shape[1:]), layer.matrix.size // layer.matrix.rows
        block = 2 * positions if exact else (columns + layer.matrix.rows // node.groups) * positions
        pads = [(p, p) for p in node.padding]
        made = _padded(layer.in_shapes[0], pads) + block
        if layer.pool is None:
            return made
        return prod(layer.conv_shape) + max(
            made, _padded(layer.conv_shape, _pool_pads(layer.pool, layer.conv_shape, out))
        )
    if isinstance(node, (MaxPool, AvgPool)):
        shares = 4 * prod(out[1:]) + 16 * sum(out[1:])  # counts of elements: Python's integers, then NumPy's
        return _padded(layer.in_shapes[0], _pool_pads(node, layer.in_shapes[0], out)) + 2 * prod(out) + shares
    if isinstance(node, (Linear, Softmax)) and exact:
        return 24 * prod(out)
    if isinstance(node, Elementwise):  # all results, and a float64 copy or a few of the steps of a function
        return (len(node.nodes) + 8) * prod(out)
    return 3 * prod(out) if isinstance(node, Softmax) else 0


def _pool_pads(node: MaxPool | AvgPool, source: Shape, out: Shape) -> list[tuple[int, int]]:
    """Return how far a pool's windows reach beyond its input on either side, in ceil mode even beyond the padding."""
    pads = []
    for size, padding, kernel, stride, count in zip(
        source[1:], node.padding, node.kernel, node.stride, out[1:], strict=True
    ):
        pads.append((padding, max(padding, (count - 1) * stride + kernel - size - padding)))
    return pads


def _padded(shape: Shape, pads: list[tuple[int, int]]) -> int:
    """Return the number of elements in a padded copy, or 0 if there is no padding."""
    if not any(map(any, pads)):
        return 0
    return shape[0] * prod(size + before + after for size, (before, after) in zip(shape[1:], pads, strict=True))
