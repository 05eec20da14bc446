"""Pruning, weight sharing and training with PyTorch; the only package of the project that imports it."""

from dcformat_pruning.module_export import from_module
from dcformat_pruning.recipes import Result, StageReport, compress

__all__ = ["Result", "StageReport", "compress", "from_module"]
