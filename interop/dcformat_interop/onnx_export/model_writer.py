"""Writes a network as an ONNX model: inputs, nodes, outputs, and the metadata of the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcformat.errors import FormatError
from dcformat.graph import LSTM, Binary, Graph, Node, Output, Port, Reduce, Shape, Slice, with_batch
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import Model
from dcformat_interop.onnx_export.graph_writer import IR_VERSION, OPSET, GraphWriter, OnnxValue, has_batch
from dcformat_interop.onnx_export.operators import CONVERTERS, recurrent

#: The name of the dimension that is the batch.
BATCH = "batch"

#: Protobuf holds no more bytes.
_MOST_BYTES = (1 << 31) - 1


def to_onnx(model: Model, *, sparse: bool = False, max_memory: int | None = DEFAULT_MAX_MEMORY) -> bytes:
    """Return a network as an ONNX model.

    Inputs, outputs and tensors keep their names, if these differ; the dimension of the batch is called ``batch``.
    Preprocessing and labels become metadata (``mean``, ``std`` and ``labels``, separated by commas), because the
    network takes preprocessed input.

    Parameters
    ----------
    model : Model
    sparse : bool
        Whether to store tensors with few entries as sparse initializers, which are smaller.
    max_memory : int or None
        Maximum number of bytes of all tensors; None for no limit.

    Raises
    ------
    ValueError
        The model holds no network, or takes more than the 2 GiB of an ONNX file.
    MemoryLimitError
        The tensors take more than `max_memory`.
    ImportError
        The onnx package is not installed.
    """
    from onnx import helper

    graph = model.graph
    if graph is None:
        raise ValueError("model: expected a network, found only tensors")
    shapes = graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    taken = dict.fromkeys((*(port.name for port in graph.inputs), *(output.name for output in graph.outputs)))
    writer = GraphWriter(model.tensors, [name for name in taken if name], sparse, max_memory)
    inputs = [_input(writer, port) for port in graph.inputs]
    values = [_value(writer, port, value) for port, value in zip(graph.inputs, inputs, strict=True)]
    for number, node in enumerate(graph.nodes, len(graph.inputs)):
        values.append(_written(writer, graph, number, node, values, shapes))
    batched = any(value.batched for value in values[: len(inputs)])
    outputs = [_output(writer, graph, output, values, batched) for output in graph.outputs]
    body = helper.make_graph(
        [helper.make_node(n.operator, n.inputs, n.outputs, f"{n.operator}.{i}", **n.attributes)
         for i, n in enumerate(writer.nodes)],
        "dcformat", inputs, outputs, writer.initializers, sparse_initializer=writer.sparse_initializers,
    )  # fmt: skip
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(made, _metadata(model, graph))
    if made.ByteSize() > _MOST_BYTES:
        raise ValueError(f"model: expected at most 2 GiB in an ONNX file, found {made.ByteSize():,} bytes")
    return bytes(made.SerializeToString())


def _input(writer: GraphWriter, port: Port) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(port.name or writer.free("input"), _dtype(port), _dimensions(port, port.shape))


def _value(writer: GraphWriter, port: Port, info: Any) -> OnnxValue:
    """Return an input as float32 with the batch in front."""
    from onnx import TensorProto

    name, axis = str(info.name), port.batch_axis
    if axis is not None:
        writer.take_batch_from(name, axis)
    if port.dtype != "float32":
        name = writer.emit("Cast", name, to=TensorProto.FLOAT)
    if axis:
        rank = len(port.shape) + 1
        name = writer.emit("Transpose", name, perm=[axis, *(i for i in range(rank) if i != axis)])
    return OnnxValue(name, port.shape, axis is not None)


def _written(
    writer: GraphWriter, graph: Graph, number: int, node: Node, values: Sequence[OnnxValue], shapes: Sequence[Shape]
) -> OnnxValue:
    operands = [_operand(writer, operand, values) for operand in node.inputs]
    convert = CONVERTERS[type(node)]
    if isinstance(node, LSTM) and _inner_cells_are_read(graph, number, node, shapes[number]):
        convert = recurrent.stepwise_lstm
    try:
        name = convert(writer, node, operands, shapes[number])
    except FormatError as error:
        error.field = f"node {number - len(graph.inputs)}: {error.field}"
        raise
    return OnnxValue(name, shapes[number], has_batch(operands))


def _operand(writer: GraphWriter, operand: int | str | float, values: Sequence[OnnxValue]) -> OnnxValue:
    if isinstance(operand, str):
        return OnnxValue(writer.tensor(operand), writer.tensors[operand].shape, False)
    if isinstance(operand, float):
        return OnnxValue(writer.constant(np.float32(operand)), (), False)
    return values[operand]


def _inner_cells_are_read(graph: Graph, number: int, node: LSTM, shape: Shape) -> bool:
    """Return whether anything reads a cell state of another step than the last one."""
    steps, width = shape
    last = 0 if node.reverse else steps - 1
    pending = [(number, range(steps), range(width))]
    while pending:
        value, rows, columns = pending.pop()
        if set(rows) <= {last} or max(columns) < width // 2:
            continue
        if any(output.value == value for output in graph.outputs):
            return True
        for place, reader in enumerate(graph.nodes, len(graph.inputs)):
            if value not in reader.values:
                continue
            if not isinstance(reader, Slice):
                return True
            part = range(reader.start, reader.start + reader.size * reader.step, reader.step)
            kept = (rows, columns)[reader.axis]
            kept = range(kept[part[0]], kept[part[-1]] + kept.step * part.step, kept.step * part.step)
            pending.append((place, rows if reader.axis else kept, kept if reader.axis else columns))
    return False


def _output(writer: GraphWriter, graph: Graph, output: Output, values: Sequence[OnnxValue], batched: bool) -> Any:
    """Write an output with its dtype and the batch in its place."""
    from onnx import helper

    value = values[output.value]
    if batched:
        value = writer.expanded(value)
    name = value.name
    if output.dtype != "float32":
        node = graph.nodes[output.value - len(graph.inputs)] if output.value >= len(graph.inputs) else None
        name = _as_dtype(writer, name, output, node)
    if output.batch_axis:
        order = list(range(1, len(value.shape) + 1))
        order.insert(output.batch_axis, 0)
        name = writer.emit("Transpose", name, perm=order)
    inputs = {port.name for port in graph.inputs}
    final = writer.free("output" if not output.name else output.name) if output.name in inputs else output.name
    writer.name_output(name, final)
    return helper.make_tensor_value_info(final, _dtype(output), _dimensions(output, value.shape))


def _as_dtype(writer: GraphWriter, name: str, output: Output, node: Node | None) -> str:
    """Round to whole numbers in range, as a session does."""
    dtype = np.dtype(output.dtype)
    if dtype.kind not in "iu" or _is_within(dtype, node):
        return str(writer.emit("Cast", name, to=_dtype(output)))
    low, high = (np.float32(bound) for bound in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    if dtype.itemsize > 2:  # float32 rounds the greatest number up, out of range
        high = np.nextafter(high, np.float32(0))
    name = writer.emit("Clip", writer.emit("Round", name), writer.constant(low), writer.constant(high))
    return str(writer.emit("Cast", name, to=_dtype(output)))


def _is_within(dtype: np.dtype[Any], node: Node | None) -> bool:
    """Return whether a node gives whole numbers that a dtype holds."""
    if isinstance(node, Binary):
        return node.function in ("equal", "less", "less_equal")
    return isinstance(node, Reduce) and node.function.startswith("arg") and dtype.itemsize >= 4


def _dtype(port: Port | Output) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)))


def _dimensions(port: Port | Output, shape: Shape) -> list[int | str]:
    return [BATCH if size is None else size for size in with_batch(shape, port.batch_axis)]


def _metadata(model: Model, graph: Graph) -> dict[str, str]:
    found = dict(model.metadata)
    if model.labels:
        found["labels"] = ",".join(model.labels)
    if graph.preprocessing is not None:
        found["mean"] = ",".join(f"{value:.9g}" for value in graph.preprocessing.mean)
        found["std"] = ",".join(f"{value:.9g}" for value in graph.preprocessing.std)
    return found
