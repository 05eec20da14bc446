"""Compares the speed of each layer with the core's peak: multiply-adds with an operand in a register or in a cache.

    python benchmarks/runtime/roofline.py [lenet-300-100/han lenet-5/vs FILE.dcf ...] [--batch 1 64]

Times are CPU time of the thread, the least of many, so that other processes disturb them little. Layers run one at a
time, over and over, so their weights and values lie in the nearest cache that holds them. The cost of an empty call of
the kernel is measured too and subtracted.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from time import thread_time_ns
from typing import Any

import numpy as np
from llvmlite import binding as llvm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parents[1] / folder) for folder in ("runtime", "", "benchmarks"))]

from dcformat_runtime.engine import walk  # noqa: E402
from dcformat_runtime.kernels import control as words  # noqa: E402
from dcformat_runtime.kernels import interpreter  # noqa: E402
from dcformat_runtime.network import Layer, Network, lower  # noqa: E402
from dcformat_runtime.network_engine import KernelEngine  # noqa: E402
from dcformat_runtime.program_record import aligned_zeros  # noqa: E402
from machine import describe  # noqa: E402
from networks import inputs, load  # noqa: E402

#: The number of sums in registers; each iteration adds a product to each, with a second operand in register or memory.
_SUMS = 24


def _peak_code(reads: bool) -> str:
    """Return the LLVM IR of ``peak(turns, data, size)``: multiply-adds, with an operand from memory if `reads`."""
    v = "<16 x float>"
    lines = [
        f"declare {v} @llvm.fma.v16f32({v}, {v}, {v})",
        "define void @peak(i64 %turns, ptr %data, i64 %size) {",
        f"entry:\n  %m = load {v}, ptr %data, align 64\n  br label %loop",
        "loop:\n  %t = phi i64 [0, %entry], [%next, %loop]\n  %at = phi i64 [0, %entry], [%to, %loop]",
    ]
    lines += [f"  %s{k} = phi {v} [%m, %entry], [%r{k}, %loop]" for k in range(_SUMS)]
    lines.append("  %base = getelementptr i8, ptr %data, i64 %at")
    for k in range(_SUMS):
        other = "%m"
        if reads:
            lines.append(f"  %p{k} = getelementptr i8, ptr %base, i64 {64 * k}")
            lines.append(f"  %x{k} = load {v}, ptr %p{k}, align 64")
            other = f"%x{k}"
        x, y = ("%m", f"%s{k}") if reads else (f"%s{k}", "%m")
        lines.append(f"  %r{k} = call {v} @llvm.fma.v16f32({v} {x}, {v} {other}, {v} {y})")
    lines += [
        f"  %end = add i64 %at, {64 * _SUMS}",
        "  %over = icmp sge i64 %end, %size",
        "  %to = select i1 %over, i64 0, i64 %end",
        "  %next = add i64 %t, 1",
        "  %more = icmp slt i64 %next, %turns",
        "  br i1 %more, label %loop, label %exit",
        "exit:",
    ]
    lines += [f"  store {v} %r{k}, ptr %data, align 64" for k in range(_SUMS)]
    return "\n".join([*lines, "  ret void", "}"])


def peak(reads: int) -> float:
    """Return the GFLOP/s of multiply-adds, whose second operands come from `reads` bytes of memory if that is not 0."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_peak_code(reads > 0)), machine)
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address("peak"))
    size = max(reads // (64 * _SUMS), 1) * 64 * _SUMS
    raw = np.zeros(size + 64, np.uint8)
    start = raw.ctypes.data + -raw.ctypes.data % 64
    turns = 40_000
    return 2 * 16 * _SUMS * turns / _least(lambda: call(turns, start, size), 15)


def _least(function: Callable[[], Any], times: int) -> float:
    best = float("inf")
    for _ in range(times):
        start = thread_time_ns()
        function()
        best = min(best, float(thread_time_ns() - start))
    return best


def multiply_adds(layer: Layer) -> int:
    """Return the multiply-adds of one input: stored weights, times positions for a convolution (padding included)."""
    if layer.weight is None:
        return 0
    return layer.weight.nnz * (prod(layer.conv_shape[1:]) if layer.conv_shape else 1)


def measure(network: Network, x: np.ndarray, repeats: int) -> dict[str, float]:
    """Return the nanoseconds of each layer for the whole batch, minus those of an empty call."""
    batch = len(x)
    engine = KernelEngine(network, 1, False)
    program, kernel = engine.program(batch == 1), interpreter.run.resolve()
    y, arena = np.empty((batch, network.outputs), np.float32), aligned_zeros(program.arena)
    steps = list(walk(program, batch))
    nothing = np.zeros(words.WIDTH, np.int64)  # a generation without pieces
    idle = _least(lambda: kernel(x, y, arena, program.mem, nothing, 1), 500)
    times: dict[str, float] = {}
    for name, _, control in steps:
        least = _least(partial(kernel, x, y, arena, program.mem, control, 0), repeats)
        times[name] = times.get(name, 0.0) + max(0.0, least - idle)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "networks", nargs="*", default=["lenet-300-100/han", "lenet-300-100/vs", "lenet-5/han", "lenet-5/vs"]
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=300)
    arguments = parser.parse_args()
    print(describe("llvmlite"))
    peaks = {"registers": peak(0), "24 KiB": peak(24 << 10), "256 KiB": peak(256 << 10), "4 MiB": peak(4 << 20)}
    for where, value in peaks.items():
        print(f"peak, second operand from {where}: {value:.0f} GFLOP/s")
    print("\n| network | batch | layer | multiply-adds | us | GFLOP/s | of 24 KiB | of 256 KiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.networks:
        model = load(name)
        network = lower(model)
        for batch in arguments.batch:
            x = inputs(model, batch)[0].reshape(batch, -1)
            work = {layer.name: multiply_adds(layer) * batch for layer in network.layers}
            for layer, nanoseconds in measure(network, x, arguments.repeats).items():
                if work.get(layer):
                    rate = 2 * work[layer] / max(nanoseconds, 1.0)
                    shares = " | ".join(f"{rate / peaks[where]:.0%}" for where in ("24 KiB", "256 KiB"))
                    cells = name, batch, layer, f"{work[layer]:,}", f"{nanoseconds / 1e3:.2f}", f"{rate:.1f}"
                    print(f"| {' | '.join(map(str, cells))} | {shares} |")


if __name__ == "__main__":
    main()
