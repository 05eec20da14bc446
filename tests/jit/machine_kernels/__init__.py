"""A package of kernels for the tests of machine code."""
