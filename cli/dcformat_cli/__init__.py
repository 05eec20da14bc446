"""The `dcformat` command: one module for each verb, imported on use."""
