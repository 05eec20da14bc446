"""Turns a network into a program (see `isa`): the order of work, the tables, the place of every value.

A tile of images goes through two stages. The first runs for each group of images: one image (one lane), or 16 images,
each in a lane. The second starts where only one value is needed and only vectors, or small images, follow; it runs for
the whole tile, with each image in a lane. Estimated costs decide which tile suits a number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, prod

import numpy as np

from dcformat.errors import LimitError
from dcformat.graph import Conv, Flatten, Shape
from dcformat_runtime import isa
from dcformat_runtime.compile.arena import Arena, Homes, Planes, homes
from dcformat_runtime.compile.constants import Constants
from dcformat_runtime.compile.many_images import ManyImages
from dcformat_runtime.compile.one_image import OneImage
from dcformat_runtime.compile.weights import Weights
from dcformat_runtime.cpu import Vectors
from dcformat_runtime.kernels.simd_widths import BLOCK
from dcformat_runtime.network import Network
from dcformat_runtime.program_record import Program, TilePlan

#: Convolutions run for 16 images together if all their values have at most this many floats, so that they fit in the
#: caches.
_LANES_LIMIT = 1 << 22
#: A network with more layers has only the program for one image.
_MANY_LAYERS = 1 << 10


def build(network: Network, exact: bool, vectors: Vectors, *, single: bool) -> Program:
    """Make the program for one image at a time (`single`), or for many."""
    constants = Constants()
    arena, plans = lay_out(network, Weights(network, constants, exact, vectors), single)
    check_words(max(arena, constants.size))
    choices, costs = _choose(plans)
    mem = constants.finish()
    mem.view(np.int32)[isa.EXACT] = exact
    mem[isa.UNBOUNDED : isa.UNBOUNDED + 2] = -inf, inf
    mem.view(np.int32)[isa.PLANS : isa.PLANS + len(choices)] = [plan.address for plan in choices]
    return Program(mem, arena, tuple(choices), tuple(costs))


def lay_out(network: Network, weights: Weights, single: bool) -> tuple[int, list[TilePlan]]:
    """Write the plans into the space of `weights`; return the size of the arena in floats, and the plans."""
    weights.room.skip(isa.HEADER)  # filled in when the addresses are known
    values: dict[bool, Homes] = {}  # of one image, and of many
    if single or runs_one_by_one(network):
        cuts = [(TilePlan(1, 1), len(network.layers))]
    else:
        values[False] = homes(network, Planes(False), weights.exact)
        cuts = _plans(network, values[False])
    if any(plan.lanes == 1 for plan, _ in cuts):
        values[True] = homes(network, weights.planes, weights.exact)
    arena = max(_emit(network, cut, plan, weights, values) for plan, cut in cuts) + isa.SLACK
    return arena, [plan for plan, _ in cuts]


def runs_one_by_one(network: Network) -> bool:
    """Return whether the program for one image serves batches too, because another would cost a long network much."""
    return len(network.layers) > _MANY_LAYERS


def check_words(floats: int) -> None:
    """Raise `LimitError` if an arena or constants of `floats` floats exceed what a kernel can address."""
    if floats > isa.MAX_WORD:
        raise LimitError("running the network", got=f"{floats} floats", expected=f"at most {isa.MAX_WORD}")


def _cut(network: Network, values: Homes, fits: Callable[[Shape], bool]) -> int:
    """Return the first layer of the second stage, from which one value is needed and all shapes fit.

    That value must lie where only the second stage reads it.
    """
    layers, where = network.layers, values.of
    first_read: dict[int, int] = {}
    for k, layer in enumerate(layers):
        if not isinstance(layer.node, Flatten):
            for value in layer.inputs:
                first_read.setdefault(where[value].storage, k)
    needed, best = {network.output}, len(layers)
    for cut in range(len(layers) - 1, -1, -1):
        layer = layers[cut]
        seen = [layer.out_shape] if isinstance(layer.node, Flatten) else [*layer.in_shapes, layer.out_shape]
        if not all(map(fits, seen)):
            break
        needed.discard(layer.output)
        needed.update(layer.inputs)
        if len(needed) == 1 and first_read.get(where[min(needed)].storage, cut) >= cut:
            best = cut
    return best


def _is_vector(shape: Shape) -> bool:
    return len(shape) == 1


def _is_small(shape: Shape) -> bool:
    """Return whether images of a shape leave much of a block of positions empty, but fill it as lanes."""
    return prod(shape[1:]) <= BLOCK


def _plans(network: Network, homes: Homes) -> list[tuple[TilePlan, int]]:
    """Return the plans for many images, each with the first layer of its second stage."""
    layers, cut = network.layers, _cut(network, homes, _is_vector)
    if cut == 0:
        return [(TilePlan(lanes, lanes), 0) for lanes in (8, 16, 32, 64)]
    values = prod(network.input_shape) + sum(prod(layer.out_shape) for layer in layers[:cut])
    if 16 * values <= _LANES_LIMIT:
        if cut == len(layers):
            return [(TilePlan(1, 1), cut), (TilePlan(16, 16), cut)]
        plans = [(TilePlan(8, 1), cut), *((TilePlan(tile, 16), cut) for tile in (16, 32, 64))]
    else:
        plans = [(TilePlan(8, 1), cut), (TilePlan(64, 1), cut)] if cut < len(layers) else [(TilePlan(1, 1), cut)]
    small = _cut(network, homes, _is_small)
    if any(isinstance(layer.node, Conv) for layer in layers[small:cut]):
        plans.append((TilePlan(16, 1), small))
    return plans


def _emit(network: Network, cut: int, plan: TilePlan, weights: Weights, values: Mapping[bool, Homes]) -> int:
    """Emit a plan; return the size of its arena in floats. `values`: the homes for one image and for many."""
    arena, room, end = Arena(), weights.room, len(network.layers)
    first, second = (
        (OneImage if lanes == 1 else ManyImages)(network, weights, arena, lanes, values[lanes == 1])
        for lanes in (plan.lanes, plan.tile)
    )
    if cut in (0, end):
        alone = first if cut else second
        alone.bring_in()
        alone.run(0, end)
        alone.give_out()
    else:
        value = network.layers[cut].inputs[0]
        bridge = first.make_bridge(value, plan.tile)
        first.bring_in()
        first.run(0, cut)
        first.enter_bridge(value, bridge)
        second.leave_bridge(value, bridge, plan.lanes == 1)
        second.run(cut, end)
        second.give_out()
    stages = [
        word
        for stage in (first, second)
        for word in (len(stage.records), room.put_records(stage.records, isa.RECORD_WIDTH))
    ]
    plan.address = room.put_words([plan.tile, plan.lanes, *stages])
    plan.names, plan.costs = (first.names, second.names), (first.costs, second.costs)
    return arena.size


def _choose(plans: Sequence[TilePlan]) -> tuple[list[TilePlan], list[float]]:
    """Return the cheapest plan for each number of images left, and the costs, which include the images that remain."""
    best: list[float] = [0.0]
    choices = [plans[0]]
    for left in range(1, isa.CHOICES + 1):
        costs = [plan.cost(min(left, plan.tile)) + best[max(0, left - plan.tile)] for plan in plans]
        pick = costs.index(min(costs))
        best.append(costs[pick])
        choices.append(plans[pick])
    return choices, best
