"""Stands before the real package on the path, so that a run of the tests goes as on a machine without Numba."""

raise ModuleNotFoundError("No module named 'numba'", name="numba")
