"""Rewrites of a builder's graph that keep its function: the batch taken out, constants folded, detours removed."""

from dcformat_interop.graph_passes.affine_folding import fold_affine
from dcformat_interop.graph_passes.batch_removal import without_batch
from dcformat_interop.graph_passes.cleaning import clean

__all__ = ["clean", "fold_affine", "without_batch"]
