"""What `make_vectors.py` makes the frozen vectors of; never run by a test."""
