"""Precedes the real package on the path, so that the tests run as on a machine without llvmlite."""

raise ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite")
