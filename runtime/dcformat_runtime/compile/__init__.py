"""Turns a network into a program that kernels run, and predicts what that takes."""
