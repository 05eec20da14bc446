"""Measures whether `torch.compile` helps: times a training step of the small networks that the recipes train.

    python benchmarks/training_step.py [--device cuda] [--rounds N]

Steps with and without it alternate. The figures are medians of processor time on the CPU, where each works in one
thread, and of clock time on CUDA. The time to compile is given beside them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parent), *(str(Path(__file__).parents[1] / p) for p in ("", "runtime", "pruning"))]

from dcformat_pruning.lenets import build  # noqa: E402
from dcformat_pruning.shrinking import keep_best_units, shrink  # noqa: E402
from dcformat_pruning.training import TrainingPlan, make_optimizer, memory_format, objective  # noqa: E402
from machine import describe  # noqa: E402

#: The hidden units that the record recipes leave.
UNITS = {"lenet-300-100": {"fc1": 200, "fc2": 80}, "lenet-5": {"conv1": 10, "conv2": 25, "fc1": 120}}
PLAN = TrainingPlan(epochs=1, lr=1e-3)


def small(architecture: str, device: str) -> nn.Module:
    """Return a network with the units of a record recipe's, in the memory format that training uses."""
    module = build(architecture, 0)
    keep_best_units(module, UNITS[architecture])
    shrunk = shrink(module).module.to(device)
    return shrunk.to(memory_format=memory_format(shrunk))  # type: ignore[call-overload,no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    x = torch.rand(PLAN.batch, 1, 28, 28, device=options.device)
    y = torch.softmax(torch.randn(PLAN.batch, 10, device=options.device), 1)

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> float:
        start = clock()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(objective(module, (images, y), PLAN))
        optimizer.step()
        if options.device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    print("| network | eager, ms | compiled, ms | compiling, s |\n|---|---|---|---|")
    for architecture in UNITS:
        plain = small(architecture, options.device)
        images = x.contiguous(memory_format=memory_format(plain))
        optimizer = make_optimizer(plain, PLAN)
        compiled = torch.compile(plain)
        start = time.perf_counter()
        step(compiled, optimizer, images)
        compiling = time.perf_counter() - start
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.rounds):
            times[False].append(step(plain, optimizer, images))
            times[True].append(step(compiled, optimizer, images))
        medians = " | ".join(f"{1000 * statistics.median(times[way]):.2f}" for way in (False, True))
        print(f"| {architecture} | {medians} | {compiling:.0f} |", flush=True)
    print(f"\n{describe('torch')}.")


if __name__ == "__main__":
    main()
