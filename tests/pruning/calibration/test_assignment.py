"""The choice of codes: the error, the bits, and the sum of both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_pruning.calibration.assignment import (
    DAMPING,
    Problem,
    assign,
    code_bits,
    estimated_bits,
    on_support,
    removal_losses,
)

Floats = npt.NDArray[np.float64]


def correlated(rows: int = 8, columns: int = 24) -> Problem:
    """Return the weights of a layer whose inputs are much alike."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, columns)) @ rng.standard_normal((columns, columns))
    x += 2 * rng.standard_normal((200, 1))
    return Problem(rng.standard_normal((rows, columns)), (x.T @ x / 200)[None], np.linspace(1, 2, rows))


def test_without_a_price_and_with_equal_inputs_each_weight_gets_the_nearest_value() -> None:
    weights = np.array([[0.12, -0.26, 0.0], [0.49, 0.31, -0.04]])
    made = assign(Problem(weights, np.eye(3)[None], np.ones(2)), 0.0, [0.125])
    assert made.values.tolist() == [[0.125, -0.25, 0.0], [0.5, 0.25, 0.0]]


def test_the_error_is_the_quadratic_form() -> None:
    problem = correlated()
    made = assign(problem, 1e-3)
    expected = sum(
        0.5 * importance * off @ problem.hessians[0] @ off
        for off, importance in zip(problem.weights - made.values, problem.importance, strict=True)
    )
    assert made.error == pytest.approx(expected)


def test_each_block_of_rows_meets_its_own_inputs() -> None:
    hessians = np.array([[[2.0]], [[6.0]]])
    problem = Problem(np.array([[1.0], [1.0]]), hessians, np.array([1.0, 1.0]))
    assert problem.error(np.array([[0.0], [0.0]])) == 4.0


def test_later_weights_correct_the_errors_of_earlier_ones() -> None:
    problem = correlated()
    made = assign(problem, 0.0, [0.25])
    assert made.error < 0.5 * problem.error(np.rint(problem.weights / 0.25) * 0.25)


def test_a_mask_and_a_correction_beat_a_mask_alone() -> None:
    problem = correlated()
    largest = np.abs(problem.weights) >= np.median(np.abs(problem.weights))
    made = assign(problem._replace(allowed=largest), 0.0, [1 / 64])
    assert not made.values[~largest].any()
    assert made.error < 0.85 * problem.error(np.where(largest, problem.weights, 0))


def test_the_weights_that_stay_make_up_for_those_that_go() -> None:
    """Against the normal equations, solved with the other columns struck out."""
    problem = correlated()
    allowed = np.abs(problem.weights) >= np.median(np.abs(problem.weights))
    allowed[0], allowed[1] = False, True
    found = on_support(problem.weights, problem.hessians, allowed)
    assert not found[~allowed].any()
    np.testing.assert_allclose(found[1], problem.weights[1], rtol=0, atol=1e-9)
    gradient = (found - problem.weights) @ problem.hessians[0]
    damping = 0.01 * np.diagonal(problem.hessians[0]).mean() * (found - problem.weights)
    np.testing.assert_allclose((gradient + damping)[allowed], 0, atol=1e-9)
    assert problem.error(found) < 0.75 * problem.error(np.where(allowed, problem.weights, 0))


def test_rows_of_several_blocks_meet_their_own_inputs() -> None:
    hessians = np.array([[[2.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    allowed = np.array([[True, False], [True, False]])
    found = on_support(np.ones((2, 2)), hessians, allowed)
    np.testing.assert_allclose(found, np.array([[1 + 1 / 2.015, 0], [1, 0]]), atol=1e-9)


def test_weights_go_one_after_another_while_the_others_make_up_for_them() -> None:
    """Against all choices at each removal, with the other weights found by `on_support`."""
    problem = correlated(rows=2, columns=7)
    hessians = np.concatenate((problem.hessians, np.diag([5.0, 1, 2, 3, 4, 6, 7])[None]))
    found = removal_losses(problem.weights, hessians)
    for weights, hessian, losses in zip(problem.weights, hessians, found, strict=True):
        damped = hessian + DAMPING * np.diagonal(hessian).mean() * np.eye(7)
        there, before, highest = np.ones(7, bool), 0.0, 0.0
        for _ in range(7):
            totals = {}
            for place in np.flatnonzero(there):
                left = there & (np.arange(7) != place)
                off = on_support(weights[None], hessian[None], left[None])[0] - weights
                totals[place] = off @ damped @ off
            best = min(totals, key=lambda place: totals[place])
            highest = max(highest, totals[best] - before)
            assert losses[best] == pytest.approx(highest)
            there[best], before = False, totals[best]


def test_wide_rows_lose_weights_in_blocks() -> None:
    """The columns of different blocks do not meet here, so the blocks lose nothing by that."""
    rng = np.random.default_rng(0)
    hessians = np.zeros((1, 300, 300))
    for block in (slice(0, 256), slice(256, 300)):
        x = rng.standard_normal((400, len(hessians[0, block])))
        hessians[0, block, block] = x.T @ x / 400
    np.fill_diagonal(hessians[0], 2.0)
    weights = rng.standard_normal((1, 300))
    found = removal_losses(weights, hessians)
    alone = removal_losses(weights[:, 256:], hessians[:, 256:, 256:])
    np.testing.assert_allclose(found[:, 256:], alone, rtol=1e-9)


def test_a_higher_price_takes_fewer_bits_and_makes_more_error() -> None:
    cheap, dear = (assign(correlated(), price) for price in (1e-3, 1e-1))
    assert dear.bits < 0.7 * cheap.bits and dear.error > 2 * cheap.error


def test_an_exorbitant_price_leaves_nothing() -> None:
    assert not assign(correlated(), 1e6).values.any()


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    problem = correlated()
    hessians = problem.hessians.copy()
    hessians[:, 3], hessians[:, :, 3] = 0, 0
    made = assign(problem._replace(hessians=hessians), 1e-3)
    assert np.isfinite(made.values).all()
    assert assign(problem._replace(hessians=np.zeros_like(hessians)), 1e-3).error == 0


def test_values_are_few_multiples_of_a_step_of_few_bits() -> None:
    made = assign(correlated(), 1e-3)
    step = np.abs(made.values[made.values != 0]).min()
    multiples = made.values / step
    assert np.array_equal(multiples, np.rint(multiples)) and np.abs(multiples).max() <= 127
    assert np.ldexp(np.frexp(step)[0], 6) == np.rint(np.ldexp(np.frexp(step)[0], 6))


def test_bits_are_those_of_the_frequencies() -> None:
    codes = np.array([[1, 1, 1, 2] * 16] * 4, np.int32)
    bits, zero_bits = code_bits(codes, 3)
    assert bits == pytest.approx([0, np.log2(4 / 3), 2], abs=0.02)
    assert (zero_bits > 5).all()  # a zero would be a surprise
    rare = np.zeros((32, 32), np.int32)
    rare[::8] = 1
    _, zero_bits = code_bits(rare, 2)
    assert zero_bits[0].min() > 3 and zero_bits[1].max() < -3
    assert estimated_bits(rare, 2) < estimated_bits(np.random.default_rng(0).permuted(rare), 2)
