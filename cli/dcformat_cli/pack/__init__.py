"""The parts of `dcformat pack`: checkpoints, networks, deltas, and checkpoints of any size."""
