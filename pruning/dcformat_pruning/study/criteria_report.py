"""The study's tables (CSV, Markdown) and its plot."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from dcformat_pruning.study.article import DENSE, PUBLISHED, RepeatedRow
from dcformat_pruning.study.criteria_comparison import ComparisonRow
from dcformat_pruning.study.network_comparison import NetworkRow
from dcformat_pruning.study.schedule_comparison import ScheduleRow

T = TypeVar("T")

#: A row of any of the study's tables.
StudyRow = ComparisonRow | RepeatedRow | ScheduleRow | NetworkRow

#: Colours, markers and dashes of the criteria in all panels; markers and dashes help readers who cannot distinguish
#: colours.
_COLOURS = (
    "#000000", "#0072b2", "#56b4e9", "#cc79a7", "#e69f00", "#d55e00", "#009e73", "#7b3294", "#999999", "#b22222",
)  # fmt: skip
_MARKERS = "osv^D<>pPX*"
_DASHES = ("-", "--", "-.")


def to_csv(rows: Sequence[StudyRow]) -> str:
    """Return the rows as CSV, with accuracies from 0 to 1 and six decimals."""
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, [f.name for f in fields(rows[0])], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(row).items()})
    return out.getvalue()


def mean_and_spread(values: Iterable[float]) -> str:
    """Return the mean in percent with two decimals, and the standard deviation if there are several values."""
    percent = [100 * v for v in values]
    mean = f"{statistics.mean(percent):.2f}"
    return f"{mean} ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else mean


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """Return Markdown tables for each baseline: accuracy right after pruning, and after retraining."""
    parts = []
    for baseline in unique(row.baseline for row in rows):
        chosen = [row for row in rows if row.baseline == baseline]
        dense = mean_and_spread({row.seed: row.dense for row in chosen}.values())
        seeds = len({row.seed for row in chosen})
        parts.append(f"### Baseline: {baseline}, dense {dense} %, {seeds} seed{'s' * (seeds > 1)}\n")
        for title, figure in (
            ("Right after pruning", "pruned"),
            ("Right after pruning, every layer to the number of weights that magnitude leaves it", "budgeted"),
            ("After retraining", "retrained"),
        ):
            parts.append(f"{title} (validation accuracy, %):\n\n{_table(chosen, figure)}\n")
    return "\n".join(parts)


def plot(rows: Sequence[ComparisonRow], path: Path) -> None:
    """Draw the mean error against the ratio as a PNG: panels before and after retraining for each baseline."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    baselines = unique(row.baseline for row in rows)
    figure, axes = pyplot.subplots(len(baselines), 2, figsize=(12, 4.8 * len(baselines)), sharex=True, squeeze=False)
    names = unique(row.criterion for row in rows)
    for line, baseline in zip(axes, baselines, strict=True):
        chosen = [row for row in rows if row.baseline == baseline]
        dense = 100 * (1 - statistics.mean(row.dense for row in chosen))
        for axis, figure_name, title in zip(
            line, ("pruned", "retrained"), ("right after pruning", "after retraining"), strict=True
        ):
            axis.axhline(dense, color="0.6", linewidth=1, linestyle=":", label="dense network")
            _panel(axis, chosen, figure_name, names)
            axis.set_title(f"{baseline} network: {title}")
    for axis in axes[-1]:
        axis.set_xlabel("times fewer parameters")
    # Baselines may differ in their criteria.
    lines = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncol=6, fontsize=9, handlelength=4)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _panel(axis: Any, rows: Sequence[ComparisonRow], figure: str, names: Sequence[str]) -> None:
    """Draw a line for each criterion: the mean over the seeds, with bars from the smallest to the largest."""
    ticks = sorted({row.ratio for row in rows})
    for number, name in enumerate(names):
        values = {
            t: [100 * (1 - getattr(r, figure)) for r in rows if (r.criterion, r.ratio) == (name, t)] for t in ticks
        }
        draw_line(axis, {ratio: errors for ratio, errors in values.items() if errors}, name, number, len(names))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylabel("validation error, %")
    bottom, top = axis.get_ylim()
    axis.set_yticks([tick for tick in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100) if bottom <= tick <= top])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xticks(ticks, [f"{ratio:g}x" for ratio in ticks], rotation=45)
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def draw_line(axis: Any, values: Mapping[float, Sequence[float]], name: str, number: int, lines: int) -> None:
    """Draw the mean of the values at each place, with bars from the smallest to the largest.

    Parameters
    ----------
    values : mapping of float to sequence of float
        Place on the horizontal axis, which is logarithmic, to one value for each seed.
    number, lines : int
        The place of the line among all lines, from 0, and their number: lines are drawn side by side at each place;
        otherwise their bars would hide each other.
    """
    if not values:
        return
    means = [statistics.mean(found) for found in values.values()]
    low = [mean - min(found) for mean, found in zip(means, values.values(), strict=True)]
    high = [max(found) - mean for mean, found in zip(means, values.values(), strict=True)]
    shift = 1.05 ** ((number - (lines - 1) / 2) / lines)
    axis.errorbar(
        [place * shift for place in values], means, (low, high), label=name,
        color=_COLOURS[number % len(_COLOURS)], marker=_MARKERS[number % len(_MARKERS)],
        linestyle=_DASHES[number % len(_DASHES)], markersize=5, linewidth=1.2, elinewidth=0.8, capsize=2,
    )  # fmt: skip


def _table(rows: Sequence[ComparisonRow], figure: str) -> str:
    ratios = sorted({row.ratio for row in rows})
    lines = [table_row(["criterion", *(f"{ratio:g}x" for ratio in ratios)]), table_row(["---"] * (len(ratios) + 1))]
    for name in unique(row.criterion for row in rows):
        cells = [name]
        for ratio in ratios:
            values = [getattr(r, figure) for r in rows if (r.criterion, r.ratio) == (name, ratio)]
            cells.append(mean_and_spread(values) if values else "")
        lines.append(table_row(cells))
    return "\n".join(lines)


def article_markdown(rows: Sequence[RepeatedRow]) -> str:
    """Return a Markdown table of the article's rows: the published figures, then the figures found here."""
    head = ["row", "method", "s", "ratio", "s = 2 gives", "dense", "pruned", "retrained"]
    lines = ["The article's rows, repeated (test accuracy, %):", "", table_row(head), table_row(["---"] * len(head))]
    for published in PUBLISHED:
        figures = ["-" if v is None else f"{v:.2f}" for v in (published.pruned, published.retrained)]
        ratio = f"{published.ratio:g}"
        lines.append(
            table_row([f"{ratio}x", f"*published: {published.criterion}*", "", ratio, "", f"{DENSE:g}", *figures])
        )
        here = [row for row in rows if row.published == published.ratio]
        for method in unique(row.method for row in here):
            found = [row for row in here if row.method == method]
            cells = [_mean([getattr(row, key) for row in found]) for key in ("s", "ratio", "at_two")]
            cells += [mean_and_spread(getattr(row, key) for row in found) for key in ("dense", "pruned", "retrained")]
            lines.append(table_row(["", method, *cells]))
    return "\n".join(lines) + "\n"


def schedules_markdown(rows: Sequence[ScheduleRow]) -> str:
    """Return a Markdown table of the schedules: mean accuracy and its standard deviation over the seeds."""
    ratios = unique(row.ratio for row in rows)
    lines = [table_row(["schedule", *(f"{ratio:g}x" for ratio in ratios)]), table_row(["---"] * (len(ratios) + 1))]
    for name in unique(row.schedule for row in rows):
        found = [[row.accuracy for row in rows if (row.schedule, row.ratio) == (name, ratio)] for ratio in ratios]
        lines.append(table_row([name, *map(mean_and_spread, found)]))
    return "Validation accuracy (%) after training and pruning:\n\n" + "\n".join(lines) + "\n"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.2f}" if known else ""


def table_row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def unique(values: Iterable[T]) -> list[T]:
    """Return the values without repetitions, in the order of their first places."""
    return list(dict.fromkeys(values))
