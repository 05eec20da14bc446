"""A network in fixed point: the code of every value, and the integers of every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log2
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.errors import GraphError
from dcformat.graph import (
    Add,
    Binary,
    Concat,
    Conv,
    Graph,
    Linear,
    Node,
    Pad,
    Quantize,
    Reduce,
    Shape,
    Unary,
)
from dcformat_runtime.c_export.fixed_point import (
    Code,
    IntegerLayer,
    code_of_input,
    code_of_node,
    code_of_range,
    code_of_step,
    quantized_layer,
)
from dcformat_runtime.c_export.steps import FusedStep, is_function, limits_of
from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand, evaluate
from dcformat_runtime.weight_matrices import Floats

#: Entries of the table of softmax: exp(-i * scale) in 1/65535.
_SOFTMAX_ONE, _SOFTMAX_CODE = 65535, Code(1 / 256, 0, 0, 255)


class SumOf(NamedTuple):
    """The multipliers of the operands of a sum, and the shift of both products."""

    multipliers: tuple[int, int]
    shift: int


@dataclass
class FixedNetwork:
    """The integers of a network.

    Attributes
    ----------
    codes : dict of int to Code
        The code of every value that is stored.
    layers, kernels, sums, tables, limits : dict
        For the number of a step: its weights, the spatial shape of its kernel, its multipliers, the table of a function
        (uint8, or uint16 for softmax), or the range to which a function limits stored integers.
    aliases : set of int
        The numbers of functions that leave the stored integers unchanged.
    sums_out : bool
        Whether the network's results are the sums of its last layer, int32.
    """

    bits: int
    codes: dict[int, Code] = field(default_factory=dict)
    layers: dict[int, IntegerLayer] = field(default_factory=dict)
    sums: dict[int, SumOf] = field(default_factory=dict)
    tables: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    kernels: dict[int, Shape] = field(default_factory=dict)
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)
    aliases: set[int] = field(default_factory=set)
    sums_out: bool = False


def fix(
    graph: Graph,
    steps: Sequence[FusedStep],
    tensors: Mapping[str, Floats],
    ranges: Sequence[tuple[float, float]] | None,
    bits: int,
) -> FixedNetwork:
    """Return the network in fixed point.

    Parameters
    ----------
    graph : Graph
    steps : sequence of FusedStep
    tensors : mapping of str to ndarray
        All weights, dense float32.
    ranges : sequence of pairs, or None
        The range of every value, from calibration inputs.
    bits : {8, 16}
        Of a stored value.
    """
    network = FixedNetwork(bits)

    ranges = None if ranges is None else share_ranges(steps, ranges)

    def measured(value: int) -> tuple[float, float] | None:
        return None if ranges is None else ranges[value]

    network.codes[0] = code_of_input(graph, measured(0), bits)
    final = graph.outputs[0].value
    for step in steps:
        sources = [network.codes[value] for value in step.sources]
        node, target = step.node, step.target
        match step.kind:
            case "linear" | "conv":
                assert isinstance(node, (Linear, Conv))
                last = step.kind == "linear" and target == final and step.quantize is None
                last = last and step.limits == (-inf, inf)
                code = None if last else code_of_step(step, measured(target), bits)
                weight = tensors[node.weight].reshape(len(tensors[node.weight]), -1)
                bias = np.zeros(len(weight), np.float32) if node.bias is None else tensors[node.bias]
                layer = quantized_layer(weight, bias, sources[0], code, node.weight)
                network.layers[step.number] = layer
                network.kernels[step.number] = tensors[node.weight].shape[2:]
                network.sums_out = network.sums_out or last
                limit = (1 << 31) - 1
                network.codes[target] = code or Code(layer.sum_scale, 0, -limit, limit)
            case "add":
                network.codes[target] = code = code_of_step(step, measured(target), bits)
                network.sums[step.number] = _sum_of(sources[0].scale / code.scale, sources[1].scale / code.scale, bits)
            case "softmax":
                network.codes[target] = _softmax_code(network, step, bits)
            case "elementwise":
                network.codes[target] = _function(network, step, sources[0], measured(target))
            case "move":
                network.codes[target] = _moved(node, sources)
            case _:
                network.codes[target] = sources[0]
                if step.kind == "reduce":
                    _check_reduction(step)
    return network


def _sum_of(first: float, second: float, bits: int) -> SumOf:
    room = 14 if bits == 16 else 15
    shift = min(room - 1 - int(np.floor(log2(max(first, second)))), 30)
    if shift < 0:
        raise GraphError("scale of a sum", got=f"{max(first, second):.3g}", expected="less; export float32")
    multipliers = tuple(min(round(r * 2**shift), (1 << room) - 1) for r in (first, second))
    return SumOf((multipliers[0], multipliers[1]), shift)


def _softmax_code(network: FixedNetwork, step: FusedStep, bits: int) -> Code:
    if bits == 16:
        raise GraphError(f"node {step.number}", got="softmax in 16 bits", expected="int8 or float32, or no softmax")
    scale = network.codes[step.sources[0]].scale
    table = np.rint(np.exp(-np.arange(256) * scale) * _SOFTMAX_ONE)
    network.tables[step.number] = table[table > 0].astype("<u2")
    return _SOFTMAX_CODE


def _function(network: FixedNetwork, step: FusedStep, source: Code, measured: tuple[float, float] | None) -> Code:
    """Return the code of a function's results; its table is left out if the stored integers stay unchanged."""
    if not is_function(step.node):
        found = f"{step.node.kind} of several operands"
        raise GraphError(f"node {step.number}", got=found, expected="a function of one value; export float32")
    nodes = (step.node, *step.functions)
    code: Code | None = source
    limits: tuple[float, float] | None = (-inf, inf)
    for node in nodes:
        code = None if code is None else _affine(node, code)
        limits = None if limits is None else limits_of(node, limits)
    if code is not None:
        network.aliases.add(step.number)
        return code
    if limits is not None:
        network.limits[step.number] = source.limits(*limits)
        return source
    if network.bits == 16:
        raise GraphError(f"node {step.number}", got=f"{step.node.kind} in 16 bits", expected="int8 or float32")
    made = source.numbers(np.arange(256))
    for node in nodes:
        made = _apply(node, made)
    last = nodes[-1]
    code = code_of_node(last, 8) if isinstance(last, Quantize) else None
    if code is None:
        low, high = float(made.min()), float(made.max())
        if measured is not None:
            low, high = max(low, measured[0]), min(high, measured[1])
        code = code_of_range(low, high, 8)
    network.tables[step.number] = code.integers(made).astype(np.uint8)
    return code


def _apply(node: Node, x: Floats) -> Floats:
    """Return a function of one value, for float32 of any shape."""
    operands = [NumpyOperand(np.array(x if isinstance(o, int) else o, np.float32), False) for o in node.inputs]
    operands = [NumpyOperand(value.array[None], True) if value.array.ndim else value for value in operands]
    return np.asarray(evaluate(node, operands, {}, x.shape)[0], np.float32)


def _affine(node: Node, source: Code) -> Code | None:
    """Return the code that gives the results of a node for the same integers; None if there is none."""
    constants = [float(np.float32(x)) for x in node.inputs if isinstance(x, float)]
    match node:
        case Add():
            shift = sum(constants) / source.scale
            return None if abs(shift - round(shift)) > 1e-3 else source._replace(zero=source.zero - round(shift))
        case Binary(function="mul") if constants[0] > 0:
            return source._replace(scale=source.scale * constants[0])
        case Binary(function="div") if constants[0] > 0 and isinstance(node.inputs[0], int):
            return source._replace(scale=source.scale / constants[0])
        case Unary(function="round") if source.scale == 1.0:
            return source
        case Quantize():
            code = code_of_node(node, 8)
            same = code is not None and code.zero == source.zero and (code.low, code.high) == (source.low, source.high)
            return source if code is not None and same and abs(code.scale / source.scale - 1) < 1e-6 else None
    return None


def share_ranges(steps: Sequence[FusedStep], ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Widen the ranges of values that are joined, so that all of them get the code of the result."""
    wide = list(ranges)
    for step in reversed(steps):
        values = (*step.sources, step.target)
        keeps = step.kind in ("move", "alias", "max_pool", "mean_pool", "reduce") or (
            step.kind == "elementwise" and all(limits_of(n, (-inf, inf)) for n in (step.node, *step.functions))
        )
        if isinstance(step.node, Concat):
            least, greatest = min(wide[v][0] for v in values), max(wide[v][1] for v in values)
            for value in values:
                wide[value] = least, greatest
        elif keeps:
            source = step.sources[0]
            wide[source] = min(wide[source][0], wide[step.target][0]), max(wide[source][1], wide[step.target][1])
    return wide


def _moved(node: Node, sources: Sequence[Code]) -> Code:
    if isinstance(node, Concat) and len(set(sources)) > 1:
        raise GraphError("concat in fixed point", got="operands of different scales", expected="float32")
    if isinstance(node, Pad) and (node.mode != "constant" or not isfinite(node.value)):
        raise GraphError("pad in fixed point", got=f"{node.mode} {node.value}", expected="a constant")
    return sources[0]


def _check_reduction(step: FusedStep) -> None:
    node = step.node
    if isinstance(node, Reduce) and node.function not in ("mean", "max"):
        raise GraphError(f"node {step.number}", got=f"{node.function} in fixed point", expected="mean or max")
