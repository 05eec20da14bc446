"""Weight sharing: finding codebooks, and training weights that share values."""

from __future__ import annotations

from dcformat_pruning.sharing.clustering import Clustering, assign, entropy_kmeans, exact_kmeans, kmeans
from dcformat_pruning.sharing.incremental import IncrementalSharing
from dcformat_pruning.sharing.shared_codebooks import (
    METHODS,
    balance_scales,
    cluster,
    quantise_biases,
    round_weights,
    share,
    share_across,
    write_shared,
)
from dcformat_pruning.sharing.straight_through import StraightThroughSharing
from dcformat_pruning.sharing.tied import SharedWeights

__all__ = [
    "METHODS",
    "Clustering",
    "IncrementalSharing",
    "SharedWeights",
    "StraightThroughSharing",
    "assign",
    "balance_scales",
    "cluster",
    "entropy_kmeans",
    "exact_kmeans",
    "kmeans",
    "quantise_biases",
    "round_weights",
    "share",
    "share_across",
    "write_shared",
]
