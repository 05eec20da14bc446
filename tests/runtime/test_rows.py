"""Softmax, normalisation and reductions over the last dimensions, compiled, against float64."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.compile import rows
from dcformat_runtime.kernels import row_kernel as words

from dcformat import Model
from dcformat.graph import Graph, Node, Normalize, Reduce, Softmax

Numbers = Any
#: Lengths of rows around the number of interleaved sums.
LENGTHS = (1, 2, 63, 64, 65, 197, 1000)


def compiled(node: Node, x: Numbers) -> Numbers:
    return Session.from_model(Model({}, Graph.sequential(x.shape[1:], [node])), backend="numba")(x)


def numbers(*shape: int) -> Numbers:
    return np.random.default_rng(sum(shape)).normal(3, 2, shape).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
def test_softmax(length: int) -> None:
    x = 5 * numbers(2, 3, length)
    e = np.exp((x - x.max(axis=2, keepdims=True)).astype(np.float64))
    np.testing.assert_allclose(compiled(Softmax((0,)), x), e / e.sum(axis=2, keepdims=True), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("centered", [True, False])
def test_normalisation(length: int, centered: bool) -> None:
    x = numbers(2, 3, length)
    wide = x.astype(np.float64)
    wide -= wide.mean(axis=2, keepdims=True) * centered
    expected = wide / np.sqrt((wide * wide).mean(axis=2, keepdims=True) + np.float32(1e-5))
    np.testing.assert_allclose(compiled(Normalize((0,), (1,), 1e-5, centered), x), expected, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ["mean", "sum", "max", "min"])
def test_reductions(length: int, name: str) -> None:
    x = numbers(2, 3, length)
    found = compiled(Reduce((0,), name, (1,), True), x)
    expected = getattr(np, name)(x.astype(np.float64), axis=2, keepdims=True)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("name", ["mean", "sum", "max", "min"])
def test_infinities_and_nan_in_any_place(name: str) -> None:
    for length in (2, 70, 130):
        for place in {0, 1, length // 2, length - 1}:
            x = numbers(3, 1, 1, length)
            x[0, 0, 0, place], x[1, 0, 0, place] = nan, inf
            found = compiled(Reduce((0,), name, (0, 1, 2)), x)
            np.testing.assert_array_equal(
                found, getattr(np, name)(x.astype(np.float64), axis=(1, 2, 3)).astype(np.float32)
            )


def test_softmax_of_infinities_is_that_of_numpy() -> None:
    x = np.array([[0, -inf, 1], [nan, 0, 0], [-inf, -inf, -inf], [-inf, 3e38, -3e38], [inf, 0, 0]], np.float32)
    expected = [[0.26894143, 0, 0.7310586], [nan] * 3, [nan] * 3, [0, 1, 0], [nan] * 3]
    found = compiled(Softmax((0,)), x[:, None])
    np.testing.assert_allclose(found[:, 0], np.array(expected, np.float32), rtol=1e-6)


def test_equal_elements_without_epsilon_are_nan() -> None:
    assert np.isnan(compiled(Normalize((0,), (1,), 0.0), np.ones((1, 2, 5), np.float32))).all()


@pytest.mark.parametrize(
    ("node", "shape", "found"),
    [
        (Softmax((0,)), (3, 4), (words.SOFTMAX, 4, 0.0, 12, 12)),
        (Softmax((0,), 0), (3, 4), None),
        (Softmax((0,), 0), (3, 1), (words.SOFTMAX, 3, 0.0, 3, 3)),
        (Normalize((0,), (1, 2), 0.5), (3, 4, 5), (words.CENTER, 20, 0.5, 60, 60)),
        (Normalize((0,), (0,), 0.5), (3, 4, 5), None),
        (Normalize((0,), (0, 2), 0.5, False), (3, 1, 5), (words.SCALE, 15, 0.5, 15, 15)),
        (Reduce((0,), "max", (1,)), (3, 4), (words.MAX, 4, 0.0, 12, 3)),
        (Reduce((0,), "argmax", (1,)), (3, 4), None),
        (Reduce((0,), "prod", (1,)), (3, 4), None),
    ],
)
def test_plans(node: Node, shape: tuple[int, ...], found: tuple[Any, ...] | None) -> None:
    assert rows.plan(node, shape) == found
