"""The tables and the picture of the comparison on image networks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcformat.wording import counted
from dcformat_pruning.study.criteria_report import draw_line, mean_and_spread, table_row, unique
from dcformat_pruning.study.network_comparison import SELECTION_TITLES, SELECTIONS, NetworkRow


def networks_markdown(rows: Sequence[NetworkRow]) -> str:
    """Return Markdown tables for each network: accuracy right after pruning, and after retraining."""
    parts = []
    for network in unique(row.network for row in rows):
        chosen = [row for row in rows if row.network == network]
        dense = {row.seed: row.dense for row in chosen}
        parts.append(f"### {network}, dense {mean_and_spread(dense.values())} %, {counted(len(dense), 'seed')}\n")
        for selection in SELECTIONS:
            here = [row for row in chosen if row.selection == selection]
            for figure, title in (("pruned", "Right after pruning"), ("retrained", "After retraining")):
                if shown := _shown(here, figure):
                    parts.append(
                        f"{title}, {SELECTION_TITLES[selection]} (validation accuracy, %):\n\n{_table(shown, figure)}\n"
                    )
    return "\n".join(parts)


def _table(rows: Sequence[NetworkRow], figure: str) -> str:
    densities = sorted({row.density for row in rows}, reverse=True)
    lines = [
        table_row(["criterion", *(f"{100 * d:g} %" for d in densities)]),
        table_row(["---"] * (len(densities) + 1)),
    ]
    for name in unique(row.criterion for row in rows):
        cells = [name]
        for density in densities:
            values = _values(rows, figure, name, density)
            cells.append(mean_and_spread(values) if values else "")
        lines.append(table_row(cells))
    return "\n".join(lines)


def _shown(rows: Sequence[NetworkRow], figure: str) -> list[NetworkRow]:
    """Return the rows that have a figure: all of them have `pruned`, only retrained networks have `retrained`."""
    return [row for row in rows if figure == "pruned" or row.epochs]


def _values(rows: Sequence[NetworkRow], figure: str, criterion: str, density: float) -> list[float]:
    """Return a figure for each seed; a network may have been pruned alike in a study with retraining and in another."""
    found = {r.seed: getattr(r, figure) for r in rows if (r.criterion, r.density) == (criterion, density)}
    return list(found.values())


def plot_networks(rows: Sequence[NetworkRow], path: Path) -> None:
    """Draw accuracy against density as a PNG.

    Each network has panels for both selections, right after pruning and, if there was any, after retraining.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    networks = unique(row.network for row in rows)
    figures = ["pruned", "retrained"] if any(row.epochs for row in rows) else ["pruned"]
    columns = [(selection, name) for name in figures for selection in SELECTIONS]
    shape = len(networks), len(columns)
    figure, axes = pyplot.subplots(*shape, figsize=(4.2 * shape[1], 3.8 * shape[0] + 0.8), squeeze=False)
    names = unique(row.criterion for row in rows)
    for line, network in zip(axes, networks, strict=True):
        for axis, (selection, figure_name) in zip(line, columns, strict=True):
            here = _shown([r for r in rows if (r.network, r.selection) == (network, selection)], figure_name)
            if not here:
                axis.set_visible(False)
                continue
            _panel(axis, here, figure_name, names)
            when = "right after pruning" if figure_name == "pruned" else "retrained"
            axis.set_title(f"{network}, {when}:\n{SELECTION_TITLES[selection]}", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("validation accuracy, %")
    lines = {label: drawn for axis in axes.flat for drawn, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncol=2 * shape[1] + 1, fontsize=9, handlelength=4)
    figure.tight_layout(rect=(0, 0.6 / (3.8 * shape[0] + 0.8), 1, 1))
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _panel(axis: Any, rows: Sequence[NetworkRow], figure: str, names: Sequence[str]) -> None:
    """Draw a line for each criterion: the mean over the seeds, with bars from the smallest to the largest."""
    dense = 100 * statistics.mean({row.seed: row.dense for row in rows}.values())
    axis.axhline(dense, color="0.6", linewidth=1, linestyle=":", label="dense network")
    densities = sorted({row.density for row in rows})
    for number, name in enumerate(names):
        values = {100 * d: [100 * value for value in _values(rows, figure, name, d)] for d in densities}
        draw_line(axis, {place: found for place, found in values.items() if found}, name, number, len(names))
    axis.set_xscale("log")
    axis.set_xlabel("weights left")
    axis.set_xticks([100 * density for density in densities], [f"{100 * density:g} %" for density in densities])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
