"""Pruning criteria: small frozen objects that score weights or units; the lowest scores are pruned first.

Each family has a file: `magnitude` looks at the weights alone, `activations` at the inputs and outputs of layers,
`gradients` at the derivatives of the loss, `obs` is Optimal Brain Surgeon with its compensating updates, and
`castellano` removes whole units and refits the weights that read them.
"""

from __future__ import annotations

from dcformat_pruning.criteria.activation_criteria import Apoz, TfIdf, Wanda
from dcformat_pruning.criteria.base import Criterion, Data, Scores, scored_layers
from dcformat_pruning.criteria.castellano import Castellano, remove_and_refit, remove_while
from dcformat_pruning.criteria.gradients import Fisher, Obd, Taylor
from dcformat_pruning.criteria.magnitude import Lamp, Magnitude, Random
from dcformat_pruning.criteria.obs import Obs, hessians, prune_layer, refit, sparsegpt_layer, surgery

__all__ = [
    "Apoz",
    "Castellano",
    "Criterion",
    "Data",
    "Fisher",
    "Lamp",
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
    "remove_and_refit",
    "remove_while",
    "scored_layers",
    "sparsegpt_layer",
    "surgery",
]
