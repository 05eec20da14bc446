"""The sizes that the vector helpers are compiled for."""

#: Floats in a block.
BLOCK = 16
#: How many blocks `rows` and `columns` can hold in registers at a time, and `rows_pool` (of two lines together).
WIDTHS = (1, 2, 3, 4, 6, 8, 12)
POOL_WIDTHS = (4, 8, 12, 16, 24)
#: The same of half blocks, for `rows_halves`, and how far apart they may lie in the source.
HALF_WIDTHS = (1, 2, 4, 8, 12, 24)
HALF_STEPS = (8, 16)
#: Lines of so many half blocks `rows_halves` can pool, by their widths and steps.
HALF_POOLS = {1: ((2, 4, 8, 12, 24), 16), 3: ((12, 24), 8)}
#: How many slots `permute` can take for each group.
PERMUTE_SLOTS = (1, 2, 3, 4)
