"""The study of pruning criteria and schedules behind `dcformat study`; docs/study.md has its results.

`baselines` trains the dense networks, `pruned_networks` prunes and retrains them, `comparison` compares criteria,
`schedule_comparison` compares schedules, `layer_ranking` ranks layers, `article` repeats the figures of Rakivnenko's
article of 2025, and `report` writes tables and plots.
"""

from __future__ import annotations

from dcformat_pruning.study.baselines import BASELINES, Baseline, NormalizePixels, folded, train_article, train_strong
from dcformat_pruning.study.criteria_comparison import (
    CRITERIA,
    DEFAULT_CRITERIA,
    RATIOS,
    ComparisonRow,
    TfIdfOnPixels,
    compare,
    compared_criteria,
)
from dcformat_pruning.study.layer_ranking import DENSITIES, LayerSensitivity, rank_layers
from dcformat_pruning.study.pruned_networks import first_images, own_budget, prune, unit_counts, weights_left
from dcformat_pruning.study.schedule_comparison import SCHEDULES, ScheduleRow, compare_schedules

__all__ = [
    "BASELINES",
    "CRITERIA",
    "DEFAULT_CRITERIA",
    "DENSITIES",
    "RATIOS",
    "SCHEDULES",
    "Baseline",
    "ComparisonRow",
    "LayerSensitivity",
    "NormalizePixels",
    "ScheduleRow",
    "TfIdfOnPixels",
    "compare",
    "compare_schedules",
    "compared_criteria",
    "first_images",
    "folded",
    "own_budget",
    "prune",
    "rank_layers",
    "train_article",
    "train_strong",
    "unit_counts",
    "weights_left",
]
