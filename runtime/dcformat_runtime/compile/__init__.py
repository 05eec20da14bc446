"""Turns a network into a program that kernels run, and predicts the memory and the work that this takes."""
