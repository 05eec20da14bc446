"""Pruning, weight sharing and training with PyTorch; the only package of the project that imports it.

`compress` trains and compresses a network by a recipe, and `from_module` exports a user's own module. The packages
`criteria`, `schedules` and `sharing` are the parts that recipes and the study are made of; docs/pruning.md shows how to
use them.
"""

from __future__ import annotations

from dcformat_pruning import criteria, schedules, selection, sharing
from dcformat_pruning.export import from_module
from dcformat_pruning.masks import Masks
from dcformat_pruning.recipes import Result, StageReport, compress
from dcformat_pruning.sharing import share
from dcformat_pruning.training import TrainingPlan, fit

__all__ = [
    "Masks",
    "Result",
    "StageReport",
    "TrainingPlan",
    "compress",
    "criteria",
    "fit",
    "from_module",
    "schedules",
    "selection",
    "share",
    "sharing",
]
