"""The parts that all importers of networks share: composed functions, refusals, the last rewrites, the final check."""
