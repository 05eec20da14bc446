"""The tools of `dcformat bench`: other runtimes under one interface, and side-by-side timing."""
