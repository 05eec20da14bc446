"""Recipes: they make a compressed LeNet from nothing, or from a checkpoint.

`compress_architecture` runs a recipe. A recipe is a list of stages (`recipe`), most of which come from `stage_library`;
`classic`, `default` and `smallest` hold the recipes. `running` runs stages, here and in `dcformat_pruning.compression`.
"""

from __future__ import annotations

from dcformat_pruning.masks import nonzero_weights
from dcformat_pruning.meter import StageProgress
from dcformat_pruning.recipes.architecture_recipes import RECIPES, compress_architecture, recipe_for
from dcformat_pruning.recipes.recipe import Recipe, Result, Stage, StageContext, StageReport

__all__ = [
    "RECIPES",
    "Recipe",
    "Result",
    "Stage",
    "StageContext",
    "StageProgress",
    "StageReport",
    "compress_architecture",
    "nonzero_weights",
    "recipe_for",
]
