"""The sizes that the vector helpers are compiled for."""

#: Floats in a block.
BLOCK = 16
#: How many blocks `rows` and `columns` can hold in registers at a time, and `rows_pool` (of two lines together).
WIDTHS = (1, 2, 3, 4, 6, 8, 12)
POOL_WIDTHS = (4, 8, 12, 16, 24)
#: The same in half blocks for `rows_halves`, and how far apart they may lie in the source.
HALF_WIDTHS = (1, 2, 4, 8, 12, 24)
HALF_STEPS = (8, 16)
#: How many half blocks a line may have that `rows_halves` pools, with the widths and the step of each.
HALF_POOLS = {1: ((2, 4, 8, 12, 24), 16), 3: ((12, 24), 8)}
#: Every case of `rows_halves`: half blocks of a line that is pooled (0: none is), the step, the width.
HALF_CASES = [
    *((0, step, width) for step in HALF_STEPS for width in HALF_WIDTHS),
    *((line, step, width) for line, (widths, step) in HALF_POOLS.items() for width in widths),
]
#: How many slots `permute` can take for each group.
PERMUTE_SLOTS = (1, 2, 3, 4)
