"""dcformat: a storage-focused file format for pruned, weight-shared neural networks."""

__version__ = "1.0.0"
