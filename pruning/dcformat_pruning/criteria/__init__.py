"""Pruning criteria: small frozen objects that score weights or units; the lowest are pruned first.

One file for each family: the weights alone, the inputs and outputs of layers, the loss's derivatives, and
Optimal Brain Surgeon with its compensating updates.
"""

from __future__ import annotations

from dcformat_pruning.criteria.activations import Apoz, Castellano, TfIdf, Wanda
from dcformat_pruning.criteria.base import Criterion, Data, Scores, scored_layers
from dcformat_pruning.criteria.gradients import Fisher, Obd, Taylor
from dcformat_pruning.criteria.obs import Obs, hessians, prune_layer, refit, sparsegpt_layer, surgery
from dcformat_pruning.criteria.weights import Magnitude, Random

__all__ = [
    "Apoz",
    "Castellano",
    "Criterion",
    "Data",
    "Fisher",
    "Magnitude",
    "Obd",
    "Obs",
    "Random",
    "Scores",
    "Taylor",
    "TfIdf",
    "Wanda",
    "hessians",
    "prune_layer",
    "refit",
    "scored_layers",
    "sparsegpt_layer",
    "surgery",
]
