"""Compiled kernels without a compiler: object code made once, kept in the user's cache, loaded without Numba.

`image` is what is kept and its file form, `keys` names it, `store` finds and keeps files, `loader` makes it callable.
`compiler` and `elf` make it; they alone need Numba, and nothing imports them until something must be compiled.
"""
