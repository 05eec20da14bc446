"""Machine code of kernels: made once, kept in the user's cache, and loaded without Numba.

`image` defines an image and its file form, `keys` and `targets` name it, `store` finds and keeps files, and `loader`
makes an image callable.
"""
