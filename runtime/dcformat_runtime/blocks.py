"""The sizes that the vector helpers are compiled for."""

#: Floats in a block.
BLOCK = 16
#: How many blocks `rows` and `columns` can hold in registers at a time, and `rows_pool` (before pooling).
WIDTHS = (1, 2, 3, 4, 6, 8, 12)
POOL_WIDTHS = (2, 4, 8, 12, 24)
#: How many slots `permute` can take for each group.
PERMUTE_SLOTS = (1, 2, 3, 4)
