"""The verbs of the command: one module for each, with the name of its function."""
