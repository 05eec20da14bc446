"""Compresses any network with training: `compress` searches for the smallest file that meets a goal.

`goals` defines the goals of a run, `search` chooses the network to try next, `trials` tries one with the stages of
`dcformat_pruning.training_stages`, and `packed_module` makes and measures its file.
"""

from __future__ import annotations

from dcformat_pruning.compression.compression_settings import Settings
from dcformat_pruning.compression.compressor import Compression, compress
from dcformat_pruning.compression.goals import Goal, Trial
from dcformat_pruning.compression.run_control import RunControl

__all__ = ["Compression", "Goal", "RunControl", "Settings", "Trial", "compress"]
