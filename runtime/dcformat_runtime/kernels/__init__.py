"""Compiled code: the interpreter of programs, and the vector helpers that it calls."""
