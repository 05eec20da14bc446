"""Draws the pictures of docs/concepts.md: pruning, the relative index, a codebook, Huffman codes, and mixing.

    python docs/tools/concept_pictures.py [--out docs/concepts]

Each is a card of a light colour with dark text, so it can be read in a light and in a dark scheme. Where a picture
shows a network, that is models/lenet-300-100.dcf.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch, Rectangle

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PAPER, INK, GREY, RED, BLUE, GREEN = "#fbf8f2", "#22303a", "#8b969e", "#c8421f", "#1f6f8b", "#4b7f3f"
MODEL = ROOT / "models" / "lenet-300-100.dcf"
STYLE = {
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "text.color": INK, "axes.edgecolor": INK, "font.size": 10,
    "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "svg.hashsalt": "dcformat", "svg.fonttype": "path",
}  # fmt: skip


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure and axes without a frame whose units are inches from the lower left corner."""
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def cell(axes: Any, x: float, y: float, size: float, text: str = "", face: str = "white", ink: str = INK) -> None:
    """Draw a square with a short text in it."""
    axes.add_patch(Rectangle((x, y), size, size, facecolor=face, edgecolor=GREY, linewidth=0.7))
    axes.text(x + size / 2, y + size / 2, text, ha="center", va="center", color=ink, fontsize=9.5)


def box(axes: Any, corner: tuple[float, float], size: tuple[float, float], face: str, edge: str) -> None:
    """Draw a rounded box."""
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.03", facecolor=face, edgecolor=edge))


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    """Draw an arrow."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.3})


def pruning() -> Any:
    """Draw a small matrix before and after pruning, and the rows that are stored."""
    figure, axes = canvas(8.6, 3.1)
    weights = np.round(np.random.default_rng(4).normal(0, 0.5, (4, 6)), 1) + 0.0
    threshold = 0.6
    size, bottom = 0.5, 0.55
    for left, title in ((0.3, "dense: 24 numbers"), (4.1, f"weights below {threshold} are pruned")):
        axes.text(left, bottom + 4 * size + 0.2, title, weight="bold")
        for row, column in np.ndindex(weights.shape):
            value = weights[row, column]
            kept = left == 0.3 or abs(value) >= threshold
            face = "white" if not kept else "#f3c9bb" if value > 0 else "#bcd9e3"
            text = f"{value:.1f}" if kept else "0"
            cell(axes, left + column * size, bottom + (3 - row) * size, size, text, face, INK if kept else GREY)
    arrow(axes, (3.4, bottom + 2 * size), (4.0, bottom + 2 * size))
    axes.text(7.25, bottom + 4 * size + 0.2, "stored", weight="bold")
    for row in range(4):
        kept = [f"{value:.1f}" for value in weights[row] if abs(value) >= threshold]
        axes.text(7.25, bottom + (3.5 - row) * size, "  ".join(kept) or "nothing", va="center")
    left_over = int((abs(weights) >= threshold).sum())
    axes.text(
        0.3, 0.2, f"{left_over} of 24 weights remain. What is stored: their values, and where they are.", color=INK
    )
    return figure


def relative_index() -> Any:
    """Draw entries of a line, the runs of zeros between them, and the gap symbols that stand for the runs."""
    figure, axes = canvas(8.6, 2.7)
    positions = [3, 4, 15, 21]
    size, left, bottom = 0.33, 0.35, 1.75
    for place in range(24):
        entry = place in positions
        cell(axes, left + place * size, bottom, size, "w" if entry else "0", "#f3c9bb" if entry else "white",
             INK if entry else GREY)  # fmt: skip
        if entry or place == 0:
            axes.text(
                left + (place + 0.5) * size, bottom + size + 0.1, str(place), ha="center", fontsize=8.5, color=GREY
            )
    axes.text(left, bottom + size + 0.35, "a line, and the positions of its entries", weight="bold")
    before = -1
    for position in positions:
        run = position - before - 1
        begin, end = left + (before + 1) * size, left + position * size
        middle = (begin + end) / 2 if run else end
        if run:
            top, low = bottom - 0.08, bottom - 0.18
            axes.plot([begin + 0.04] * 2 + [end - 0.04] * 2, [top, low, low, top], color=BLUE, linewidth=1)
        axes.text(middle if run else end + size / 2, bottom - 0.36, f"run {run}", ha="center", color=BLUE, fontsize=9)
        before = position
    axes.text(left, 0.92, "gap symbols of 3 bits", weight="bold")
    for number, (symbol, what) in enumerate((("3", ""), ("0", ""), ("7", "escape: 7 zeros"), ("3", ""), ("5", ""))):
        x = 2.6 + number * 1.15
        cell(axes, x, 0.75, 0.4, symbol, "#cfe3ea")
        axes.text(x + 0.2, 0.57, what, ha="center", va="top", fontsize=9, color=RED)
    axes.text(left, 0.2, "A run of 10 is too long for 3 bits: the escape stands for 7 zeros, and 3 more follow.")
    return figure


def codebook() -> Any:
    """Draw the codebook of a real layer, and how often each of its values occurs."""
    import dcformat

    tensor = dcformat.load(MODEL).tensors["fc1.weight"]
    assert tensor.codebook is not None
    counts = np.bincount(tensor.data, minlength=tensor.codebook.size)
    figure, axes = plt.subplots(figsize=(8.6, 3.3), layout="constrained")
    axes.bar(tensor.codebook, counts, width=0.12, color=[BLUE if value < 0 else RED for value in tensor.codebook])
    for code, (value, number) in enumerate(zip(tensor.codebook, counts, strict=True)):
        axes.text(value, number + 12, f"code {code}\n{value:.2f}", ha="center", va="bottom", fontsize=9)
    axes.set_ylim(0, counts.max() * 1.3)
    axes.margins(x=0.06)
    axes.set_xlabel("value")
    axes.set_ylabel("weights")
    axes.set_title(f"{counts.sum():,} weights of {tensor.name} share {tensor.codebook.size} values", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def huffman_tree(counts: Sequence[int]) -> Any:
    """Return the tree: a leaf is a symbol, and a node a pair of trees."""
    number = count()
    heap: list[tuple[int, int, Any]] = [(weight, next(number), symbol) for symbol, weight in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a + b, next(number), (left, right)))
    return heap[0][2]


def huffman() -> Any:
    """Draw a Huffman tree of four symbols, with its code words and what they cost."""
    figure, axes = canvas(8.6, 3.3)
    names, counts = ("0.5", "-0.25", "1.0", "-0.75"), (12, 4, 3, 1)
    words: dict[int, str] = {}
    leaves = iter(range(len(counts)))

    def draw(tree: Any, word: str) -> tuple[float, float]:
        y = 2.85 - 0.75 * len(word)
        if isinstance(tree, int):
            x = 0.7 + 1.05 * next(leaves)
            words[tree] = word
            box(axes, (x - 0.36, y - 0.2), (0.72, 0.4), "#f3c9bb", INK)
            axes.text(x, y, names[tree], ha="center", va="center")
            return x, y + 0.22
        ends = [
            draw(branch, word + bit)
            for branch, bit in zip(sorted(tree, key=lambda branch: isinstance(branch, tuple)), "01", strict=True)
        ]
        x = sum(end[0] for end in ends) / 2
        for (end_x, end_y), bit in zip(ends, "01", strict=True):
            axes.plot([x, end_x], [y, end_y], color=INK, linewidth=1)
            side = -0.12 if end_x < x else 0.12
            axes.text((x + end_x) / 2 + side, (y + end_y) / 2 + 0.06, bit, ha="center", color=BLUE, weight="bold")
        axes.plot(x, y, "o", color=INK, markersize=4)
        return x, y

    draw(huffman_tree(counts), "")
    total = sum(counts)
    bits = sum(number * len(words[symbol]) for symbol, number in enumerate(counts))
    entropy = -sum(number * np.log2(number / total) for number in counts)
    for column, title in zip((4.9, 5.8, 6.8, 7.8), ("value", "weights", "code word", "bits"), strict=True):
        axes.text(column, 2.75, title, weight="bold", ha="center")
    for row, (name, number) in enumerate(zip(names, counts, strict=True)):
        texts = (name, str(number), words[row], str(number * len(words[row])))
        for column, text in zip((4.9, 5.8, 6.8, 7.8), texts, strict=True):
            axes.text(column, 2.35 - 0.32 * row, text, ha="center")
    axes.plot([4.5, 8.2], [1.22, 1.22], color=GREY, linewidth=0.8)
    axes.text(4.5, 0.95, f"Huffman code: {bits} bits; entropy: {entropy:.1f} bits")
    axes.text(4.5, 0.63, f"two bits for each: {2 * total} bits; float32: {32 * total} bits")
    return figure


def mixing() -> Any:
    """Draw how coder 3 predicts whether the next place holds a weight."""
    figure, axes = canvas(8.6, 3.5)
    size, left, bottom = 0.36, 0.3, 0.75
    random = np.random.default_rng(5)
    known = random.random((6, 6)) < 0.3
    axes.text(left, bottom + 6 * size + 0.15, "a layer, decoded up to here", weight="bold")
    for row, column in np.ndindex(6, 6):
        future = row > 4 or (row == 4 and column >= 3)
        face = "#e6e3dc" if future else "#f3c9bb" if known[row, column] else "white"
        text = "?" if (row, column) == (4, 3) else "w" if known[row, column] and not future else ""
        cell(axes, left + column * size, bottom + (5 - row) * size, size, text, face)
    axes.add_patch(Rectangle((left + 3 * size, bottom + size), size, size, fill=False, edgecolor=RED, linewidth=2))
    axes.text(left, 0.42, "Is there a weight at the red place?")
    models = (("this row is full", 35), ("this column is empty", 20), ("left and above: weights", 60))
    for number, (what, chance) in enumerate(models):
        y = 2.55 - 0.8 * number
        box(axes, (3.0, y - 0.22), (2.15, 0.44), "#cfe3ea", BLUE)
        axes.text(4.075, y, f"{what}\n{chance} %", ha="center", va="center", fontsize=9.5)
        arrow(axes, (5.2, y), (6.05, 1.75 + 0.18 * (1 - number)), BLUE)
    axes.text(3.0, 3.02, "predictions, each adaptive", weight="bold")
    box(axes, (6.1, 1.4), (0.95, 0.7), "#f3c9bb", RED)
    axes.text(6.575, 1.75, "mixer\n48 %", ha="center", va="center")
    arrow(axes, (7.1, 1.75), (7.45, 1.75))
    box(axes, (7.5, 1.4), (0.85, 0.7), "#d8e6d0", GREEN)
    axes.text(7.925, 1.75, "arithmetic\ncoder", ha="center", va="center", fontsize=9)
    axes.text(3.0, 0.42, "A yes costs -log2(0.48) = 1.06 bits. Then all models learn from it.")
    return figure


PICTURES = {
    "pruning": pruning, "relative-index": relative_index, "codebook": codebook, "huffman": huffman, "mixing": mixing,
}  # fmt: skip


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "concepts")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in PICTURES.items():
            draw().savefig(out / f"{name}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
