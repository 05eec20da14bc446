"""Recipes: they make a compressed LeNet from nothing, or from a checkpoint.

`compress_architecture` runs a recipe: a few stages of `dcformat_pruning.training_stages`, after which most recipes
leave the network to `dcformat_pruning.compress` with settings of their own. `classic`, `default` and `smallest` hold
the recipes.
"""

from __future__ import annotations

from dcformat_pruning.masks import nonzero_weights
from dcformat_pruning.meter import StageProgress
from dcformat_pruning.recipes.architecture_recipes import RECIPES, compress_architecture, recipe_for
from dcformat_pruning.recipes.recipe import Recipe, RecipeGoal
from dcformat_pruning.training_stages.stage import Result, Stage, StageContext, StageReport

__all__ = [
    "RECIPES",
    "Recipe",
    "RecipeGoal",
    "Result",
    "Stage",
    "StageContext",
    "StageProgress",
    "StageReport",
    "compress_architecture",
    "nonzero_weights",
    "recipe_for",
]
