"""The charts of a report, drawn by Matplotlib in the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.usage import CodeTable
from dcformat_cli.report.pictures import Picture, colour, picture
from dcformat_cli.report.tensor_facts import Examined, Histogram
from dcformat_cli.terminal import printable

#: CSS pixels: the widths of charts on a wide screen and on a phone, the size of small ones, the height of a bar.
WIDE, NARROW, SMALL, _BAR = 920, 330, (300, 200), 22
#: Shared values whose lines have heads, and the ratio of sizes up to which their scale is linear.
_STEMS, _LINEAR = 64, 20
#: The largest magnitude on an axis; Matplotlib's axes overflow at larger ones, which are drawn at the axis' end.
_LARGEST = 2.0**1020


class LayerBar(NamedTuple):
    """A row of the chart of layers: name, density from 0 to 1, and bits of an entry's value and position."""

    name: str
    density: float
    value_bits: float
    position_bits: float


class CostBar(NamedTuple):
    """A row of the chart of costs: bits of an entry's value and position as coded, and their entropies (or NaN)."""

    name: str
    value_bits: float
    value_entropy: float
    position_bits: float
    position_entropy: float


class SizeBar(NamedTuple):
    """A row of the chart of sizes: its name, bytes, and whether it is the file itself."""

    name: str
    bytes: int
    own: bool = False


def layers(rows: Sequence[LayerBar], wide: bool) -> Picture:
    """Draw the density of each layer, and the bits of its entries."""
    names = [elided(row.name, 30 if wide else 16) for row in rows]

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, 2, sharey=True) if wide else figure.subplots(2, 1)
        places = range(len(rows))
        axes[0].barh(places, [100 * row.density for row in rows], color=colour("muted"), height=0.7)
        axes[0].set_xlabel("density: stored elements, %")
        for place, row in zip(places, rows, strict=True):
            _beside(axes[0], 100 * row.density, place, f"{100 * row.density:.3g}")
        axes[0].set_xlim(0, 115 * max(row.density for row in rows) or 1)
        values, positions = ([getattr(row, f"{kind}_bits") for row in rows] for kind in ("value", "position"))
        axes[1].barh(places, values, color=colour("values"), height=0.7, label="value")
        axes[1].barh(places, positions, left=values, color=colour("positions"), height=0.7, label="position")
        axes[1].set_xlabel("bits of an entry")
        total = max((sum(pair) for pair in zip(values, positions, strict=True)), default=0)
        axes[1].set_xlim(0, 1.18 * total or 1)
        for place, pair in enumerate(zip(values, positions, strict=True)):
            _beside(axes[1], sum(pair), place, f"{sum(pair):.3g}")
        for each in axes:
            _name_rows(each, names)
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper right", ncols=2)

    size = (WIDE, 80 + _BAR * len(rows)) if wide else (NARROW, 130 + 2 * _BAR * len(rows))
    text = f"{len(rows)} bars, one for each tensor; the table below has all numbers."
    title = "Density of each tensor, and the bits of its entries"
    return picture(f"layers-{'wide' if wide else 'narrow'}", title, text, size, draw)


def costs(rows: Sequence[CostBar], wide: bool) -> Picture:
    """Draw the bits of entries' values and positions as coded, and their entropies."""

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, 2, sharey=True) if wide else figure.subplots(2, 1)
        places = range(len(rows))
        for each, kind in zip(axes, ("value", "position"), strict=True):
            limits, spent = ([getattr(row, f"{kind}_{what}") for row in rows] for what in ("entropy", "bits"))
            each.hlines(places, limits, spent, color=colour("muted"), linewidth=1.5)
            each.plot(limits, places, "|", color=colour("ink"), markersize=12, markeredgewidth=2, label="entropy")
            each.plot(spent, places, "o", color=colour(f"{kind}s"), markersize=7, label="as coded")
            each.set_xlabel(f"bits of a {kind}")
            each.set_xlim(left=0)
            each.grid(axis="x")
            _name_rows(each, [elided(row.name, 30 if wide else 16) for row in rows])
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)

    size = (WIDE, 80 + _BAR * len(rows)) if wide else (NARROW, 130 + 2 * _BAR * len(rows))
    text = "Two marks for each tensor; the table below has all numbers."
    return picture(f"costs-{'wide' if wide else 'narrow'}", "Bits as coded, and entropies", text, size, draw)


def sizes(rows: Sequence[SizeBar], wide: bool) -> Picture:
    """Draw sizes, on a logarithmic scale if they differ much."""
    low, high = min(row.bytes for row in rows), max(row.bytes for row in rows)
    logarithmic = high > _LINEAR * low

    def draw(figure: Any) -> None:
        axes, room = figure.subplots(), 0.25 if wide else 0.6
        colours = [colour("values" if row.own else "muted") for row in rows]
        axes.barh(range(len(rows)), [row.bytes for row in rows], color=colours, height=0.7)
        if logarithmic:
            axes.set_xscale("log")
            axes.set_xlim(0.5 * low, high * (2 * high / low) ** room)
            axes.locator_params(axis="x", numticks=9 if wide else 4)
            axes.minorticks_off()
        else:
            axes.set_xlim(0, high * (1 + room))
        for place, row in enumerate(rows):
            _beside(axes, row.bytes, place, f"{row.bytes:,}")
        _name_rows(axes, [elided(row.name, 48 if wide else 20) for row in rows])
        axes.xaxis.set_major_formatter(lambda value, _: short_bytes(value))
        if not logarithmic:
            axes.locator_params(axis="x", nbins=8 if wide else 3)
        axes.set_xlabel("bytes, logarithmic scale" if logarithmic else "bytes")

    size = (WIDE if wide else NARROW, 60 + _BAR * len(rows))
    text = "; ".join(f"{row.name}: {row.bytes:,} bytes" for row in rows)
    return picture(f"sizes-{'wide' if wide else 'narrow'}", "Sizes in bytes", text, size, draw)


def codebook(number: int, name: str, examined: Examined) -> Picture:
    """Draw how often each shared value of a tensor occurs."""
    codebook, counts = examined.codebook, examined.counts
    assert codebook is not None and counts is not None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        few = len(codebook) <= _STEMS
        shown = _within_axes(codebook)
        places, heights = np.repeat(shown, 3), np.zeros((len(codebook), 3))
        heights[:, 1], heights[:, 2] = counts, np.nan  # One path for all lines takes the least space.
        axes.plot(places, heights.ravel(), color=colour("codebooks"), linewidth=2 if few else 1)
        if few:
            axes.plot(shown, counts, "o", color=colour("codebooks"), markersize=4)
        _finish(axes, "value", "entries")

    title = f"Shared values of {elided(name)}"
    values = f"{len(codebook)} shared values from {codebook.min():.4g} to {codebook.max():.4g}"
    text = f"{values}, for {counts.sum():,} entries."
    return picture(f"values-{number}", title, text, SMALL, draw)


def histogram(number: int, name: str, values: Histogram) -> Picture:
    """Draw a histogram of a tensor's stored values."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.stairs(values.counts, _within_axes(values.edges), fill=True, color=colour("values"))
        _finish(axes, "value", "entries in the sample" if values.others else "entries")

    title = f"Stored values of {elided(name)}"
    text = f"A histogram of {values.sampled:,} values from {values.edges[0]:.4g} to {values.edges[-1]:.4g}."
    return picture(f"values-{number}", title, text, SMALL, draw)


def code_lengths(number: int, name: str, kind: str, table: CodeTable) -> Picture:
    """Draw the lengths of Huffman codes against the frequencies of their symbols."""
    used = table.counts > 0
    shares, lengths = table.counts[used] / table.counts.sum(), table.lengths[used]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        ideal = np.geomspace(shares.min(), shares.max(), 50)
        axes.plot(ideal, -np.log2(ideal), color=colour("muted"), linewidth=1.2)
        axes.plot(shares, lengths, "o", color=colour("positions" if kind == "gaps" else "values"), markersize=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.minorticks_off()
        _finish(axes, "frequency of the symbol", "bits of its code word")

    title = f"Code lengths of the {kind} of {elided(name)}"
    text = f"{used.sum()} symbols with code words of {lengths.min()} to {lengths.max()} bits."
    return picture(f"codes-{kind}-{number}", title, text, SMALL, draw)


def stages(names: Sequence[str], metrics: Sequence[float], wide: bool) -> Picture:
    """Draw the metric after each stage of compression."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = range(len(names))
        shown = _within_axes(metrics).tolist()
        axes.plot(places, shown, "o-", color=colour("values"), linewidth=2, markersize=6)
        for place, height, value in zip(places, shown, metrics, strict=True):
            axes.annotate(f"{value:.4g}", (place, height), (0, 8), textcoords="offset points", ha="center", fontsize=11)
        low, high = min(shown), max(shown)
        room = max(0.3 * (high - low), 1e-3 * abs(high), 1e-12)
        axes.set_ylim(low - room, high + 1.5 * room)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_xticks(places, [elided(name, 20) for name in names], rotation=0 if wide else 60, parse_math=False)
        axes.set_ylabel("metric")
        axes.grid(axis="y")

    text = "; ".join(f"{name}: {value:.4g}" for name, value in zip(names, metrics, strict=True))
    key = f"stages-{'wide' if wide else 'narrow'}"
    return picture(key, "Metric after each stage", text, (WIDE if wide else NARROW, 260), draw)


def elided(name: str, length: int = 40) -> str:
    """Return a name of at most `length` characters that are safe to show, without the middle of a longer one."""
    text = printable(name)
    if len(text) <= length:
        return text
    end = length // 2
    return f"{text[: length - end - 1]}…{text[-end:]}"


def short_bytes(count: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _within_axes(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.clip(np.asarray(values, np.float64), -_LARGEST, _LARGEST)


def _beside(axes: Any, end: float, place: int, text: str) -> None:
    """Write a number beside a bar."""
    axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=11)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _finish(axes: Any, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", integer=True, nbins=5)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=6)
