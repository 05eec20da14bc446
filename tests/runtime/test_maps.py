"""Maps: consecutive elementwise nodes in one compiled pass, against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf, inf, nan
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.compile import maps
from dcformat_runtime.compile.maps import Map
from dcformat_runtime.kernels import map_functions as words
from dcformat_runtime.segments import divide

import dcformat
from dcformat import Model
from dcformat.errors import GraphError
from dcformat.graph import (
    Add,
    Binary,
    Flatten,
    Graph,
    MatMul,
    Node,
    Normalize,
    Operand,
    Output,
    Port,
    Quantize,
    Reduce,
    ReLU,
    Reshape,
    Softmax,
    Unary,
    Where,
)

Numbers = Any
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (3, 5), (4, 1, 6), (2, 3, 4, 5), (3, 700), (1100,), (5, 2, 130)]


def planned(graph: Graph, **tensors: tuple[int, ...]) -> list[Any]:
    shapes = graph.shapes(tensors)
    return maps.join(graph, shapes, tensors, divide(graph, shapes))


def model_of(graph: Graph, **tensors: Numbers) -> Model:
    return Model({name: dcformat.from_dense(name, array) for name, array in tensors.items()}, graph)


def compiled(nodes: Sequence[Node], *inputs: Numbers, **tensors: Numbers) -> Numbers:
    """Return the last node's result, computed by kernels; the first dimension of inputs is the batch."""
    graph = Graph(
        tuple(Port(x.shape[1:], f"x{k}") for k, x in enumerate(inputs)), tuple(nodes),
        (Output(len(inputs) + len(nodes) - 1, "y"),),
    )  # fmt: skip
    session = Session.from_model(model_of(graph, **tensors), backend="numba")
    return session({f"x{k}": x for k, x in enumerate(inputs)})["y"]


def numbers() -> Numbers:
    """Return float32 numbers of every size, special ones among them, and none that is denormal."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 60_000, np.uint64).astype(np.uint32)
    special = [
        0.0,
        -0.0,
        inf,
        -inf,
        nan,
        0.5,
        1.5,
        2.5,
        -0.5,
        -0.3,
        1.0,
        -1.0,
        8388607.5,
        88.722839,
        88.73,
        -87.33,
        -104.0,
    ]
    around = np.linspace(-100, 100, 40_001), np.linspace(-2, 2, 20_001), np.array(special)
    x = np.concatenate([bits.view(np.float32), *(part.astype(np.float32) for part in around)])
    return x[~((np.abs(x) < np.finfo(np.float32).tiny) & (x != 0))]


def flushed(x: Numbers) -> Numbers:
    """Return numbers with zeros for denormal ones; the kernel's Python form keeps these."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), x)


def sigmoid(x: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-x))


UNARY: dict[str, tuple[Callable[[Numbers], Numbers], float]] = {
    "neg": (np.negative, 0), "abs": (np.abs, 0), "sign": (np.sign, 0), "floor": (np.floor, 0), "ceil": (np.ceil, 0),
    "round": (np.rint, 0), "sqrt": (np.sqrt, 0.51), "exp": (np.exp, 1.1), "log": (np.log, 1.1),
    "erf": (np.vectorize(erf), 1.5), "sigmoid": (sigmoid, 2.5), "tanh": (np.tanh, 1.5),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_functions_over_the_whole_range(name: str) -> None:
    """Errors are at most a few units in the last place of float64's result; results below 2^-126 are 0."""
    x = numbers()
    found = compiled([Unary((0,), name)], x[None])[0]
    function, units = UNARY[name]
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.float64))
        expected = exact.astype(np.float32)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    tiny = np.finfo(np.float32).tiny
    unit = np.maximum(np.spacing(np.abs(expected[finite])), tiny * (units > 0))
    error = np.abs(found[finite].astype(np.float64) - exact[finite]) / np.maximum(
        unit, np.finfo(np.float32).smallest_subnormal
    )
    assert error.max() <= units


@pytest.mark.parametrize("name", ["sub", "mul", "div", "minimum", "maximum", "equal", "less", "less_equal"])
def test_functions_of_two_numbers(name: str) -> None:
    special = np.array([0.0, -0.0, 1.0, -1.5, inf, -inf, nan, 3e38, 1e-37], np.float32)
    x, y = (a.reshape(1, -1) for a in np.meshgrid(special, special))
    function = {"sub": "subtract", "mul": "multiply", "div": "divide"}.get(name, name)
    with np.errstate(all="ignore"):
        expected = getattr(np, function)(x, y).astype(np.float32)
    np.testing.assert_array_equal(flushed(compiled([Binary((0, 1), name)], x, y)), flushed(expected))


def test_where_and_quantise() -> None:
    x = numbers()[None]
    found = compiled([Where((0, 2.0, 0))], x)
    np.testing.assert_array_equal(found, np.where(x != 0, 2, x))
    found = compiled([Quantize((0,), 0.05, 3, -128, 127)], x)
    with np.errstate(all="ignore"):
        steps = np.clip(np.rint(x / np.float32(0.05)) + np.float32(3), np.float32(-128), np.float32(127))
    np.testing.assert_array_equal(found, (steps - np.float32(3)) * np.float32(0.05))


def test_powers() -> None:
    x = numbers()[None]
    with np.errstate(all="ignore"):
        square, cube = x * x, x * x * x
    np.testing.assert_array_equal(flushed(compiled([Binary((0, 2.0), "pow")], x)), flushed(square))
    found = compiled([Binary((0, 3.0), "pow")], x)
    np.testing.assert_allclose(found, cube, rtol=1e-6, atol=float(np.finfo(np.float32).tiny))


class RandomGraph:
    """A graph of elementwise nodes without rounding errors, with operands that broadcast in every way."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shape = SHAPES[seed % len(SHAPES)]
        ports = (Port(self.shape, "x0"), Port(self.narrower(), "x1"), Port(self.narrower(), "x2"))
        self.shapes = [port.shape for port in ports]
        self.tensors = {name: self.numbers(self.narrower()) for name in ("t0", "t1", "t2")}
        nodes = [self.node() for _ in range(int(self.random.integers(1, 14)))]
        kept = sorted({len(self.shapes) - 1, int(self.random.integers(3, len(self.shapes)))})
        used = {name for node in nodes for name in node.tensors}
        graph = Graph(ports, tuple(nodes), tuple(Output(value, f"y{value}") for value in kept))
        self.model = model_of(graph, **{name: self.tensors[name] for name in used})
        batch = int(self.random.integers(1, 4))
        self.inputs = {port.name: self.numbers((batch, *port.shape)) for port in ports}

    def numbers(self, shape: tuple[int, ...]) -> Numbers:
        return (2 * self.random.standard_normal(shape)).astype(np.float32)

    def narrower(self) -> tuple[int, ...]:
        """Return a shape that broadcasts to `shape`."""
        found = tuple(1 if self.random.random() < 0.4 else size for size in self.shape)
        return found[int(self.random.integers(len(found) + 1)) :] if self.random.random() < 0.4 else found

    def operand(self) -> Operand:
        kind = self.random.random()
        if kind < 0.15:
            return float(self.random.standard_normal())
        return f"t{self.random.integers(3)}" if kind < 0.3 else int(self.random.integers(len(self.shapes)))

    def node(self) -> Node:
        value = int(self.random.integers(max(0, len(self.shapes) - 4), len(self.shapes)))
        unary = str(self.random.choice(["neg", "abs", "sign", "floor", "ceil", "round", "sqrt"]))
        binary = str(self.random.choice(["sub", "mul", "minimum", "maximum", "equal", "less", "less_equal"]))
        choices: list[Node] = [
            Unary((value,), unary), ReLU((value,)), Add((value, self.operand(), self.operand())),
            Binary((self.operand(), value), binary), Where((self.operand(), value, self.operand())),
            Quantize((value,), 0.25, 1, -20, 20),
        ]  # fmt: skip
        node = choices[int(self.random.integers(len(choices)))]
        self.shapes.append(np.broadcast_shapes(*(self.shape_of(operand) for operand in node.inputs)))
        return node

    def shape_of(self, operand: Operand) -> tuple[int, ...]:
        if isinstance(operand, float):
            return ()
        return self.shapes[operand] if isinstance(operand, int) else self.tensors[operand].shape


@pytest.mark.parametrize("seed", range(120))
def test_random_graphs(seed: int) -> None:
    """All results are those of NumPy, and the inputs remain unchanged."""
    made = RandomGraph(seed)
    before = {name: x.copy() for name, x in made.inputs.items()}
    expected = Session.from_model(made.model, backend="numpy")(made.inputs)
    found = Session.from_model(made.model, backend="numba")(made.inputs)
    for name, y in expected.items():
        np.testing.assert_array_equal(found[name], y)
    for name, x in made.inputs.items():
        np.testing.assert_array_equal(x, before[name])


def test_a_chain_is_one_map() -> None:
    swish = (Unary((0,), "sigmoid"), Binary((0, 1), "mul"), Add((2, "bias")))
    graph = Graph((Port((4, 6), "x"),), swish, (Output(3),))
    (found,) = planned(graph, bias=(6,))
    assert (found.start, found.stop, found.target, found.values) == (0, 3, 3, (0,))
    assert [(source.operand, source.size, source.like) for source in found.sources] == [
        (0, 24, True),
        ("bias", 6, False),
    ]
    assert found.code.program[:, words.FUNCTION].tolist() == [
        words.LOAD, words.SIGMOID, words.MUL, words.LOAD, words.ADD, words.STORE,
    ]  # fmt: skip
    # The bias: runs of 6 elements; outside them it repeats.
    assert found.code.loads[1].tolist() == [1, 2, 6, 1, 1 << 62, 0]


def test_a_map_ends_where_another_node_reads_a_value() -> None:
    nodes = (ReLU((0,)), Unary((1,), "neg"), Reduce((1,), "sum", (0,)), Add((2, 3)))
    found = planned(Graph((Port((6,), "x"),), nodes, (Output(4),)))
    assert [step if isinstance(step, int) else (step.start, step.stop) for step in found] == [(0, 1), (1, 2), 2, (3, 4)]


def test_sines_and_other_powers_stay_outside() -> None:
    nodes = (Unary((0,), "sin"), Binary((1, 0.7), "pow"), Binary((2.0, 2), "pow"))
    assert planned(Graph((Port((6,), "x"),), nodes, (Output(3),))) == [0, 1, 2]


def test_more_arrays_than_a_map_reads() -> None:
    ports = tuple(Port((5,), f"x{k}") for k in range(9))
    nodes: list[Node] = [Add((0, 1))]
    nodes += [Add((8 + k, k + 1)) for k in range(1, 8)]
    steps = planned(Graph(ports, tuple(nodes), (Output(16),)))
    assert [len(step.sources) for step in steps if isinstance(step, Map)] == [6, 4]
    inputs = [np.full((2, 5), 2.0**k, np.float32) for k in range(9)]
    np.testing.assert_array_equal(compiled(nodes, *inputs), np.full((2, 5), 511))


def test_more_constants_than_registers() -> None:
    nodes = [Add((k, 2.0**k)) for k in range(40)]
    graph = Graph((Port((3,), "x"),), tuple(nodes), (Output(40),))
    steps = planned(graph)
    assert len(steps) == 2
    assert all(step.code.registers <= maps.REGISTERS for step in steps)
    with np.errstate(all="ignore"):
        expected = np.float32(0)
        for k in range(40):
            expected += np.float32(2.0**k)
    np.testing.assert_array_equal(compiled(nodes, np.zeros((1, 3), np.float32)), np.full((1, 3), expected))


def test_a_view_of_a_value_is_not_overwritten() -> None:
    """Value 2 is a view of value 1, which is read again after the last map that reads value 2."""
    nodes = (Add((0, 1.0)), Reshape((1,), (3, 2)), Unary((2,), "neg"), Flatten((3,)), Add((1, 4)))
    x = np.arange(6, dtype=np.float32).reshape(1, 6)
    np.testing.assert_array_equal(compiled(nodes, x), np.zeros((1, 6)))


def test_a_result_takes_the_place_of_what_it_was_made_of() -> None:
    nodes = (Add((0, 1.0)), MatMul((1, "w")), Unary((1,), "neg"), Add((2, 3)))
    graph = Graph((Port((3, 3), "x"),), nodes, (Output(4),))
    steps = planned(graph, w=(3, 3))
    assert maps.overwritable(graph, steps) == {1, 2, 4}
    x = np.ones((2, 3, 3), np.float32)
    np.testing.assert_array_equal(compiled(nodes, x, w=np.eye(3, dtype=np.float32)), np.zeros((2, 3, 3)))


def test_an_empty_batch() -> None:
    assert compiled([Add((0, 1.0))], np.empty((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize(
    "node",
    [
        *(Unary((0,), name) for name in UNARY), ReLU((0,)), Binary((0, 0.0), "minimum"), Binary((-0.0, 0), "maximum"),
        Quantize((0,), 0.05, 3, -128, 127), Softmax((0,)), Normalize((0,), (0, 1), 1e-5),
        Normalize((0,), (1,), 1e-5, False), Reduce((0,), "mean", (1,)), Reduce((0,), "sum", (0, 1), True),
        Reduce((0,), "max", (1,)),
    ],
)  # fmt: skip
def test_deterministic_sessions_give_the_same_bits(node: Node) -> None:
    x = np.random.default_rng(1).normal(0, 3, (3, 40, 197)).astype(np.float32)
    x[0, 0, :2] = 0.0, -0.0
    model = Model({}, Graph.sequential((40, 197), [node]))
    found = [
        Session.from_model(model, backend=backend, deterministic=True)(x[:batch])[:1]
        for backend in ("numba", "numpy")
        for batch in (3, 1)
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other.view(np.uint32), found[0].view(np.uint32))


@pytest.mark.parametrize("node", [Unary((0,), "sin"), Softmax((0,), 0), Reduce((0,), "mean", (0,))])
def test_what_has_no_order_is_refused(node: Node) -> None:
    model = Model({}, Graph.sequential((2, 3), [node]))
    with pytest.raises(GraphError, match=f"{node.kind}.0 with deterministic=True"):
        Session.from_model(model, deterministic=True)
