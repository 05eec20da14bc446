"""Precedes the real package on the path, so that the tests run as on a machine without Numba."""

raise ModuleNotFoundError("No module named 'numba'", name="numba")
