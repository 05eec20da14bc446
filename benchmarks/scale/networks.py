"""Measures the CPU seconds of packing in `fast`: networks shaped like AlexNet and VGG-16, and tensors of rising size.

Weights are drawn: in each layer, a share of them from 32 values (pruned and shared), or all of them normal (dense). CPU
seconds of one process are measured, because other programs may run; on a quiet machine they are the elapsed seconds,
except for the reading of the file.

    python benchmarks/scale/networks.py [--largest 30] [--series] [--picture docs/scale.png]

`--series` leaves the networks out; `--picture` draws the series. The tensor of 2^30 weights takes 5 GB of memory and of
disk to make.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from dcformat_interop.packing.checkpoint_packing import Packing
from dcformat_interop.packing.packed_files import write_one
from dcformat_interop.packing.shards import find_shards
from dcformat_interop.packing.workers import ThisProcess

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import describe

CONVOLUTIONS = {
    "AlexNet": [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)],
    "VGG-16": [
        (64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (256, 128, 3, 3), (256, 256, 3, 3),
        (256, 256, 3, 3), (512, 256, 3, 3), *[(512, 512, 3, 3)] * 5,
    ],
}  # fmt: skip
LINEAR = {
    "AlexNet": [(4096, 9216), (4096, 4096), (1000, 4096)],
    "VGG-16": [(4096, 25088), (4096, 4096), (1000, 4096)],
}
#: The approximate share of weights that Deep Compression leaves.
DENSITY = {"AlexNet": 0.11, "VGG-16": 0.075}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=28, help="the last tensor of the series has 2 to this weights")
    parser.add_argument("--series", action="store_true", help="only tensors of rising size")
    parser.add_argument("--picture", type=Path, help="draw the series")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    print(describe())
    print("| what | weights | bytes in | bytes out | CPU seconds | million weights a second |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.safetensors"
        pack(path, {"warm": np.zeros((2000, 2000), np.float32)})
        for name in () if options.series else CONVOLUTIONS:
            shapes = CONVOLUTIONS[name] + LINEAR[name]
            for what, density in ((f"{name}, pruned and shared", DENSITY[name]), (f"{name}, dense", None)):
                row(what, path, {f"layer{n}.weight": draw(random, shape, density) for n, shape in enumerate(shapes)})
        series = {}
        for power in range(20, options.largest + 1, 2):
            shape = (1 << power // 2, 1 << power // 2)
            series[1 << power] = row(f"2^{power}, pruned and shared", path, {"weight": draw(random, shape, 0.1)})
    if options.picture is not None:
        plot(series, options.picture)


def draw(random: np.random.Generator, shape: tuple[int, ...], density: float | None) -> npt.NDArray[np.float32]:
    """Return a layer's weights."""
    if density is None:
        return random.standard_normal(shape, np.float32) * np.float32(0.02)
    codebook = np.concatenate((np.zeros(1), random.standard_normal(32))).astype(np.float32)
    out = np.empty(shape, np.float32)
    for rows in np.array_split(out, max(1, out.size >> 24)):  # so that a large tensor is in memory only once
        codes = random.integers(1, 33, rows.shape, np.uint8)
        codes[random.random(rows.shape, np.float32) >= density] = 0
        rows[:] = codebook[codes]
    return out


def plot(series: dict[int, float], path: Path) -> None:
    """Draw the seconds for each number of weights, beside a line of the same time for each weight."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    weights, seconds = list(series), list(series.values())
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    least, most = weights[0], weights[-1]
    axes.plot([least, most], [least / most * seconds[-1], seconds[-1]], color="0.7", zorder=1)
    axes.annotate(
        "the same time for each weight", (most, seconds[-1]), (-8, 8), textcoords="offset points", ha="right",
        color="0.45",
    )  # fmt: skip
    axes.scatter(weights, seconds, zorder=2)
    for count, took in series.items():
        label = f"{count >> 20:,} Mi weights\n{took:.2g} s"
        axes.annotate(label, (count, took), (7, -20), textcoords="offset points", fontsize=8)
    axes.set(
        xscale="log", yscale="log", xlim=(least / 2, 10 * most), ylim=(seconds[0] / 4, 4 * seconds[-1]),
        xlabel="weights of a float32 tensor, 10 % of them not zero, 32 values", ylabel="CPU seconds to pack in fast",
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def row(what: str, path: Path, arrays: dict[str, npt.NDArray[np.float32]]) -> float:
    """Print a row of the table, and return the CPU seconds."""
    weights, seconds, size = sum(array.size for array in arrays.values()), *pack(path, arrays)
    speed = weights / seconds / 1e6
    print(f"| {what} | {weights:,} | {path.stat().st_size:,} | {size:,} | {seconds:.2f} | {speed:.1f} |", flush=True)
    return seconds


def pack(path: Path, arrays: dict[str, npt.NDArray[np.float32]]) -> tuple[float, int]:
    """Return the CPU seconds and the size of the packed file."""
    header: dict[str, Any] = {}
    start = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            array.tofile(file)
    arrays.clear()
    began = time.process_time()
    packing = Packing(find_shards(path), "fast", exact=False, skip=(), max_memory=None)
    with packing.journal(None) as journal, tempfile.TemporaryFile() as out:
        packing.run(ThisProcess(), journal, lambda _: None)
        size = write_one(packing.coded(journal), "fast", {}, (), out)
    return time.process_time() - began, size


if __name__ == "__main__":
    main()
