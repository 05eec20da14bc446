"""Turns a network into a program (see `ops`): the order of work, the tables, where every value lies.

A tile of images goes through two stages. The first is run for each group of images: for each image alone (one lane), or
for 16 together, one image a lane. The second starts where one value is all that is left and only vectors follow, and is
run for the whole tile, every image a lane. Which tiles there are, and which is taken for how many images, follows from
estimated costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from dcformat.errors import LimitError
from dcformat.graph import Flatten
from dcformat.records import record
from dcformat_runtime import ops
from dcformat_runtime.network import Floats, Network
from dcformat_runtime.stage import Stage
from dcformat_runtime.storage import Arena, Constants, Homes, homes
from dcformat_runtime.weights import Weights

#: Floats of all values of 16 images up to which convolutions are run for 16 together; above, the caches are too small.
_LANES_LIMIT = 1 << 22


class Plan:
    """One way to run a tile: `tile` images, `lanes` of them in a group.

    `names` and `costs` (estimated nanoseconds): each stage's operators, in order.
    """

    __slots__ = ("address", "costs", "lanes", "names", "tile")

    def __init__(self, tile: int, lanes: int) -> None:
        self.tile, self.lanes, self.address = tile, lanes, 0
        self.names: tuple[list[str], list[str]] = ([], [])
        self.costs: tuple[list[float], list[float]] = ([], [])

    def cost(self, images: int) -> float:
        """Estimated nanoseconds for `images` images, at most a tile."""
        return -(-images // self.lanes) * sum(self.costs[0]) + sum(self.costs[1])


@record
class Program:
    """What a kernel needs: `mem`, and the floats of its arena.

    `choices[r]`: the plan when r images are left; `costs[r]`: estimated nanoseconds for them.
    """

    mem: Floats
    arena: int
    choices: tuple[Plan, ...]
    costs: tuple[float, ...]


def build(
    network: Network, *, single: bool, exact: bool, most: int = 12, permutes: bool = False, halves: bool = True
) -> Program:
    """Make the program for one image at a time (`single`), or for many.

    `most`: blocks that a kernel is to hold in registers at a time; `permutes`: whether permuting a block is fast;
    `halves`: whether two half blocks are as fast as a block.
    """
    constants = Constants()
    arena, plans = lay_out(network, Weights(constants, exact, most, permutes, halves), single)
    check_words(max(arena, constants.size))
    choices, costs = _choose(plans)
    mem = constants.finish()
    mem.view(np.int32)[0] = exact
    mem.view(np.int32)[1 : 1 + len(choices)] = [plan.address for plan in choices]
    return Program(mem, arena, tuple(choices), tuple(costs))


def lay_out(network: Network, weights: Weights, single: bool) -> tuple[int, list[Plan]]:
    """Write the plans into the room of `weights`; return the floats of the arena, and the plans."""
    one, many = homes(network, True), homes(network, False)
    cut = _cut(network, many)
    weights.room.skip(1 + ops.CHOICES + 1)  # filled in when the addresses are known
    plans = [Plan(1, 1)] if single else _plans(network, cut)
    arena = max(_emit(network, cut, plan, weights, (one, many)) for plan in plans) + ops.SLACK
    return arena, plans


def check_words(floats: int) -> None:
    """Raise `LimitError` if an arena or constants of so many floats are more than a kernel can number."""
    if floats > ops.MAX_WORD:
        raise LimitError("running the network", got=f"{floats} floats", expected=f"at most {ops.MAX_WORD}")


def _cut(network: Network, values: Homes) -> int:
    """Return the first layer of the second stage: all before it is done, one value is needed, only vectors follow.

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
        flat = isinstance(layer.node, Flatten) or all(len(shape) == 1 for shape in layer.in_shapes)
        if not flat or len(layer.out_shape) != 1:
            break
        needed.discard(layer.output)
        needed.update(layer.inputs)
        if len(needed) == 1 and first_read.get(where[min(needed)].storage, cut) >= cut:
            best = cut
    return best


def _plans(network: Network, cut: int) -> list[Plan]:
    if cut == 0:
        return [Plan(8, 8), Plan(16, 16), Plan(32, 32), Plan(64, 64)]
    values = prod(network.input_shape) + sum(prod(layer.out_shape) for layer in network.layers[:cut])
    if 16 * values > _LANES_LIMIT:
        return [Plan(8, 1), Plan(64, 1)] if cut < len(network.layers) else [Plan(1, 1)]
    if cut == len(network.layers):
        return [Plan(1, 1), Plan(16, 16)]
    return [Plan(8, 1), Plan(16, 16), Plan(32, 16), Plan(64, 16)]


def _emit(network: Network, cut: int, plan: Plan, weights: Weights, values: tuple[Homes, Homes]) -> int:
    """Write a plan's operators; return the floats of its arena. `values`: their homes, of one image and of many."""
    arena, layers, room = Arena(), network.layers, weights.room
    first = Stage(network, weights, arena, plan.lanes, values[plan.lanes > 1])
    second = Stage(network, weights, arena, plan.tile, values[plan.tile > 1])
    if plan.tile == 1 or cut == len(layers):
        first.input()
        first.run(0, len(layers))
        first.output()
    elif cut == 0:
        second.input()
        second.run(0, len(layers))
        second.output()
    else:
        value = layers[cut].inputs[0]
        bridge = first.bridge(value, plan.tile)
        first.input()
        first.run(0, cut)
        first.leave(value, bridge)
        second.resume(value, bridge, first)
        second.run(cut, len(layers))
        second.output()
    words = [
        word for stage in (first, second) for word in (len(stage.records), room.put_records(stage.records, ops.WIDTH))
    ]
    plan.address = room.put_words([plan.tile, plan.lanes, *words])
    plan.names, plan.costs = (first.names, second.names), (first.costs, second.costs)
    return arena.size


def _choose(plans: Sequence[Plan]) -> tuple[list[Plan], list[float]]:
    """For each number of images left, the plan that costs least, what remains after it included; and what they cost."""
    best: list[float] = [0.0]
    choices = [plans[0]]
    for left in range(1, ops.CHOICES + 1):
        costs = [plan.cost(min(left, plan.tile)) + best[max(0, left - plan.tile)] for plan in plans]
        pick = costs.index(min(costs))
        best.append(costs[pick])
        choices.append(plans[pick])
    return choices, best
