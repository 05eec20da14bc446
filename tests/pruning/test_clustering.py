"""Clustering in one dimension: the exact optimum against brute force, k-means, and the trade-off against bits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_pruning.masks import PruningError
from dcformat_pruning.sharing.clustering import Clustering, assign, entropy_kmeans, exact_kmeans, kmeans
from hypothesis import given
from hypothesis import strategies as st

Floats = npt.NDArray[np.float64]

VALUES = st.lists(st.integers(-50, 50), min_size=1, max_size=11).map(lambda v: np.array(v, np.float64) / 7)


def squared_error(values: Floats, found: Clustering) -> float:
    return float(np.square(values - found.centroids[found.codes]).sum())


def best_by_trying_all(values: Floats, clusters: int) -> float:
    """Return the least squared error over all ways to cut the sorted values into runs."""
    x = np.sort(values)
    cuts = combinations(range(1, len(x)), clusters - 1)
    return min(sum(float(np.square(run - run.mean()).sum()) for run in np.split(x, list(c))) for c in cuts)


@given(VALUES, st.integers(1, 5))
def test_exact_kmeans_is_as_good_as_trying_every_cut(values: Floats, clusters: int) -> None:
    distinct = len(np.unique(values))
    if clusters > distinct:
        with pytest.raises(PruningError, match=r"clusters: expected"):
            exact_kmeans(values, clusters)
        return
    found = exact_kmeans(values, clusters)
    assert len(found.centroids) == clusters
    assert np.all(np.diff(found.centroids) > 0)
    assert squared_error(values, found) == pytest.approx(best_by_trying_all(values, clusters), abs=1e-9)


def test_exact_kmeans_beats_lloyd_on_many_values() -> None:
    values = np.random.default_rng(0).standard_t(2, 5000)
    exact = squared_error(values, exact_kmeans(values, 8))
    for init in ("linear", "density", "random"):
        assert exact <= squared_error(values, kmeans(values, 8, init, seed=3)) + 1e-9


@pytest.mark.parametrize("init", ["linear", "density", "random"])
def test_kmeans_ends_where_values_are_nearest_and_centroids_means(init: str) -> None:
    values = np.random.default_rng(1).normal(size=400)
    found = kmeans(values, 6, init, seed=5)
    nearest = np.abs(values[:, None] - found.centroids).argmin(1)
    assert np.array_equal(nearest, found.codes)
    for k, centroid in enumerate(found.centroids):
        assert centroid == pytest.approx(values[found.codes == k].mean())


def test_linear_start_spans_the_values_evenly() -> None:
    values = np.array([0.0, 1.0, 2.0, 4.0])
    found = kmeans(values, 2, "linear", iterations=0)
    assert found.centroids.tolist() == [0.0, 4.0]


def test_a_price_on_bits_lowers_the_entropy_and_raises_the_error() -> None:
    values = np.random.default_rng(2).laplace(size=3000)

    def entropy(found: Clustering) -> float:
        share = np.bincount(found.codes) / len(values)
        return float(-(share * np.log2(share)).sum())

    free, dear = entropy_kmeans(values, 12, 0.0), entropy_kmeans(values, 12, 0.3)
    assert entropy(dear) < entropy(free) - 0.3
    assert squared_error(values, dear) > squared_error(values, free)
    assert squared_error(values, free) <= squared_error(values, exact_kmeans(values, 12)) + 1e-9
    # The cost, error + rate * bits, is no higher than that of the exact clusters.
    cost = [squared_error(values, f) + 0.3 * len(values) * entropy(f) for f in (free, dear)]
    assert cost[1] < cost[0]


def test_a_price_beyond_the_spread_leaves_one_cluster() -> None:
    values = np.concatenate((np.full(1000, 1.0), np.full(3, 1.1)))
    assert entropy_kmeans(values, 2, 1.0).centroids.tolist() == [pytest.approx(values.mean())]


@pytest.mark.parametrize(
    ("clusters", "message"), [(0, r"clusters: expected 1 to 3"), (4, r"clusters: expected 1 to 3")]
)
def test_clusters_out_of_range_are_refused(clusters: int, message: str) -> None:
    for find in (kmeans, exact_kmeans):
        with pytest.raises(PruningError, match=message):
            find([1.0, 2.0, 3.0], clusters)


def test_more_clusters_than_distinct_values_are_refused() -> None:
    with pytest.raises(PruningError, match=r"at most the 2 distinct values, found 3"):
        exact_kmeans([1.0, 1.0, 2.0, 2.0], 3)


def test_unknown_start_and_negative_rate_are_refused() -> None:
    with pytest.raises(PruningError, match=r"init: expected linear, density or random, found 'best'"):
        kmeans([1.0, 2.0], 1, "best")
    with pytest.raises(PruningError, match=r"rate: expected 0 or more"):
        entropy_kmeans([1.0, 2.0], 1, -1.0)


def test_assign_prefers_the_smaller_of_equals_and_drops_the_unused() -> None:
    found = assign([0.5, 0.0, 1.0], [1.0, 0.0, 9.0])
    assert found.centroids.tolist() == [0.0, 1.0]
    assert found.codes.tolist() == [0, 0, 1]
