"""The picture in the README: size on disk against test error, ours and published, and what is left of a layer.

    python benchmarks/picture.py FILE.dcf ... [--data DIR] [--out docs/result.png]

Each file is a LeNet of `dcformat compress`; its size is the whole file's, its error that of the packed file on the
test images. Published figures are those that state the size of everything that is needed to run the network.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import dcformat_runtime
import matplotlib.pyplot as plt
import numpy as np

import dcformat
from dcformat.architectures import ARCHITECTURES
from dcformat.datasets import load_split

#: Network: (what, bytes, test error in percent, where the label goes in points).
PUBLISHED = {
    "lenet-300-100": [
        ("Deep Compression, 2015", 27_000, 1.58, (-30, -11)),
        ("soft weight sharing, 2017", 16_700, 1.94, (-20, 6)),
        ("variational dropout, 2017", 9_400, 1.92, (-85, 6)),
        ("entropy penalised, 2020", 8_560, 1.9, (-60, -11)),
    ],
    "lenet-5": [
        ("Deep Compression, 2015", 44_000, 0.74, (-90, 4)),
        ("DeepCABAC, 2019", 15_000, 0.8, (-20, -11)),
        ("variational dropout, 2017", 4_700, 1.0, (5, -3)),
        ("MIRACLE, 2019", 3_000, 0.69, (-25, -12)),
        ("entropy penalised, 2020", 2_840, 1.0, (-50, 6)),
    ],
}
#: The error of the dense network in the Deep Compression paper.
BASELINE = {"lenet-300-100": 1.64, "lenet-5": 0.80}
TITLES = {"lenet-300-100": "LeNet-300-100 (1,066,440 bytes)", "lenet-5": "LeNet-5 (1,724,320 bytes)"}
OURS, THEIRS = "#c8421f", "#5b6b7b"
#: Where our labels go, in points.
PLACES = {"record": (-8, 8), "default": (22, -14), "classic": (0, -14), "extreme": (45, -4)}


@dataclass(frozen=True)
class Point:
    """A file: its network, the recipe that made it, bytes, test error in percent."""

    network: str
    recipe: str
    size: int
    error: float


def measure(path: Path, data: Path | None) -> Point:
    """Run a file on the test images."""
    split = load_split("test", data)
    session = dcformat_runtime.load(path)
    right = int((session(split.images).argmax(axis=1) == split.labels).sum())
    with dcformat.open(path) as file:
        shapes = [file.info(name).shape for name in file.names]
        recipe = file.metadata.get("recipe", path.stem)
    network = next((name for name, a in ARCHITECTURES.items() if list(a.shapes.values()) == shapes), "")
    if network not in PUBLISHED:
        raise SystemExit(f"{path}: expected a LeNet, found tensors of shapes {shapes}")
    return Point(network, recipe, path.stat().st_size, 100 * (1 - right / len(split.labels)))


def show_sizes(axes: Any, network: str, points: list[Point]) -> None:
    """Draw size against error; the corner at the lower left is where one wants to be."""
    axes.axhline(BASELINE[network], color="0.75", linewidth=1, linestyle="--")
    axes.annotate(
        "dense network, 2015", (0.99, BASELINE[network]), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="right", fontsize=7, color="0.5",
    )  # fmt: skip
    for what, size, error, place in PUBLISHED[network]:
        axes.plot(size, error, "o", color=THEIRS, markersize=5)
        axes.annotate(what, (size, error), xytext=place, textcoords="offset points", fontsize=7, color=THEIRS)
    for recipe in sorted({point.recipe for point in points}):
        chosen = [point for point in points if point.recipe == recipe]
        axes.plot([p.size for p in chosen], [p.error for p in chosen], "D", color=OURS, markersize=6)
        best = min(chosen, key=lambda point: point.size)
        lowest = min(point.error for point in chosen)
        axes.annotate(
            f"{recipe}: {best.size:,} bytes", (best.size, lowest), xytext=PLACES.get(recipe, (0, -14)), ha="center",
            textcoords="offset points", fontsize=8, color=OURS, weight="bold",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(1_000, 100_000)
    axes.set_xticks([1_000, 3_000, 10_000, 30_000, 100_000])
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes.margins(y=0.25)
    axes.set_xlabel("bytes on disk")
    axes.set_ylabel("test error, %")
    axes.set_title(TITLES[network], fontsize=10)


def show_layer(axes: Any, path: Path) -> None:
    """Draw how many of the first layer's weights are left for each pixel."""
    weight = dcformat.load(path).tensors["fc1.weight"].to_dense()
    alive = np.count_nonzero(weight, axis=0).reshape(28, 28)
    image = axes.imshow(np.where(alive > 0, alive, np.nan), cmap="inferno_r")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label="weights left, of 300 a pixel")
    axes.set_title(f"fc1 of {path.name}: {alive.sum():,} of {weight.size:,} weights", fontsize=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "result.png")
    options = parser.parse_args()
    points = {path: measure(path, options.data) for path in options.files}
    networks = [name for name in PUBLISHED if any(point.network == name for point in points.values())]
    flat = [path for path, point in points.items() if point.network == "lenet-300-100"]
    panels = len(networks) + bool(flat)
    figure, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 3.6), layout="constrained", squeeze=False)
    for panel, network in zip(axes[0], networks, strict=False):
        show_sizes(panel, network, [point for point in points.values() if point.network == network])
    handles = [axes[0][0].plot([], [], mark, color=color)[0] for mark, color in (("D", OURS), ("o", THEIRS))]
    axes[0][0].legend(handles, ["dcformat", "published"], fontsize=7, loc="lower right")
    if flat:
        show_layer(axes[0][-1], min(flat, key=lambda path: points[path].size))
    options.out.parent.mkdir(exist_ok=True)
    figure.savefig(options.out, dpi=130, metadata={"Software": None})
    for path, point in points.items():
        print(f"{path}: {point.network}, {point.recipe}: {point.size:,} bytes, error {point.error:.2f} %")


if __name__ == "__main__":
    main()
