"""Makes a model ready to run: validates it, makes weights float32 CSR, and fuses clips into the layers before.

It proves that everything by which a kernel will index is in range: `indptr`, `indices`, shapes and wiring. No
other module of this package looks at a tensor of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from dcformat.errors import GraphError
from dcformat.floats import bit_patterns
from dcformat.graph import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    Node,
    Reduce,
    Shape,
    Softmax,
)
from dcformat.graph_attributes import OPERATORS
from dcformat.model import Model, Tensor
from dcformat.records import record, replace
from dcformat.validate import check_tensor
from dcformat_runtime.as_floats import pixel_table, to_float32
from dcformat_runtime.bounds import UNBOUNDED, Bound, Bounds, bounds_of
from dcformat_runtime.elementwise_layers import Elementwise, fits_layers
from dcformat_runtime.weight_matrices import Floats, Matrix, Sparse

_LAYERS = (Linear, Conv, MaxPool, AvgPool, Reduce, Flatten, Concat, Softmax)

_CLIPS = (Linear, Conv, Add, MaxPool, Bound)
#: Maximum number of operators in an elementwise layer.
_MAX_NODES = 64


@record(eq=False)
class Layer:
    """A layer of the network: an operator, then optionally a max pool or a residual, whose result is then clipped.

    `inputs` and `output` are numbers of values that are really stored; `name` is for people. Layers with a weight have
    a `matrix` and, once the weight is decoded, `weight` and `bias` too. A convolution with a second input adds that
    `residual` to its result. At last the result is clipped to the `bounds`, as by ReLU.
    """

    name: str
    node: Node
    inputs: tuple[int, ...]
    output: int
    in_shapes: tuple[Shape, ...]
    out_shape: Shape
    matrix: Matrix | None = None
    weight: Sparse | None = None
    bias: Floats | None = None
    pool: MaxPool | None = None
    bounds: Bounds = UNBOUNDED
    conv_shape: Shape = ()
    """The shape of a convolution's result before its pool."""

    @property
    def residual(self) -> int | None:
        """The value that a convolution adds to its result; None for other layers."""
        return self.inputs[1] if isinstance(self.node, Conv) and len(self.inputs) == 2 else None


@record(eq=False)
class Network:
    """The layers in execution order; value 0 is the input, and `output` the last value."""

    layers: tuple[Layer, ...]
    input_shape: Shape
    output_shape: Shape
    output: int
    pixels: Floats | None
    """Float32 of each uint8 pixel value, ``(channels or 1, 256)``; None without preprocessing."""

    @property
    def outputs(self) -> int:
        """Number of outputs for one input."""
        return prod(self.output_shape)

    def shape(self, value: int) -> Shape:
        """Return a value's shape, for one input."""
        return self.layers[value - 1].out_shape if value else self.input_shape


def lower(model: Model) -> Network:
    """Validate `model` and return its `Network`.

    Layers that name the same tensor share its arrays.

    Raises
    ------
    GraphError
        The graph is missing or empty, or has an operator that this runtime does not know.
    FormatError
        Tensors contradict the graph or themselves.
    """
    plain = outline(model.graph, matrices(model.tensors))
    weights: dict[str, Sparse] = {}
    biases: dict[str, Floats] = {}
    for layer in plain.layers:
        if not isinstance(layer.node, (Linear, Conv)):
            continue
        name, bias = layer.node.weight, layer.node.bias
        if name not in weights:
            weights[name] = sparse(model.tensors[name])
        if bias is not None and bias not in biases:
            check_tensor(bias, model.tensors[bias])
            biases[bias] = to_float32(model.tensors[bias], model.tensors[bias].to_dense().reshape(-1))
    return replace(plain, layers=tuple(_load(layer, weights, biases) for layer in plain.layers))


def matrices(tensors: Mapping[str, Tensor]) -> dict[str, Matrix]:
    """Return a `Matrix` for each decoded tensor, without looking at its elements."""
    return {
        name: Matrix(tensor.shape, len(tensor.data) if tensor.is_sparse else tensor.size)
        for name, tensor in tensors.items()
    }


def takes_rows(graph: Graph, shapes: Sequence[Shape]) -> bool:
    """Return whether one segment is the whole graph, and a row of features stands for its input and for its output."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return False
    port, output = graph.inputs[0], graph.outputs[0]
    plain = port.dtype == output.dtype == "float32" and port.batch_axis == output.batch_axis == 0
    if not plain or len(port.shape) not in (1, 3) or output.value != len(graph.nodes):
        return False
    operands = ([shapes[value] for value in node.values] for node in graph.nodes)
    return all(
        runs(node, found, out) for node, found, out in zip(graph.nodes, operands, shapes[1:], strict=True)
    )  # fmt: skip


def check_graph(graph: Graph | None, tensors: Mapping[str, Matrix]) -> list[Shape]:
    """Validate a graph and return the shape of every value; `tensors` are all tensors of the file.

    Raises
    ------
    GraphError, ShapeError
        The graph is missing, empty or not valid.
    """
    if graph is None:
        raise GraphError("graph", got="none (a bag of tensors)", expected="a network to run")
    if not graph.nodes:
        raise GraphError("graph", got="no operators", expected="at least one")
    known = set(OPERATORS.values())
    for number, node in enumerate(graph.nodes):
        if type(node) not in known:
            raise GraphError(f"node {number}", got=node.kind or type(node).__name__, expected="a known operator")
    return graph.shapes({name: matrix.shape for name, matrix in tensors.items()})


def outline(graph: Graph | None, tensors: Mapping[str, Matrix], shapes: list[Shape] | None = None) -> Network:
    """Validate a graph and return its `Network`, without weights.

    Parameters
    ----------
    graph : Graph or None
    tensors : mapping of str to Matrix
        All tensors of the file.
    shapes : list of tuple of int, optional
        What `check_graph` returned for this graph, if it was called before.

    Raises
    ------
    GraphError, ShapeError
        As for `lower`.
    """
    shapes = check_graph(graph, tensors) if shapes is None else shapes
    assert graph is not None
    for number, node in enumerate(graph.nodes):
        if not runs(node, [shapes[value] for value in node.values], shapes[number + 1]):
            found = f"{node.kind} of {', '.join(str(shapes[value]) for value in node.values)}"
            raise GraphError(
                f"node {number}", got=found, expected="an operator that this runtime has; not yet this one"
            )
    layers, output = _fuse(graph, shapes)
    layers = [
        replace(layer, matrix=tensors[layer.node.weight]) if isinstance(layer.node, (Linear, Conv)) else layer
        for layer in layers
    ]
    return Network(tuple(layers), graph.input_shape, shapes[-1], output, pixel_table(graph))


def runs(node: Node, inputs: Sequence[Shape], out: Shape) -> bool:
    """Return whether layers of a network can compute a node, for values of these shapes."""
    ranks = {len(shape) for shape in inputs}
    if not {*ranks, len(out)} <= {1, 3}:
        return False
    if bounds_of(node) is not None or fits_layers(node, inputs, out):
        return True
    if type(node) not in _LAYERS or len(inputs) != len(node.inputs):
        return False
    match node:
        case Conv() | MaxPool() | AvgPool():
            return ranks == {3} and len(node.stride) == 2 and node.padding == node.padding_end
        case Linear():
            return ranks == {1}
        case Reduce():
            return ranks == {3} and node.function in ("mean", "max") and node.axes == (1, 2)
        case Concat():
            return node.axis == 0
        case Softmax():  # an axis counts dimensions that a segment may not see
            return ranks == {1} and node.axis is None
    return True


def _fuse(graph: Graph, shapes: list[Shape]) -> tuple[list[Layer], int]:
    """Turn nodes into layers; clips, max pool and sums join the layer before them if only they read its result."""
    uses = [0] * len(shapes)
    for node in graph.nodes:
        for value in node.values:
            uses[value] += 1
    layers: list[Layer] = []
    made_by: dict[int, int] = {}  # for each value of the graph, the index of its layer
    for number, node in enumerate(graph.nodes):
        # Of the operands of a sum, the layer that comes last can add the other.
        last = max(node.values, key=lambda value: made_by.get(value, -1))
        source = made_by.get(last)
        inputs = tuple(made_by[v] + 1 if v else 0 for v in node.values)
        in_shapes, shape = tuple(shapes[v] for v in node.values), shapes[number + 1]
        if source is not None and uses[last] == node.values.count(last):
            others = tuple(v for v in inputs if v != source + 1)
            joined = _join(layers[source], node, shape, others) or _extend(layers[source], node, inputs, in_shapes)
            if joined is not None:
                layers[source] = joined
                made_by[number + 1] = source
                continue
        made_by[number + 1] = len(layers)
        name = node.tensors[0] if node.tensors else f"{node.kind}.{number}"
        conv_shape = shape if isinstance(node, Conv) else ()
        layer = Layer(name, node, inputs, len(layers) + 1, in_shapes, shape, conv_shape=conv_shape)
        layers.append(_alone(layer))
    return layers, made_by[len(graph.nodes)] + 1


def _alone(layer: Layer) -> Layer:
    """Return the layer of a node that joined no other; an elementwise one may be extended by those that follow."""
    bounds = bounds_of(layer.node)
    if bounds is not None:
        return replace(layer, node=Bound(layer.node.values), bounds=bounds)
    plain = isinstance(layer.node, Add) and len(layer.inputs) == len(layer.node.inputs) and len({*layer.in_shapes}) == 1
    if plain or not fits_layers(layer.node, layer.in_shapes, layer.out_shape):
        return layer
    empty = replace(layer, node=Elementwise((), ()), inputs=(), in_shapes=())
    return _extend(empty, layer.node, layer.inputs, layer.in_shapes) or layer


def _extend(layer: Layer, node: Node, inputs: tuple[int, ...], in_shapes: tuple[Shape, ...]) -> Layer | None:
    """Return an elementwise layer with the operator `node` at its end; None if either is not elementwise.

    `inputs` are the stored values that the node reads. The layer's own result is one of them, except for its first.
    """
    own = layer.node
    if not isinstance(own, Elementwise) or len(own.nodes) == _MAX_NODES:
        return None
    if not fits_layers(node, in_shapes, layer.out_shape):
        return None
    shapes = dict(zip(layer.inputs, layer.in_shapes, strict=True))
    shapes |= {value: shape for value, shape in zip(inputs, in_shapes, strict=True) if value != layer.output}
    values = tuple(shapes)
    moved = len(values) - len(layer.inputs)
    nodes = [_renumbered(old, lambda v: v if v < len(layer.inputs) else v + moved) for old in own.nodes]
    last = len(values) + len(nodes) - 1
    stored = dict(zip(node.values, inputs, strict=True))
    nodes.append(_renumbered(node, lambda v: last if stored[v] == layer.output else values.index(stored[v])))
    return replace(layer, node=Elementwise(values, tuple(nodes)), inputs=values, in_shapes=tuple(shapes.values()))


def _renumbered(node: Node, number: Callable[[int], int]) -> Node:
    """Return a node that reads other values."""
    return replace(node, inputs=tuple(number(v) if isinstance(v, int) else v for v in node.inputs))


def _join(layer: Layer, node: Node, shape: Shape, others: tuple[int, ...]) -> Layer | None:
    """Return `layer` with the operator `node` at its end, whose other operands are `others`; None if that cannot be."""
    bounds = bounds_of(node)
    if bounds is not None and isinstance(layer.node, _CLIPS):
        low, high = bounds
        return replace(layer, bounds=(min(max(layer.bounds[0], low), high), min(max(layer.bounds[1], low), high)))
    if isinstance(node, Add):
        # The planes of the network's input (value 0) may lie at other distances than those of a result.
        plain = layer.bounds == UNBOUNDED and layer.pool is None and layer.residual is None
        alone = isinstance(layer.node, Conv) and plain
        if alone and len(others) == 1 and others[0]:
            return replace(layer, inputs=(*layer.inputs, *others), in_shapes=(*layer.in_shapes, shape))
        return None
    # Maximum and clips commute, so a pool after a clip joins too; no window holds only padding.
    if isinstance(node, MaxPool) and isinstance(layer.node, Conv) and layer.pool is None and len(layer.inputs) == 1:
        return replace(layer, pool=node, out_shape=shape)
    return None


def _load(layer: Layer, weights: Mapping[str, Sparse], biases: Mapping[str, Floats]) -> Layer:
    node = layer.node
    if not isinstance(node, (Linear, Conv)):
        return layer
    weight = weights[node.weight]
    bias = np.zeros(weight.rows, np.float32) if node.bias is None else biases[node.bias]
    return replace(layer, weight=weight, bias=bias)


def sparse(tensor: Tensor) -> Sparse:
    """Return a tensor's nonzero elements as consistent float32 CSR; a sparse tensor is never made dense.

    Float32 values are those of the tensor, not a copy, if nothing has to be left out.
    """
    check_tensor(tensor.name, tensor)
    if not (tensor.is_sparse or tensor.is_constant):
        values = tensor.values()
        if bit_patterns(values).all():
            indptr = np.arange(tensor.rows + 1, dtype=np.int64) * tensor.columns
            return Sparse(tensor.shape, indptr, None, to_float32(tensor, values))
    indptr, indices, values = tensor.to_csr()
    listed = None if values.size == prod(tensor.shape) else indices
    return Sparse(tensor.shape, np.asarray(indptr, np.int64), listed, to_float32(tensor, values))
