"""The compiled kernel that runs programs (`isa`) over tiles of images. It validates nothing.

Everything lies in two arrays: `mem` holds the network's constants and the program, and is never written; `a` is the
arena of one call. Sizes are data, so one compilation serves every network. The kernel allocates nothing, raises nothing
and calls nothing outside itself, so its machine code can be saved and reused without a compiler. It treats denormal
numbers as zeros.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, kernel, shared
from dcformat_runtime import isa
from dcformat_runtime.kernels import control as words
from dcformat_runtime.kernels.element_kernel import run_elements
from dcformat_runtime.kernels.image_forms import clear_lines
from dcformat_runtime.kernels.images import clip, pad_copy, pool, pool_all, split
from dcformat_runtime.kernels.products import csc_product, csr_product, permute_product, sell16_product, shifted_product
from dcformat_runtime.kernels.quads import quad_product
from dcformat_runtime.kernels.simd import (
    await_least,
    claim,
    claim_next,
    copy_block,
    copy_half,
    finish,
    flush_denormals,
    publish,
    restore_denormals,
    transpose,
    word,
)
from dcformat_runtime.kernels.simd_widths import BLOCK, HALF
from dcformat_runtime.kernels.tiles import dense_product, depthwise_product, row_block_product

Array = npt.NDArray[Any]


class ImageRange(NamedTuple):
    """The caller's inputs and outputs, of which operators copy `size` images from `first` on."""

    x: Array
    y: Array
    first: int
    size: int


class Part(NamedTuple):
    """The number of one of `parts` parts of an operator."""

    number: int
    parts: int


@kernel(
    "int64(const float32[:,::1], float32[:,::1], float32[::1], const float32[::1], int64[::1], int64)", unroll=False
)
def run(x: Array, y: Array, a: Array, mem: Array, control: Array, generation: int) -> int:
    """Run the program in `mem`, or one of its operators, on `x`, and write the results to `y`.

    Threads share a call by pieces; a piece is some images, or a part of an operator. The caller publishes the pieces,
    and all threads claim one after another until none is left, so a thread that comes late only helps less. If a thread
    has waited too long for the parts of an operator, it returns, and may be called again.

    Parameters
    ----------
    x : float32 (images, features)
    y : float32 (images, outputs)
    a : float32
        The arena; each thread has its own where images are shared.
    mem : float32
    control : int64
        See `control`.
    generation : int
        0: run alone. -g: publish generation g and take part. g: help with generation g, then wait briefly for the
        next, unless g was already over or its pieces are parts of operators.

    Returns
    -------
    int
        The number of pieces that this thread did, if the call is shared.
    """
    one = control[words.MODE] == words.ONE
    together = generation != 0 and control[words.MODE] == words.TOGETHER
    n = x.shape[0]
    floats = flush_denormals()
    if generation < 0:
        publish(control, words.CLAIM, -generation * words.MAX_PIECES)
    mine = 0
    if together:
        mine = _run_together(x, y, a, mem, control, abs(generation))
    else:
        piece = claim(control, words.CLAIM, words.PIECES, abs(generation)) if generation else 0
        while piece >= 0:
            done = control[words.IMAGE] if one else piece * control[words.SIZE]
            end = min(n, done + control[words.SIZE]) if generation else n
            while done < end:
                done += _run_tile(x, y, a, mem, control, done, end)
                if one:
                    done = end
            piece = -1
            if generation:
                mine += 1
                finish(control, words.DONE)
                piece = claim(control, words.CLAIM, words.PIECES, abs(generation))
        if generation > 0:
            await_least(control, words.CLAIM, (generation + 1) * words.MAX_PIECES, words.LOOKS)
    restore_denormals(floats)
    return mine


@kernel("int64(int64[::1])")
def wait(control: Array) -> int:
    """Wait briefly for the last pieces of a call; return whether all are done."""
    if await_least(control, words.DONE, control[words.PIECES], words.PATIENCE):
        return 1
    publish(control, words.LOOKS, 0)  # workers must not wait for another generation, but report the end of this one
    return 0


@device
def _run_together(x: Array, y: Array, a: Array, mem: Array, control: Array, generation: int) -> int:
    """Run parts of the operators for one image as long as some can be claimed; return their number."""
    exact = word(mem, isa.EXACT)
    mine = 0
    piece = claim_next(control, generation)
    while piece >= 0:
        # Not before a claim: a thread that comes too late finds the words of a later call, of another program.
        parts = control[words.PARTS]
        first = word(mem, control[words.PLAN] + isa.PLAN_STAGES + 1)
        op = first + isa.RECORD_WIDTH * (piece // parts)
        source = word(mem, op + isa.SOURCE)
        target = word(mem, op + isa.TARGET)
        _run_operator(ImageRange(x, y, 0, 1), a, mem, op, source, target, exact, Part(piece % parts, parts))
        mine += 1
        finish(control, words.DONE)
        piece = claim_next(control, generation)
    return mine


@device
def _run_tile(x: Array, y: Array, a: Array, mem: Array, control: Array, done: int, end: int) -> int:
    """Run the next tile of images from `done` on (before `end`), or one operator; return the tile's images."""
    one = control[words.MODE] == words.ONE
    exact = word(mem, isa.EXACT)
    left = end - done
    plan = control[words.PLAN] if one else word(mem, isa.PLANS + min(left, isa.CHOICES))
    count = min(word(mem, plan + isa.PLAN_TILE), left)
    lanes = word(mem, plan + isa.PLAN_LANES)
    for stage in range(control[words.STAGE] if one else 0, control[words.STAGE] + 1 if one else 2):
        groups = (count + lanes - 1) // lanes if stage == 0 else 1
        number = word(mem, plan + isa.PLAN_STAGES + isa.STAGE_WIDTH * stage)
        first = word(mem, plan + isa.PLAN_STAGES + isa.STAGE_WIDTH * stage + 1)
        for g in range(control[words.GROUP] if one else 0, control[words.GROUP] + 1 if one else groups):
            start = control[words.OPERATOR] if one else 0
            for o in range(start, start + 1 if one else number):
                image = done + g * lanes if stage == 0 else done
                here = min(lanes, count - g * lanes) if stage == 0 else count
                op = first + isa.RECORD_WIDTH * o
                source = word(mem, op + isa.SOURCE)
                target = word(mem, op + isa.TARGET) + g * word(mem, op + isa.GROUP)
                _run_operator(ImageRange(x, y, image, here), a, mem, op, source, target, exact, Part(0, 1))
    return count


@shared
def _run_operator(
    images: ImageRange, a: Array, mem: Array, op: int, source: int, target: int, exact: int, part: Part
) -> None:
    """Run a part of an operator; the first part is all of an operator that cannot be cut."""
    if not _run_parts(a, mem, op, source, target, exact, part) and part.number == 0:
        _run_whole(images, a, mem, op, source, target, exact)


@device
def _run_parts(a: Array, mem: Array, op: int, source: int, target: int, exact: int, cut: Part) -> bool:
    """Run a part of an operator that can be cut by rows or channels; return whether this one can."""
    part, parts = cut
    code = word(mem, op + isa.CODE)
    if code == isa.CSR_PRODUCT:
        csr_product(a, mem, op, source, target, exact, part, parts)
    elif code == isa.QUAD_PRODUCT:
        quad_product(a, mem, op, source, target, part, parts)
    elif code == isa.SHIFTED_PRODUCT:
        shifted_product(a, mem, op, source, target, part, parts)
    elif code == isa.DENSE_PRODUCT:
        dense_product(a, mem, op, source, target, exact, part, parts)
    elif code == isa.ROW_BLOCK_PRODUCT:
        row_block_product(a, mem, op, source, target, exact, part, parts)
    elif code == isa.DEPTHWISE_PRODUCT:
        depthwise_product(a, mem, op, source, target, exact, part, parts)
    elif code == isa.PAD_COPY:
        pad_copy(a, mem, op, source, target, part, parts)
    elif code == isa.SPLIT:
        split(a, mem, op, source, target, part, parts)
    elif code == isa.BLOCK_COPY:
        blocks = word(mem, op + isa.BLOCK_COPY_BLOCKS)
        for b in range(part * blocks // parts, (part + 1) * blocks // parts):
            copy_block(a, source + BLOCK * b, a, target + BLOCK * b)
    elif code == isa.POOL:
        pool(a, mem, op, source, target, part, parts)
    elif code == isa.GLOBAL_POOL:
        pool_all(a, mem, op, source, target, part, parts)
    elif code == isa.SELL16_PRODUCT:
        sell16_product(a, mem, op, source, target, 0, exact, part, parts)
    elif code == isa.MAP:
        run_elements(a, mem, op, target, part, parts)
    else:
        return False
    return True


@device
def _run_whole(images: ImageRange, a: Array, mem: Array, op: int, source: int, target: int, exact: int) -> None:
    """Run an operator that cannot be cut."""
    code = word(mem, op + isa.CODE)
    if code == isa.PERMUTE:
        permute_product(a, mem, op, source, target, exact)
    elif code == isa.CSC_PRODUCT:
        csc_product(a, mem, op, source, target, exact)
    elif code == isa.INPUT:
        _input(images, a, word(mem, op + isa.INPUT_FEATURES), word(mem, op + isa.INPUT_LANES), target)
    elif code == isa.OUTPUT:
        _output(a, source, images, word(mem, op + isa.OUTPUT_FEATURES), word(mem, op + isa.OUTPUT_LANES))
    elif code == isa.TRANSPOSE:
        _transpose(a, source, target, word(mem, op + isa.TRANSPOSE_FEATURES), word(mem, op + isa.TRANSPOSE_LANES))
    elif code == isa.SCATTER:
        _scatter(a, mem, op, source, target)
    elif code == isa.ADD:
        _add(a, mem, op, source, target)
    elif code == isa.CLIP:
        clip(a, mem, source, target, word(mem, op + isa.CLIP_COUNT), word(mem, op + isa.CLIP_BOUNDS))
    elif code == isa.CLEAR:
        times = word(mem, op + isa.CLEAR_TIMES)
        clear_lines(a, target, word(mem, op + isa.CLEAR_STEP), times, word(mem, op + isa.CLEAR_COUNT))
    elif code == isa.COPY:
        for piece in range(word(mem, op + isa.COPY_TIMES)):
            at = source + piece * word(mem, op + isa.COPY_SOURCE_STEP)
            to = target + piece * word(mem, op + isa.COPY_TARGET_STEP)
            for i in range(word(mem, op + isa.COPY_COUNT)):
                a[to + i] = a[at + i]
    else:
        _softmax(a, source, target, word(mem, op + isa.SOFTMAX_FEATURES), word(mem, op + isa.SOFTMAX_LANES))


@device
def _input(images: ImageRange, a: Array, features: int, lanes: int, target: int) -> None:
    x, image, count = images.x, images.first, images.size
    whole = features - features % BLOCK
    start = image * features
    if lanes == 1:
        for f in range(0, whole, BLOCK):
            copy_block(x, start + f, a, target + f)
        for f in range(whole, features):
            a[target + f] = x[image, f]
        for f in range(features, (features + BLOCK - 1) // BLOCK * BLOCK):
            a[target + f] = np.float32(0)
    else:
        done = count - count % BLOCK
        for i in range(0, done, BLOCK):  # sixteen rows at a time: as many streams as the processor prefetches
            for f in range(0, whole, BLOCK):
                transpose(x, start + i * features + f, features, a, target + f * lanes + i, lanes)
        for i in range(lanes):  # an incomplete group repeats its last image
            row = image + min(i, count - 1)
            for f in range(whole if i < done else 0, features):
                a[target + f * lanes + i] = x[row, f]


@device
def _output(a: Array, source: int, images: ImageRange, features: int, lanes: int) -> None:
    for i in range(images.size):
        for f in range(features):
            images.y[images.first + i, f] = a[source + f * lanes + i]


@device
def _transpose(a: Array, source: int, target: int, features: int, lanes: int) -> None:
    whole = features - features % BLOCK if lanes >= BLOCK else 0
    for f in range(0, whole, BLOCK):
        for i in range(0, lanes, BLOCK):
            transpose(a, source + i * features + f, features, a, target + f * lanes + i, lanes)
    for i in range(lanes):
        for f in range(whole, features):
            a[target + f * lanes + i] = a[source + i * features + f]


@device
def _scatter(a: Array, mem: Array, op: int, source: int, target: int) -> None:
    lanes = word(mem, op + isa.SCATTER_LANES)
    gap = word(mem, op + isa.SCATTER_GAP)
    for p in range(word(mem, op + isa.SCATTER_COUNT)):
        for i in range(0, lanes, HALF):
            copy_half(a, source + p * lanes + i, a, target + p * gap + i)


@device
def _add(a: Array, mem: Array, op: int, source: int, target: int) -> None:
    second = word(mem, op + isa.ADD_SECOND)
    count = word(mem, op + isa.ADD_COUNT)
    for i in range(count):
        a[target + i] = a[source + i] + a[second + i]
    bounds = word(mem, op + isa.ADD_BOUNDS)
    if bounds != isa.UNBOUNDED:
        clip(a, mem, target, target, count, bounds)


@device
def _softmax(a: Array, source: int, target: int, features: int, lanes: int) -> None:
    for lane in range(lanes):
        top = a[source + lane]
        for f in range(features):
            top = max(top, a[source + f * lanes + lane])
        total = np.float32(0)
        for f in range(features):
            value = np.float32(_exp(np.float64(top) - np.float64(a[source + f * lanes + lane])))
            a[target + f * lanes + lane] = value
            total += value
        for f in range(features):
            a[target + f * lanes + lane] /= total


@device
def _exp(x: float) -> float:
    """Return ``exp(-x)`` for ``x >= 0`` in float64 without the C library: halvings and a Taylor series of degree 11."""
    if not x < 104.0:
        return 0.0
    halvings = int(x * 1.4426950408889634 + 0.5)
    r = halvings * 0.6931471805599453 - x
    total = 1.0
    for k in range(11, 0, -1):
        total = 1.0 + total * r / k
    while halvings > 0:
        step = min(halvings, 30)
        total /= float(1 << step)
        halvings -= step
    return total
