"""Pruning, weight sharing and training with PyTorch; the only package of the project that imports it.

`compress` compresses a user's own network with training, and `from_module` exports one unchanged.
`compress_architecture` makes the LeNets by a recipe. These and the study are built from the packages `criteria`,
`schedules` and `sharing`; docs/pruning.md shows how to use them.
"""

from __future__ import annotations

from dcformat_pruning import criteria, schedules, selection, sharing
from dcformat_pruning.compression import Compression, Goal, RunControl, Settings, Trial, compress
from dcformat_pruning.export import from_module
from dcformat_pruning.masks import Masks
from dcformat_pruning.recipes import Result, StageReport, compress_architecture
from dcformat_pruning.sharing import share
from dcformat_pruning.training import TrainingPlan, fit

__all__ = [
    "Compression",
    "Goal",
    "Masks",
    "Result",
    "RunControl",
    "Settings",
    "StageReport",
    "TrainingPlan",
    "Trial",
    "compress",
    "compress_architecture",
    "criteria",
    "fit",
    "from_module",
    "schedules",
    "selection",
    "share",
    "sharing",
]
