"""The `dcformat` command: one module for each verb, imported when it is used."""
