"""Clustering in one dimension: Lloyd's k-means, the exact optimum, and a trade-off between error and bits.

In one dimension a cluster is a run of sorted values. Dynamic programming therefore finds the best clusters (Wu 1991),
and the length of a code can be part of the cost (Chou, Lookabaugh and Gray 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dcformat_pruning.masks import PruningError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """Centroids, and the centroid of each value.

    Attributes
    ----------
    centroids : ndarray of float64
        ``(k,)``, ascending.
    codes : ndarray of int64
        ``(n,)``, the index of each value's centroid.
    """

    centroids: Floats
    codes: Ints


def kmeans(
    values: npt.ArrayLike, clusters: int, init: str = "linear", *, seed: int = 0, iterations: int = 300
) -> Clustering:
    """Run Lloyd's algorithm from one of the three initialisations of Deep Compression (Han et al. 2016, section 3.2).

    Parameters
    ----------
    values : array_like of float
        ``(n,)``, n at least 1, finite.
    clusters : int
        Number of clusters, at most the number of distinct values.
    init : {'linear', 'density', 'random'}
        The first centroids: evenly spaced between the smallest and the largest value, evenly spaced along the
        cumulative distribution, or values drawn at random.
    seed : int
        Seeds the drawing for 'random'.
    iterations : int
        Maximum number of iterations.

    Returns
    -------
    Clustering
        With at most `clusters` centroids; centroids without values are dropped.

    Raises
    ------
    PruningError
        `clusters` is below 1 or above the number of distinct values, or `init` is unknown.
    """
    x = np.sort(np.asarray(values, np.float64).ravel())
    check_clusters(x, clusters)
    centroids = _initial(x, clusters, init, seed)
    sums = np.concatenate(([0.0], np.cumsum(x)))
    for _ in range(iterations):
        edges = np.searchsorted(x, (centroids[1:] + centroids[:-1]) / 2, side="right")
        bounds = np.concatenate(([0], edges, [len(x)]))
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        moved = np.where(counts > 0, means, centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return assign(values, centroids)


def _initial(x: Floats, clusters: int, init: str, seed: int) -> Floats:
    if init == "linear":
        return np.linspace(x[0], x[-1], clusters)
    if init == "density":
        return np.unique(np.quantile(x, (np.arange(clusters) + 0.5) / clusters))
    if init == "random":
        return np.sort(np.random.default_rng(seed).choice(np.unique(x), clusters, replace=False))
    raise PruningError(f"init: expected linear, density or random, found {init!r}")


def check_clusters(values: Floats, clusters: int) -> None:
    """Raise `PruningError` unless `clusters` is between 1 and the number of distinct values."""
    if not 1 <= clusters <= len(values):
        raise PruningError(f"clusters: expected 1 to {len(values)} for {len(values)} values, found {clusters}")
    distinct = len(np.unique(values))
    if clusters > distinct:
        raise PruningError(f"clusters: expected at most the {distinct} distinct values, found {clusters}")


def assign(values: npt.ArrayLike, centroids: npt.ArrayLike) -> Clustering:
    """Assign each value to its nearest centroid (the smaller of two equally near); drop unused centroids."""
    codebook = np.unique(np.asarray(centroids, np.float64))
    x = np.asarray(values, np.float64).ravel()
    nearest = np.searchsorted((codebook[1:] + codebook[:-1]) / 2, x, side="left")
    used, codes = np.unique(nearest, return_inverse=True)
    return Clustering(codebook[used], codes.astype(np.int64))


def exact_kmeans(values: npt.ArrayLike, clusters: int) -> Clustering:
    """Find the clusters with the least squared error, by dynamic programming over the sorted values (Wu 1991).

    The best last cut moves to the right as values are added. Each layer of the table is therefore solved by halving,
    for all intervals of one depth together, in ``O(clusters * n log n)`` in total.

    Parameters
    ----------
    values : array_like of float
        ``(n,)``, finite.
    clusters : int
        Number of clusters, at most the number of distinct values; all are used.

    Raises
    ------
    PruningError
        `clusters` is below 1 or above the number of distinct values.
    """
    x = np.asarray(values, np.float64).ravel()
    check_clusters(x, clusters)
    points, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    cost = _RunCost(points, counts.astype(np.float64))
    n = len(points)
    table = cost(np.zeros(n, np.int64), np.arange(n))
    cuts = np.zeros((clusters, n), np.int64)
    for k in range(1, clusters):
        table, cuts[k] = _next_layer(table, cost, k)
    starts = np.empty(clusters, np.int64)
    end = n - 1
    for k in range(clusters - 1, -1, -1):
        starts[k] = cuts[k, end] if k else 0
        end = starts[k] - 1
    codes = np.searchsorted(starts, np.arange(n), side="right") - 1
    return Clustering(cost.means(starts, np.append(starts[1:] - 1, n - 1)), codes[inverse].astype(np.int64))


class _RunCost:
    """The squared error of the points from `first` to `last` (inclusive) around their mean, from running sums."""

    def __init__(self, points: Floats, counts: Floats) -> None:
        # Squares around the overall mean lose less precision.
        self._middle = float((points * counts).sum() / counts.sum())
        centred = points - self._middle
        self._n, self._sum, self._square = (
            np.concatenate(([0.0], np.cumsum(counts * centred**power))) for power in (0, 1, 2)
        )

    def __call__(self, first: Ints, last: Ints) -> Floats:
        n, total, square = (s[last + 1] - s[first] for s in (self._n, self._sum, self._square))
        return np.asarray(np.maximum(square - total * total / n, 0.0))

    def means(self, first: Ints, last: Ints) -> Floats:
        n, total = (s[last + 1] - s[first] for s in (self._n, self._sum))
        return np.asarray(total / n + self._middle)


def _next_layer(before: Floats, cost: _RunCost, k: int) -> tuple[Floats, Ints]:
    """Return the best cost of the first i+1 points in k+1 clusters, and the start of the last cluster."""
    n = len(before)
    table, cuts = np.full(n, np.inf), np.zeros(n, np.int64)
    low, high = np.array([k]), np.array([n - 1])
    left, right = np.array([k]), np.array([n - 1])
    while len(low):
        middle = (low + high) // 2
        last = np.minimum(right, middle)
        lengths = last - left + 1
        offsets = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        owner = np.repeat(np.arange(len(middle)), lengths)
        start = left[owner] + np.arange(int(lengths.sum())) - offsets[owner]
        found = before[start - 1] + cost(start, middle[owner])
        best = np.minimum.reduceat(found, offsets)
        # Of equal costs, take the first that reaches the minimum of its interval.
        hits = np.flatnonzero(found == best[owner])
        first = hits[np.unique(owner[hits], return_index=True)[1]]
        table[middle], cuts[middle] = best, start[first]
        low, high = np.concatenate((low, middle + 1)), np.concatenate((middle - 1, high))
        left, right = np.concatenate((left, start[first])), np.concatenate((start[first], right))
        some = low <= high
        low, high, left, right = low[some], high[some], left[some], right[some]
    return table, cuts


def entropy_kmeans(values: npt.ArrayLike, clusters: int, rate: float, *, iterations: int = 100) -> Clustering:
    """Minimise the squared error plus `rate` times the entropy of the codes in bits (Chou et al. 1989).

    The iteration starts from the exact clusters. A code costs ``-log2`` of its cluster's share, so that rare clusters
    lose values to frequent neighbours, and disappear when they do not pay.

    Parameters
    ----------
    values : array_like of float
        ``(n,)``, finite.
    clusters : int
        Maximum number of clusters.
    rate : float
        Squared error that one bit is worth; 0 gives the exact k-means.
    iterations : int
        Maximum number of iterations.

    Raises
    ------
    PruningError
        `clusters` is out of range, or `rate` is negative.
    """
    if rate < 0:
        raise PruningError(f"rate: expected 0 or more, found {rate}")
    x = np.asarray(values, np.float64).ravel()
    start = exact_kmeans(x, clusters)
    centroids, codes = start.centroids, start.codes
    for _ in range(iterations):
        counts = np.bincount(codes, minlength=len(centroids))
        used = counts > 0
        centroids = np.bincount(codes, x, len(centroids))[used] / counts[used]
        bits = np.log2(len(x) / counts[used])
        cost = (x[:, None] - centroids) ** 2 + rate * bits
        moved = np.argmin(cost, 1)
        if len(moved) == len(codes) and used.all() and np.array_equal(moved, codes):
            break
        codes = moved
    used, codes = np.unique(codes, return_inverse=True)
    return Clustering(centroids[used], codes.astype(np.int64))
