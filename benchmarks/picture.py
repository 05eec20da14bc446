"""Draws the README's picture: size on disk against test error, ours and published, and a layer's remaining weights.

    python benchmarks/picture.py [--out docs/result.png]

Our figures come from docs/results/recipes.json, which `benchmarks/recipes.py` makes: a small mark for each seed and a
large one for their mean, which the README's table shows. Only published figures that include everything needed to run
the network are shown. The layer is the first of models/lenet-300-100.dcf.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "cli", "interop")]

from dcformat_cli.report.published import PUBLISHED  # noqa: E402

#: The labels of the published results, in their order, and the places of the labels in points.
LABELS = {
    "lenet-300-100": [
        ("Deep Compression, 2015", (-62, -14)),
        ("soft weight sharing, 2017", (-25, 8)),
        ("variational dropout, 2017", (-112, 10)),
        ("entropy penalised, 2020", (-75, -14)),
    ],
    "lenet-5": [
        ("Deep Compression, 2015", (-108, 4)),
        ("DeepCABAC, 2019", (-66, 7)),
        ("variational dropout, 2017", (5, -3)),
        ("MIRACLE, 2019", (-5, -15)),
        ("entropy penalised, 2020", (-50, 8)),
    ],
}
#: The error of the dense network in the Deep Compression paper.
BASELINE = {"lenet-300-100": 1.64, "lenet-5": 0.80}
TITLES = {"lenet-300-100": "LeNet-300-100 (1,066,440 bytes)", "lenet-5": "LeNet-5 (1,724,320 bytes)"}
OURS, THEIRS = "#c8421f", "#5b6b7b"
#: The places of our labels: the distance from the mean in points, and the side that lies there.
PLACES = {
    "lenet-300-100": {"record": (-12, 27, "left"), "default": (9, -8, "left"), "classic": (9, -14, "left")},
    "lenet-5": {"record": (-6, 12, "left"), "default": (-15, -68, "left"), "classic": (20, -68, "right")},
}


def show_sizes(axes: Any, network: str, runs: list[dict[str, Any]]) -> None:
    """Draw size against error; the best networks lie at the lower left."""
    axes.axhline(BASELINE[network], color="0.75", linewidth=1, linestyle="--")
    axes.annotate(
        "dense network, 2015", (0.99, BASELINE[network]), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="right", fontsize=8, color="0.45",
    )  # fmt: skip
    for (what, place), found in zip(LABELS[network], PUBLISHED[network], strict=True):
        point = found.bytes, found.error
        axes.plot(*point, "o", color=THEIRS, markersize=5)
        axes.annotate(what, point, xytext=place, textcoords="offset points", fontsize=8.5, color=THEIRS)
    for recipe, (right, up, side) in PLACES[network].items():
        chosen = [run for run in runs if (run["architecture"], run["recipe"]) == (network, recipe)]
        sizes, errors = [run["bytes"] for run in chosen], [run["test_error"] for run in chosen]
        size, error = statistics.mean(sizes), statistics.mean(errors)
        axes.plot(sizes, errors, "D", color=OURS, markersize=3, alpha=0.5)
        axes.plot(size, error, "D", color=OURS, markersize=6)
        axes.annotate(
            f"{recipe}\n{size:,.0f} bytes\n{error:.2f} %", (size, error), xytext=(right, up), ha=side,
            textcoords="offset points", fontsize=8.5, color=OURS, weight="bold",
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
    """Draw the number of the first layer's weights that are left for each pixel."""
    import dcformat

    weight = dcformat.load(path).tensors["fc1.weight"].to_dense()
    alive = np.count_nonzero(weight, axis=0).reshape(28, 28)
    image = axes.imshow(np.where(alive > 0, alive, np.nan), cmap="inferno_r")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label="weights left, of 300 a pixel")
    axes.set_title(f"{alive.sum():,} of {weight.size:,} weights are left", fontsize=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "result.png")
    options = parser.parse_args()
    runs = json.loads((ROOT / "docs" / "results" / "recipes.json").read_text())["runs"]
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    for panel, network in zip(axes, PUBLISHED, strict=False):
        show_sizes(panel, network, runs)
    marks = (("D", OURS, 6), ("D", OURS, 3), ("o", THEIRS, 5))
    handles = [axes[0].plot([], [], mark, color=color, markersize=size)[0] for mark, color, size in marks]
    axes[0].legend(handles, ["dcformat, mean of 3 seeds", "each seed", "published"], fontsize=8.5, loc="lower right")
    show_layer(axes[2], ROOT / "models" / "lenet-300-100.dcf")
    figure.savefig(options.out, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
