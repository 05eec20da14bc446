"""Compression without training: pruning and shared values by second derivatives, layer by layer."""

from __future__ import annotations

from dcformat_pruning.calibration.compression import CalibrationOptions, Trial, compress_calibrated
from dcformat_pruning.calibration.goals import Goal, GoalError

__all__ = ["CalibrationOptions", "Goal", "GoalError", "Trial", "compress_calibrated"]
