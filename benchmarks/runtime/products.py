"""Times the products that can compute a 3 x 3 convolution, for several shapes and shares of weights.

    python benchmarks/runtime/products.py [--repeats 10]

A cell is the time of a layer with its copies, in nanoseconds for each 16 multiply-adds of a stored weight: CPU time of
the thread, the least of many. The product that the runtime chooses is marked by *.
"""

from __future__ import annotations

import argparse
import sys
from math import prod
from pathlib import Path
from time import thread_time_ns

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parents[1] / folder) for folder in ("runtime", "", "benchmarks"))]

from dcformat_runtime import cpu  # noqa: E402
from dcformat_runtime.compile import choices  # noqa: E402
from dcformat_runtime.compile.choices import ConvProduct  # noqa: E402
from dcformat_runtime.engine import walk  # noqa: E402
from dcformat_runtime.kernels import interpreter  # noqa: E402
from dcformat_runtime.network import Network, lower  # noqa: E402
from dcformat_runtime.network_engine import KernelEngine  # noqa: E402
from dcformat_runtime.program_record import aligned_zeros  # noqa: E402
from machine import describe  # noqa: E402

from dcformat import Model, from_dense  # noqa: E402
from dcformat.graph import Conv, Graph  # noqa: E402

#: The channels and the width of images.
SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7), (16, 32), (32, 16), (64, 8), (64, 32), (128, 16), (256, 8))
SHARES = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
PRODUCTS: tuple[ConvProduct, ...] = ("rows", "shifted", "quads", "dense")
_LAYER = "layer.weight"


def network(channels: int, width: int, share: float) -> Network:
    """Return a depthwise layer, so that the next one reads no input, and a 3 x 3 convolution."""
    random = np.random.default_rng(1)
    weight = random.standard_normal((channels, channels, 3, 3), np.float32)
    weight[random.random(weight.shape) >= share] = 0
    first = np.ones((channels, 1, 1, 1), np.float32)
    nodes = [
        Conv((0,), "first.weight", None, (1, 1), groups=channels),
        Conv((1,), _LAYER, None, (1, 1), padding=(1, 1), padding_end=(1, 1)),
    ]
    tensors = {name: from_dense(name, values) for name, values in (("first.weight", first), (_LAYER, weight))}
    return lower(Model(tensors, Graph.sequential((channels, width, width), nodes)))


def measure(layers: Network, repeats: int) -> float:
    """Return the least nanoseconds of the operators of the convolution."""
    engine = KernelEngine(layers, 1, False)
    program, kernel = engine.program(True), interpreter.run.resolve()
    x = np.random.default_rng(0).standard_normal((1, prod(layers.input_shape)), np.float32)
    y, arena = np.empty((1, layers.outputs), np.float32), aligned_zeros(program.arena)
    total = 0.0
    for name, _, control in walk(program, 1):
        times = []
        for _ in range(repeats):
            start = thread_time_ns()
            kernel(x, y, arena, program.mem, control, 0)
            times.append(thread_time_ns() - start)
        total += min(times) if name == _LAYER else 0.0
    return total


def compare(layers: Network, repeats: int) -> list[str]:
    """Return a cell for each product."""
    layer, choose = layers.layers[-1], choices.conv_product
    assert layer.weight is not None
    chosen, cells = choose(layer, True, False, cpu.vectors()), []
    blocks = layer.weight.nnz * prod(layer.conv_shape[1:]) / 16
    for product in PRODUCTS:
        choices.conv_product = lambda *_, product=product: product  # type: ignore[assignment,misc]
        cells.append(f"{measure(layers, repeats) / blocks:.3f}{'*' if product == chosen else ''}")
    choices.conv_product = choose
    return cells


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    print(describe("llvmlite"))
    print(f"\n| channels, image | weights kept | {' | '.join(PRODUCTS)} |\n|---|---|{'---|' * len(PRODUCTS)}")
    for channels, width in SHAPES:
        for share in SHARES:
            cells = compare(network(channels, width, share), options.repeats)
            print(f"| {channels}, {width} x {width} | {share:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
