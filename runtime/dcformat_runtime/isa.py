"""The instruction set of programs: records of int32 words that `kernels.interpreter.run` executes.

Every record begins with the opcode, the offsets in the arena where the operator reads and writes, and the step of the
latter from one group of images to the next. The fields in `FIELDS` follow in their order. Offsets into the constants
and into the arena count floats.

The constants are made from that table: `SOFTMAX` is the opcode ``"softmax"``, and `SOFTMAX_LANES` the place of its
field ``"lanes"`` in a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:

    def __getattr__(name: str) -> int:
        """Return a constant made from `FIELDS`."""


#: The first words of every record.
CODE, SOURCE, TARGET, GROUP = range(4)
_HEAD = 4

_SELL16 = ("groups", "indptr", "indices", "values", "bias", "bounds", "wide", "rows", "order", "scratch")

#: The fields of each opcode. `bounds` is the address of the bounds to which results are clipped: two floats.
FIELDS = {
    # Copies the next image from the caller, or the next `lanes` images, transposed to (features, lanes).
    "input": ("features", "lanes"),
    # Copies the results of one image, or of `lanes` images, to the caller.
    "output": ("features", "lanes"),
    # Transposes (lanes, features) to (features, lanes).
    "transpose": ("features", "lanes"),
    # Copies (count, lanes) to positions that lie `gap` apart.
    "scatter": ("count", "lanes", "gap"),
    # Multiplies sparse rows by blocks of positions or of lanes: every convolution, and every linear layer over many
    # images. There are `outer` steps (image rows) of `blocks` blocks each, and at most `max_blocks` are computed at a
    # time. Entries lie in `runs` runs of columns. Blocks lie `step` apart in the source and form lines of `line_blocks`
    # blocks, of which `width` floats are kept. If `line_blocks` is 0, they are half blocks, and `width` floats of each
    # are kept. `pool` takes maxima of 2 x 2 in registers; for half blocks it is the number of them in a line. With
    # `pool`, a block covers two lines, `source_outer / 2` apart, and so advances by half a block, a `step` of 8.
    # `residual` is the address of a value that is laid out as the result and added to it, or `NO_RESIDUAL`.
    "csr_product": (
        "rows", "indptr", "order", "indices", "values", "bias", "unit", "outer", "source_outer", "target_row",
        "target_outer", "gap", "blocks", "max_blocks", "line_blocks", "width", "bounds", "pool", "runs", "step",
        "residual",
    ),
    # Does the same for one image by quads of rows, whose columns are sorted by mask (`kernels.quads`). In each of
    # `runs` runs of columns, each quad has the ends of its masks, after the last end of the quad before, and the start
    # of its values.
    "quad_product": (
        "rows", "ends", "starts", "indices", "values", "bias", "target_row", "blocks", "max_blocks", "line_blocks",
        "width", "bounds", "runs", "residual",
    ),
    # Does the same as "csr_product" for dense rows, four of which (a quad) lie side by side: their weights for column p
    # are adjacent, and multiply the blocks at the p-th of `offsets`. Columns lie in `runs` runs of about the same size.
    # Of each row's blocks, which form one line, `width` floats are kept.
    "dense_product": (
        "rows", "columns", "offsets", "values", "bias", "unit", "outer", "source_outer", "target_row", "target_outer",
        "gap", "blocks", "max_blocks", "width", "bounds", "runs", "residual",
    ),
    # Does the same for one image by `row_blocks` blocks of 16 rows: their weights for column p are adjacent, and
    # multiply the floats of the positions at the p-th of `offsets`, at most `max_positions` at a time. The sums are
    # transposed in one of `scratches` buffers, one for each thread, `scratch_step` apart; those of a vector
    # (`target_row` 1) are not.
    "row_block_product": (
        "rows", "columns", "row_blocks", "offsets", "values", "bias", "target_row", "positions", "max_positions",
        "bounds", "residual", "scratch", "scratches", "scratch_step",
    ),
    # Multiplies the sparse rows of a 3 x 3 convolution by one image of `blocks` blocks, at most `max_blocks` at a time;
    # `tiles` has the number for each number of blocks that are left. Tiles hold whole lines. In `indptr` there is a
    # list for each column of the kernel, whose sums are shifted. `masks` has zeros at the first position of each line,
    # then at the last ones.
    "shifted_product": (
        "rows", "indptr", "order", "indices", "values", "bias", "target_row", "blocks", "max_blocks", "tiles",
        "masks", "bounds", "runs", "residual",
    ),
    # Sets `times` pieces of `count` floats to zero.
    "clear": ("count", "times", "step"),
    # Splits channels into quarters, `quarter` floats apart: the even columns of even lines, the odd ones, and then the
    # same of odd lines. Each begins after `lead` floats; before odd lines, a line of these is set to zero.
    "split": ("channels", "height", "width", "plane", "quarter", "lead"),
    # Copies adjacent blocks.
    "block_copy": ("blocks",),
    # Multiplies each channel of one image by `channel_rows` rows of its own. A channel has `height` x `columns`
    # elements; channels are `plane` floats apart. There are `lines` lines of `width` outputs, and `top` lines and
    # `left` columns of padding. If `kernel` is not 0, rows are square windows of this size with all their weights.
    # Otherwise they are sparse, and a channel is copied to a buffer of `rows` lines first, with its lines of padding.
    # An entry reads `offsets` from the place of an output. It counts for column c of the outputs if ``c * stride_w``
    # plus its shift is one of the `columns`. At most `max_blocks` blocks are computed at a time. There are `scratches`
    # buffers (of zeros, for windows), one for each thread, `scratch_step` apart.
    "depthwise_product": (
        "channels", "channel_rows", "indptr", "offsets", "shifts", "values", "bias", "plane", "height", "columns",
        "rows", "top", "left", "scratch", "scratches", "scratch_step", "stride_h", "stride_w", "lines", "width",
        "target_row", "max_blocks", "kernel", "bounds", "residual",
    ),
    # Multiplies sparse rows by one vector, 16 rows at a time.
    "sell16_product": _SELL16,
    # Does the same, with most entries in blocks of 16 columns, each with `slots` slots for 16 rows; gathers the rest.
    "permute": (*_SELL16, "blocks", "slots", "block_indices", "block_values"),
    # Adds up the dense columns of the nonzero inputs; if there are more than `limit`, runs the operator at `instead`.
    "csc_product": ("features", "columns", "blocks", "bias", "bounds", "found", "limit", "instead"),
    # Copies (channels, height, width, lanes) to (channels, variants, phases, rows, cols, lanes), with padding.
    # `plane` and `copy_plane` are distances between channels in positions; only `needed` columns are ever read.
    "pad_copy": (
        "channels", "height", "width", "lanes", "variants", "starts", "stride", "phases", "top", "rows", "cols",
        "plane", "copy_plane", "needed",
    ),
    # `kind` is 0 for the maximum, 1 for the mean with the padding counted, 2 for the mean without.
    "pool": (
        "channels", "height", "width", "lanes", "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w",
        "out_h", "out_w", "kind", "bounds", "plane", "out_plane",
    ),
    # Takes the mean of each channel, or its maximum.
    "global_pool": ("channels", "positions", "lanes", "mean", "plane"),
    "add": ("second", "count", "bounds"),
    "clip": ("count", "bounds"),
    # Runs the instructions of a map (`kernels.map_functions`) for `count` elements. Each of `loads` has the address of
    # an operand and the number of elements for which it repeats the same lanes, or 0 if it is like the result. There
    # are `scratches` sets of registers, one for each thread, `scratch_step` apart; the first of each hold `constants`.
    "map": (
        "count", "lanes", "instructions", "program", "loads", "constants", "constant_count", "scratch", "scratches",
        "scratch_step",
    ),
    # Copies `times` pieces of `count` floats.
    "copy": ("count", "times", "source_step", "target_step"),
    "softmax": ("features", "lanes"),
}  # fmt: skip

#: The field "residual" of a product to which nothing is added.
NO_RESIDUAL = -1
#: The number of each opcode.
CODES = {name: code for code, name in enumerate(FIELDS)}
#: The number of words in a record, which is that of the longest.
RECORD_WIDTH = _HEAD + max(map(len, FIELDS.values()))

for _opcode, _fields in FIELDS.items():
    globals()[_opcode.upper()] = CODES[_opcode]
    for _place, _field in enumerate(_fields, _HEAD):
        globals()[f"{_opcode}_{_field}".upper()] = _place

#: A program begins with a flag for exact sums, then has the plan of the next tile for 0 to `CHOICES` remaining images.
EXACT, PLANS, CHOICES = 0, 1, 64
#: Then come the bounds of results that are not clipped. The parts after the header have no fixed place.
UNBOUNDED = PLANS + CHOICES + 1
HEADER = UNBOUNDED + 2
#: A plan has the images in a tile, the images in a group, and for each of two stages (for each group; after them) the
#: number of operators and the address of the first.
PLAN_TILE, PLAN_LANES, PLAN_STAGES, STAGE_WIDTH = 0, 1, 2, 2
#: The number of floats that kernels may read beyond the used part of an arena, and before it.
SLACK, LEAD = 1024, 16
#: The largest word.
MAX_WORD = (1 << 31) - 1


def record(opcode: str, source: int, target: int, group: int, fields: Mapping[str, float]) -> list[int]:
    """Return the words of an operator.

    Parameters
    ----------
    opcode : str
    source, target : int
        The offsets in the arena where the operator reads and writes.
    group : int
        The step of `target` from one group of images to the next.
    fields : mapping
        A whole number for each field of the opcode.
    """
    names = FIELDS[opcode]
    if len(fields) != len(names):
        raise TypeError(f"{opcode}: expected the fields {names}, found {tuple(fields)}")
    return [CODES[opcode], source, target, group, *[int(fields[name]) for name in names]]
