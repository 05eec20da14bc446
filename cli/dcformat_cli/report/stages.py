"""The metric that a file's metadata records for each stage of its compression."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

#: The key of the metrics, which `dcformat_pruning.compress` writes as in ``dense 0.9912, pruned 0.9876, file 0.9875``.
_KEY = "metrics"


def recorded_stages(metadata: Mapping[str, str]) -> list[tuple[str, float]]:
    """Return the stages and their metrics in order, or nothing unless the metadata has them."""
    found = []
    for part in metadata.get(_KEY, "").split(", "):
        stage, _, number = part.rpartition(" ")
        try:
            metric = float(number)
        except ValueError:
            return []
        if not stage or not isfinite(metric):
            return []
        found.append((stage, metric))
    return found[:100]
