"""Rewrites of a builder's graph that keep its function."""

from dcformat_interop.graph_passes.affine_folding import fold_affine
from dcformat_interop.graph_passes.batch_removal import without_batch
from dcformat_interop.graph_passes.cleaning import clean
from dcformat_interop.graph_passes.integer_layers import to_integers

__all__ = ["clean", "fold_affine", "to_integers", "without_batch"]
