"""Compression without training: pruning and shared values by second derivatives, layer by layer."""

from __future__ import annotations

from dcformat_pruning.calibration.post_training import CalibrationOptions, CalibrationTrial, compress_calibrated
from dcformat_pruning.calibration.price_search import CalibrationGoal, GoalError

__all__ = ["CalibrationGoal", "CalibrationOptions", "CalibrationTrial", "GoalError", "compress_calibrated"]
