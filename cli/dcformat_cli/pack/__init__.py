"""The ways of `dcformat pack`: checkpoints, networks, deltas, and checkpoints of any size."""
