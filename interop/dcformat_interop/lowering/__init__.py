"""What all importers of networks share: composed functions, refusals, the last rewrites, and the final check."""
