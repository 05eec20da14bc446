"""If, Loop and Scan: their conditions are constant, so that branches are chosen and iterations are unrolled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcformat_interop.graph_builder import GraphBuilder
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxItem, constant

#: Lowers a subgraph with items for its inputs, and returns its outputs.
Subgraph = Callable[[Any, Mapping[str, OnnxItem | None]], list[OnnxItem | None]]
Items = Sequence[OnnxItem | None]

#: Maximum number of iterations that are unrolled.
_MAX_ITERATIONS = 1024


def choose(builder: GraphBuilder, run: Subgraph, inputs: Items, attributes: Mapping[str, Any]) -> list[OnnxItem | None]:
    """Lower an If: to the branch that a constant chooses, or to both and a choice between their results."""
    condition = inputs[0]
    branches = _graph(attributes, "then_branch"), _graph(attributes, "else_branch")
    if condition is None:
        raise ValueError("condition: expected one, found none")
    if condition.array is not None:
        return run(branches[0 if condition.array.reshape(-1)[0] else 1], {})
    results = [run(branch, {}) for branch in branches]
    chosen: list[OnnxItem | None] = []
    for then, other in zip(*results, strict=True):
        if then is None or other is None:
            chosen.append(None)
            continue
        if then.shape != other.shape:
            raise Unsupported("with results of different shapes, between which the network chooses")
        flag = builder.reshape(_value(builder, condition), ())
        chosen.append(OnnxItem(then.dtype, builder.where(flag, _value(builder, then), _value(builder, other))))
    return chosen


def loop(builder: GraphBuilder, run: Subgraph, inputs: Items, attributes: Mapping[str, Any]) -> list[OnnxItem | None]:
    """Unroll a Loop."""
    count, condition, *carried = inputs
    body = _graph(attributes, "body")
    limit = _MAX_ITERATIONS + 1 if count is None else int(_decided(count, "a number of iterations"))
    going = condition is None or bool(_decided(condition, "a condition"))
    scanned: list[list[OnnxItem | None]] = []
    while len(scanned) < limit and going:
        if len(scanned) >= _MAX_ITERATIONS:
            raise Unsupported(f"with more than {_MAX_ITERATIONS} iterations")
        given = [constant(np.array(len(scanned), np.int64)), constant(np.array(True)), *carried]
        after, *results = run(body, {value.name: item for value, item in zip(body.input, given, strict=True)})
        going = bool(_decided(after, "a condition"))
        carried, scans = results[: len(carried)], results[len(carried) :]
        scanned.append(scans)
    if not scanned and len(body.output) > len(carried) + 1:
        raise Unsupported("without an iteration")
    return [*carried, *(_stacked(builder, items, 0) for items in zip(*scanned, strict=True))]


def scan(builder: GraphBuilder, run: Subgraph, inputs: Items, attributes: Mapping[str, Any]) -> list[OnnxItem | None]:
    """Unroll a Scan."""
    body, count = _graph(attributes, "body"), attributes["num_scan_inputs"]
    if not 1 <= count <= len(inputs):
        raise ValueError(f"num_scan_inputs: expected 1 to {len(inputs)}, found {count}")
    carried, scanned = list(inputs[: len(inputs) - count]), inputs[len(inputs) - count :]
    axes = attributes.get("scan_input_axes", [0] * count)
    reversed_inputs = attributes.get("scan_input_directions", [0] * count)
    lengths = {item.shape[axis] for item, axis in zip(scanned, axes, strict=True) if item is not None}
    if len(lengths) != 1:
        raise ValueError(f"scan inputs: expected the same length, found {sorted(lengths)}")
    length = lengths.pop()
    if length > _MAX_ITERATIONS:
        raise Unsupported(f"with more than {_MAX_ITERATIONS} iterations")
    gathered: list[list[OnnxItem | None]] = []
    for step in range(length):
        parts = [
            _part(builder, item, axis, length - 1 - step if backwards else step)
            for item, axis, backwards in zip(scanned, axes, reversed_inputs, strict=True)
        ]
        results = run(body, {value.name: item for value, item in zip(body.input, [*carried, *parts], strict=True)})
        carried, rest = results[: len(carried)], results[len(carried) :]
        gathered.append(rest)
    columns = list(zip(*gathered, strict=True))
    out_axes = attributes.get("scan_output_axes", [0] * len(columns))
    reversed_outputs = attributes.get("scan_output_directions", [0] * len(columns))
    return carried + [
        _stacked(builder, items[::-1] if backwards else items, axis)
        for items, axis, backwards in zip(columns, out_axes, reversed_outputs, strict=True)
    ]


def _graph(attributes: Mapping[str, Any], name: str) -> Any:
    """Return an attribute that is a graph."""
    import onnx

    if not isinstance(attributes[name], onnx.GraphProto):
        raise ValueError(f"{name}: expected a graph, found none")
    return attributes[name]


def _decided(item: OnnxItem | None, what: str) -> Any:
    """Return the number that decides how a loop continues."""
    if item is None or item.array is None:
        raise Unsupported(f"with {what} that the network computes")
    return item.array.reshape(-1)[0]


def _value(builder: GraphBuilder, item: OnnxItem) -> Any:
    return item.value if item.value is not None else builder.materialize(np.asarray(item.array))


def _part(builder: GraphBuilder, item: OnnxItem | None, axis: int, place: int) -> OnnxItem | None:
    """Return one position along an axis, without that axis."""
    if item is None:
        return None
    axis %= len(item.shape)
    if item.array is not None:
        return constant(item.array.take(place, axis), item.name)
    assert item.value is not None
    shape = item.shape[:axis] + item.shape[axis + 1 :]
    return OnnxItem(item.dtype, builder.reshape(builder.slice(item.value, axis, place, 1), shape))


def _stacked(builder: GraphBuilder, items: Items, axis: int) -> OnnxItem | None:
    """Return the results of all iterations along a new axis."""
    found = [item for item in items if item is not None]
    if len(found) < len(items):
        return None
    rank = len(found[0].shape) + 1
    axis %= rank
    if all(item.array is not None for item in found):
        return constant(np.stack([np.asarray(item.array) for item in found], axis))
    shape = (*found[0].shape[:axis], 1, *found[0].shape[axis:])
    rows = [
        builder.reshape(item.value, shape) if item.value is not None else np.reshape(np.asarray(item.array), shape)
        for item in found
    ]
    return OnnxItem(found[0].dtype, builder.concat(rows, axis))
