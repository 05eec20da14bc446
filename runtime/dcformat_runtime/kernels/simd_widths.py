"""The sizes for which the vector helpers are compiled."""

#: The number of floats in a block.
BLOCK = 16
HALF = BLOCK // 2
#: The number of uint8 in the storage of a float.
UINT8S = 4
#: The numbers of blocks that `rows` can hold in registers at a time; for `rows_pool`, the blocks of two lines.
WIDTHS = (1, 2, 3, 4, 6, 7, 8, 12, 13, 14, 16)
#: The number of words in a mask of `rows_shifted`.
MASK = BLOCK * max(WIDTHS)
#: The same for `columns`.
COLUMN_WIDTHS = (1, 2, 3, 4, 6, 8, 12)
POOL_WIDTHS = (4, 8, 12, 16, 24)
#: The same in half blocks for `rows_halves`, and the distances at which they may lie in the source.
HALF_WIDTHS = (1, 2, 4, 8, 12, 24)
HALF_STEPS = (8, 16)
#: The numbers of half blocks in a line that `rows_halves` can pool, with the widths and the step of each.
HALF_POOLS = {1: ((2, 4, 8, 12, 24), 16), 3: ((12, 24), 8)}
#: Every case of `rows_halves`: the half blocks in a pooled line (0: no pooling), the step and the width.
HALF_CASES = [
    *((0, step, width) for step in HALF_STEPS for width in HALF_WIDTHS),
    *((line, step, width) for line, (widths, step) in HALF_POOLS.items() for width in widths),
]
#: The tiles of `dense_rows`: for each number of blocks, the most quads of rows whose sums fit in 32 registers.
TILE_QUADS = {1: 4, 2: 2, 3: 2, 4: 1, 6: 1}
#: Every case of `dense_rows`: the blocks and the quads.
TILES = [(blocks, quads) for blocks, most in TILE_QUADS.items() for quads in dict.fromkeys((1, most))]
#: The numbers of positions that `row_blocks` computes at a time, for two blocks of rows or for one. A tile of two needs
#: 32 registers of a block each.
ROW_BLOCK_POSITIONS, ROW_BLOCKS = (1, 2, 4, 6, 7, 8, 12, 13), (1, 2)
#: The blocks, the lines and the strides of the tiles of `plane_rows`, every combination of which is a case.
PLANE_BLOCKS, PLANE_LINES, PLANE_STRIDES = (1, 2, 4), (1, 2, 4, 7), (1, 2)
#: The sizes of the windows of `plane_windows`, which has a case for each of them, of these strides and these lines.
PLANE_KERNELS = (3, 5)
#: The number of zeros that its windows need for a line outside the image.
ZEROS = 64
#: The numbers of slots that `permute` can take for each group.
PERMUTE_SLOTS = (1, 2, 3, 4)
#: The number of planes of which `plane_means` takes the means at a time, if there are so many.
MEAN_PLANES = 8
#: The number of rows in a quad, and of the sets of them that can have an entry in a column.
QUAD = 4
MASKS = (1 << QUAD) - 1
#: The numbers of blocks that `quad_rows` can compute at a time; any number from three on can be cut into these.
QUAD_WIDTHS = (3, 4, 5, 6)
