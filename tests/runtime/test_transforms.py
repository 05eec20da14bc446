"""Rewrites keep a network's function, and do not touch units that another operator can see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from dcformat_runtime import Session

from dcformat.dense import from_dense
from dcformat.graph import Add, Conv, Flatten, Graph, Linear, MaxPool, Node, Output, Port, Reduce, ReLU
from dcformat.model import Model
from dcformat.transforms import fold_scales, reorder_units

Shape = tuple[int, ...]


def model(graph: Graph, **shapes: Shape) -> Model:
    """Return a model of sparse weights, for which an order of units saves time."""
    random = np.random.default_rng(3)
    tensors = {}
    for name, shape in shapes.items():
        values = random.normal(size=shape) * (random.random(shape) < 0.3)
        tensors[name] = from_dense(name, values.astype(np.float32))
    graph.shapes(shapes)
    return Model(tensors, graph)


def changed(model: Model) -> set[str]:
    """Return the tensors that a new order of units changes."""
    made = reorder_units(model, "fast")
    return {
        name for name, t in made.tensors.items() if not np.array_equal(t.to_dense(), model.tensors[name].to_dense())
    }


CHAINS: dict[str, tuple[Shape, Sequence[Node], dict[str, Shape]]] = {
    "linear": (
        (20,), [Linear((0,), "a", "b"), ReLU((1,)), Linear((2,), "c")], {"a": (30, 20), "b": (30,), "c": (5, 30)},
    ),
    "convolutions": (
        (2, 8, 8),
        [Conv((0,), "a", "b"), MaxPool((1,), (2, 2), (2, 2)), Conv((2,), "c"), Flatten((3,)), Linear((4,), "d")],
        {"a": (12, 2, 3, 3), "b": (12,), "c": (9, 12, 2, 2), "d": (4, 36)},
    ),
    "mean": (
        (2, 8, 8),
        [Conv((0,), "a"), ReLU((1,)), Reduce((2,), "mean", (1, 2)), Linear((3,), "c")],
        {"a": (12, 2, 3, 3), "c": (5, 12)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_a_new_order_keeps_the_function(name: str) -> None:
    shape, nodes, shapes = CHAINS[name]
    before = model(Graph.sequential(shape, nodes), **shapes)
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    expected = Session.from_model(before, backend="numpy")(x)
    for after in (reorder_units(before, "fast"), fold_scales(before, "fast")):
        np.testing.assert_allclose(Session.from_model(after, backend="numpy")(x), expected, rtol=1e-4, atol=1e-5)
    assert "a" in changed(before)


def test_units_that_an_output_gives_stay() -> None:
    nodes = (Linear((0,), "a", "b"), ReLU((1,)), Linear((2,), "c"))
    shapes = {"a": (30, 20), "b": (30,), "c": (5, 30)}
    for value in (1, 2):
        graph = Graph((Port((20,)),), nodes, (Output(3, "y"), Output(value, "hidden")))
        assert not changed(model(graph, **shapes))


def test_units_count_from_the_inputs() -> None:
    """With two inputs, the first operator makes value 2."""
    nodes = (Linear((0,), "a"), ReLU((2,)), Linear((3,), "c"), Add((4, 1)))
    graph = Graph((Port((20,), "x"), Port((5,), "y")), nodes, (Output(5),))
    assert changed(model(graph, a=(30, 20), c=(5, 30))) == {"a", "c"}


@pytest.mark.parametrize("nodes", [
    (Linear((0,), "a"), Flatten((1,)), Linear((2,), "c")),
    (Linear((0,), "a"), ReLU((1,)), Linear((2,), "e")),
    (Linear((0,), "a"), Reduce((1,), "mean", (0,)), Linear((2,), "e")),
])  # fmt: skip
def test_layers_that_run_at_many_places_stay(nodes: tuple[Node, ...]) -> None:
    """The units of such a layer are not the first dimension of its result."""
    assert not changed(model(Graph.sequential((2, 20), nodes), a=(30, 20), c=(5, 60), e=(5, 30)))


def test_units_that_a_reduction_joins_stay() -> None:
    nodes = (Conv((0,), "a"), Reduce((1,), "max", (0,), keepdims=True), Flatten((2,)), Linear((3,), "c"))
    assert not changed(model(Graph.sequential((2, 8, 8), nodes), a=(12, 2, 3, 3), c=(5, 36)))
