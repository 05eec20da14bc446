"""The verbs of the command: one module for each, named as its function."""
