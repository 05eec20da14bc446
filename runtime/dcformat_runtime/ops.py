"""The instructions of a program: a record of int32 words each, read by `kernels.run`.

Word 0 is the code; words 1 to 3 are where the operator reads and writes in the arena, and what is added to the latter
for each further group of images. The other words are listed below by name; they follow word 3 in this order. Offsets
into `mem` and the arena count floats.
"""

from __future__ import annotations

CODE, SOURCE, TARGET, GROUP = range(4)
#: Words of a record.
WIDTH = 24

#: Code -> its further words.
FIELDS = {
    # x's next image, or `lanes` images transposed to (features, lanes)
    "input": ("features", "lanes"),
    # to y: one image's or `lanes` images' results
    "output": ("features", "lanes"),
    # (lanes, features) to (features, lanes)
    "turn": ("features", "lanes"),
    # (count, lanes) to a place where positions are `gap` apart
    "spread": ("count", "lanes", "gap"),
    # sparse rows times blocks of positions or lanes: everything that is a convolution, or linear over many images.
    # `outer` steps (image rows), each `blocks` blocks, `most` at a time; entries in `runs` runs of columns. The blocks
    # are lines of `per` blocks of which `width` floats are kept, and `step` apart in the source; per 0: half blocks, of
    # each of which `width` floats are kept. `pool`: 2 x 2, in registers; of half blocks, so many are a line. Blocks are
    # of two lines then, `source_outer / 2` apart, so that each takes a line half a block further, a `step` of 8
    "rows": (
        "rows", "pointers", "order", "indices", "values", "bias", "unit", "outer", "source_outer", "target_row",
        "target_outer", "gap", "blocks", "most", "per", "width", "relu", "pool", "runs", "step",
    ),
    # sparse rows times one vector, 16 rows at a time
    "gather": ("groups", "pointers", "indices", "values", "bias", "relu", "wide", "rows", "order", "scratch"),
    # the same, most entries in blocks of 16 columns, each with `each` slots for 16 rows; what is left over is gathered
    "permute": (
        "groups", "pointers", "indices", "values", "bias", "relu", "wide", "rows", "order", "scratch",
        "blocks", "each", "block_indices", "block_values",
    ),
    # dense columns of the nonzero inputs; with more than `limit` of them the gather at `instead` is run
    "columns": ("features", "weight", "blocks", "bias", "relu", "found", "limit", "instead"),
    # (channels, height, width, lanes) to (channels, variants, phases, rows, cols, lanes): padded, strides resolved.
    # `plane` and `copy_plane`: positions from one channel to the next; `needed`: columns that are ever read
    "shift": (
        "channels", "height", "width", "lanes", "variants", "starts", "stride", "phases", "top", "rows", "cols",
        "plane", "copy_plane", "needed",
    ),
    # kind: 0 maximum, 1 mean with the padding counted, 2 mean without
    "pool": (
        "channels", "height", "width", "lanes", "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w",
        "out_h", "out_w", "kind", "relu", "plane", "out_plane",
    ),
    "global": ("channels", "positions", "lanes", "kind", "plane"),
    "add": ("second", "count", "relu"),
    "relu": ("count",),
    # `times` pieces of `count` floats
    "copy": ("count", "times", "source_step", "target_step"),
    "softmax": ("features", "lanes"),
}  # fmt: skip
CODES = {name: code for code, name in enumerate(FIELDS)}

#: Word 0 of a program: whether it is exact. Then, for 0 to `CHOICES` images left to do, the plan of the next tile.
CHOICES = 64
#: Words of a plan: images in a tile, images in a group, then of both stages (for each group; after): operators, where.
PLAN_WIDTH = 6
#: Floats that may be read beyond the end of what is used of an arena.
SLACK = 1024
#: The largest word.
MAX_WORD = (1 << 31) - 1

#: Words of `control`, int64. 0: 0 to run everything; or 1 for one operator, then the plan, the first image, the stage
#: (0: for each group, 1: after), the group, the operator, and which of its parts. `PIECES`: parts, or pieces of a
#: batch, each of `SIZE` images. `CLAIM`: the turn times `MANY`, plus the pieces claimed; `DONE`: pieces done; both in a
#: cache line of their own. `PATIENCE`, `LOOKS`: how often to look whether all is done, or whether there is a next turn.
PIECES, SIZE, PATIENCE, LOOKS, CLAIM, DONE = 7, 8, 9, 10, 16, 24
CONTROL_WIDTH = 32
MANY = 1 << 20
