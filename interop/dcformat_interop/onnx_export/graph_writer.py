"""A writer of ONNX graphs: names values, stores constants, and keeps the batch in front of every value that has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.floats import as_numbers
from dcformat.graph import Shape
from dcformat.limits import require_memory
from dcformat.model import STORAGE, Tensor

Array = npt.NDArray[Any]

#: The operator set and the file version, both old enough for every recent runtime.
OPSET, IR_VERSION = 13, 8

#: Bytes of the index of an entry of a sparse initializer.
_INDEX = 8


class OnnxValue(NamedTuple):
    """A value in the ONNX graph: its name, its shape without the batch, and whether the batch is in front of it."""

    name: str
    shape: Shape
    batched: bool


class OnnxNode(NamedTuple):
    """A node to be written: operator, names of inputs and outputs, and attributes."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any]


def dense(tensor: Tensor, max_memory: int | None = None) -> npt.NDArray[np.float32]:
    """Return a tensor's values as a dense float32 array of its shape."""
    values = tensor.to_dense(max_memory=max_memory)
    out: npt.NDArray[np.float32] = as_numbers(values, tensor.dtype).astype(np.float32, copy=False)
    return out if tensor.scale == 1.0 else out * np.float32(tensor.scale)


class GraphWriter:
    """Collects the nodes and initializers of an ONNX graph.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        The tensors of the model.
    taken : iterable of str
        The names of the inputs and outputs.
    sparse : bool
        Whether to store tensors with few entries as sparse initializers.
    max_memory : int or None
        Maximum number of bytes of all initializers; None for no limit.

    Attributes
    ----------
    initializers, sparse_initializers : list of TensorProto, list of SparseTensorProto
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], taken: Sequence[str], sparse: bool, max_memory: int | None
    ) -> None:
        self.tensors, self.max_memory = tensors, max_memory
        self._nodes: list[OnnxNode] = []
        self.initializers: list[Any] = []
        self.sparse_initializers: list[Any] = []
        self._sparse, self._bytes = sparse, 0
        self._names = set(taken)
        self._known: dict[object, str] = {}
        self._batch: Callable[[], str] | None = None
        self._outputs: dict[str, str] = {}

    @property
    def nodes(self) -> list[OnnxNode]:
        """The nodes; results that are outputs have the names of these."""
        named = self._outputs
        return [
            OnnxNode(op, [named.get(n, n) for n in inputs], [named.get(n, n) for n in outputs], attributes)
            for op, inputs, outputs, attributes in self._nodes
        ]

    def name_output(self, name: str, final: str) -> None:
        """Make a value an output of the graph."""
        made = any(name in node.outputs for node in self._nodes)
        if not made or name in self._outputs:
            name = self.emit("Identity", name)
        self._outputs[name] = final

    def free(self, name: str) -> str:
        """Return a name that nothing else in the graph has, `name` itself if possible, and reserve it."""
        name = name or "unnamed"
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}.{count}"
        self._names.add(found)
        return found

    def emit(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node, and return the name of its result, or a list of names if there are several."""
        names = [self.free(f"{operator.lower()}.{len(self._nodes)}") for _ in range(outputs)]
        self._nodes.append(OnnxNode(operator, inputs, names, attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: npt.ArrayLike, name: str = "constant") -> str:
        """Return the name of an initializer with these values."""
        array = np.asarray(values)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.store(array, name)
        return self._known[key]

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a list of int64 numbers."""
        return self.constant(np.array(values, np.int64))

    def store(self, array: Array, name: str) -> str:
        """Store an initializer, and return its name, which differs from `name` if that one is taken."""
        from onnx import numpy_helper

        self._count(array.nbytes)
        name = self.free(name)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def tensor(self, name: str) -> str:
        """Return the name of a tensor of the model, in float32.

        The initializer keeps the tensor's own dtype. A Cast or DequantizeLinear after it converts it as the runtime
        does.
        """
        key = ("tensor", name)
        if key not in self._known:
            self._known[key] = self._float32(self.tensors[name], self._stored(name))
        return self._known[key]

    def array(self, name: str) -> npt.NDArray[np.float32]:
        """Return the values of a tensor of the model, in float32."""
        return dense(self.tensors[name], self.max_memory)

    def reshape(self, operand: OnnxValue, shape: Shape) -> OnnxValue:
        """Return the elements of an operand in another shape; the batch stays in front."""
        if operand.shape == shape:
            return operand
        return OnnxValue(self.reshaped(operand.name, shape, operand.batched), shape, operand.batched)

    def reshaped(self, name: str, shape: Shape, batched: bool = True) -> str:
        """Return a value as ``(batch, *shape)``, in which the batch takes the remaining elements, or as ``shape``."""
        dimensions = (-1, *shape) if batched else shape
        return str(self.emit("Reshape", name, self.integers(dimensions)))

    def aligned(self, operand: OnnxValue, rank: int) -> str:
        """Return an operand that broadcasts with others of `rank`: ones follow the batch of a shorter one."""
        if not operand.batched:
            return operand.name
        return self.reshape(operand, (1,) * (rank - len(operand.shape)) + operand.shape).name

    def expanded(self, operand: OnnxValue) -> OnnxValue:
        """Return an operand with a batch, repeated for all of it if it had none."""
        if operand.batched:
            return operand
        shape = self.emit("Concat", self._batch_size(), self.integers(operand.shape), axis=0)
        return OnnxValue(self.emit("Expand", operand.name, shape), operand.shape, True)

    def take_batch_from(self, name: str, axis: int) -> None:
        """Remember an input of the graph whose dimension `axis` is the batch."""

        def size() -> str:
            axes = [self.integers([number]) for number in (axis, axis + 1)]
            return str(self.emit("Slice", self.emit("Shape", name), *axes))

        self._batch = self._batch or size

    def _batch_size(self) -> str:
        """Return the name of a list with one number, the size of the batch."""
        assert self._batch is not None  # an operand gets a batch only if an input has one
        if "batch" not in self._known:
            self._known["batch"] = self._batch()
        return self._known["batch"]

    def _stored(self, name: str) -> str:
        """Store a tensor of the model in its own dtype."""
        from onnx import TensorProto, helper, numpy_helper

        tensor = self.tensors[name]
        item = STORAGE[tensor.dtype].itemsize
        if self._sparse and tensor.is_sparse and tensor.nnz * (_INDEX + item) < tensor.nbytes:
            self._count(tensor.nnz * (_INDEX + item))
            indptr, indices, values = tensor.to_csr(max_memory=self.max_memory)
            flat = np.repeat(np.arange(tensor.rows), np.diff(indptr)) * tensor.columns + indices
            free = self.free(name)
            entries = _proto(tensor.dtype, values, free, values.shape)
            positions = numpy_helper.from_array(flat.astype(np.int64), f"{free}.indices")
            self.sparse_initializers.append(helper.make_sparse_tensor(entries, positions, tensor.shape))
            return free
        self._count(tensor.nbytes)
        if tensor.dtype != "bfloat16":
            return self.store(tensor.to_dense(max_memory=self.max_memory), name)
        free = self.free(name)
        made = helper.make_tensor(
            free, TensorProto.BFLOAT16, tensor.shape, tensor.to_dense(max_memory=self.max_memory).tobytes(), raw=True
        )
        self.initializers.append(made)
        return free

    def _float32(self, tensor: Tensor, stored: str) -> str:
        from onnx import TensorProto

        if tensor.dtype == "float32":
            return stored
        if tensor.scale != 1.0:
            scale, zero = self.constant(np.float32(tensor.scale)), self.constant(np.int8(0))
            return str(self.emit("DequantizeLinear", stored, scale, zero))
        return str(self.emit("Cast", stored, to=TensorProto.FLOAT))

    def _count(self, size: int) -> None:
        self._bytes += size
        require_memory("tensors of the ONNX model", self._bytes, self.max_memory)


def _proto(dtype: str, values: Array, name: str, shape: Shape) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    if dtype != "bfloat16":
        return numpy_helper.from_array(values, name)
    return helper.make_tensor(name, TensorProto.BFLOAT16, shape, values.tobytes(), raw=True)


#: Writes a node: takes the writer, the node, its operands, and the shape of its result without the batch. Returns the
#: name of the result, which has the batch in front if an operand has.
Convert = Callable[[GraphWriter, Any, Sequence[OnnxValue], Shape], str]


def has_batch(operands: Sequence[OnnxValue]) -> bool:
    """Return whether the result of an operator has a batch."""
    return any(operand.batched for operand in operands)


def lead(operands: Sequence[OnnxValue]) -> int:
    """Return by how much the axes of the result are shifted by the batch."""
    return int(has_batch(operands))


def flattened(writer: GraphWriter, operand: OnnxValue, kept: int) -> str:
    """Return an operand whose dimensions before the last `kept` ones are joined with the batch."""
    if operand.batched and len(operand.shape) == kept:
        return operand.name
    return writer.reshaped(operand.name, operand.shape[len(operand.shape) - kept :])


def restored(writer: GraphWriter, name: str, operand: OnnxValue, kept: int, out: Shape) -> str:
    """Return a result in the shape `out`, after `flattened` of its operand."""
    if operand.batched and len(operand.shape) == kept:
        return name
    return writer.reshaped(name, out, operand.batched)
