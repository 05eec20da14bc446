"""Recipes: from nothing, or a checkpoint, to a compressed model.

`compress` runs a recipe. A recipe is a list of stages (`recipe`), most of which come from `stage_library`; `classic`,
`default` and `smallest` hold the recipes.
"""

from __future__ import annotations

from dcformat_pruning.meter import Step
from dcformat_pruning.recipes.compression import RECIPES, Result, compress, nonzero_weights, recipe_for
from dcformat_pruning.recipes.recipe import Recipe, Stage, StageContext, StageReport

__all__ = [
    "RECIPES",
    "Recipe",
    "Result",
    "Stage",
    "StageContext",
    "StageReport",
    "Step",
    "compress",
    "nonzero_weights",
    "recipe_for",
]
