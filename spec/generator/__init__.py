"""The parts of `make_vectors.py`, which made the frozen vectors; no test runs them."""
