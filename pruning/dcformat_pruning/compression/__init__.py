"""Compressing any network with training: `compress` searches for the smallest file that holds a goal.

`goals` says what a run may aim for, `search` which network to try next, `trials` tries one with the stages of
`dcformat_pruning.recipes`, and `packing` makes and measures its file.
"""

from __future__ import annotations

from dcformat_pruning.compression.compression_settings import Settings
from dcformat_pruning.compression.compressor import Compression, compress
from dcformat_pruning.compression.goals import Goal, Trial
from dcformat_pruning.compression.run_control import RunControl

__all__ = ["Compression", "Goal", "RunControl", "Settings", "Trial", "compress"]
