"""Draws the pictures of docs/study.md and docs/study-networks.md from the figures beside them, and trains nothing.

python benchmarks/study_picture.py
"""

from __future__ import annotations

import csv
import sys
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "runtime", "pruning")]

T = TypeVar("T")


def rows_of(name: str, kind: type[T]) -> list[T]:
    """Read the rows of a table of the study."""
    kinds = {"str": str, "int": int, "float": float}
    kind_of = {field.name: kinds[str(field.type)] for field in fields(kind)}  # type: ignore[arg-type]
    with (ROOT / "docs" / f"{name}.csv").open(newline="") as file:
        return [kind(**{n: made(line[n]) for n, made in kind_of.items()}) for line in csv.DictReader(file)]


def main() -> None:
    from dcformat_pruning.study import ComparisonRow
    from dcformat_pruning.study.criteria_report import plot
    from dcformat_pruning.study.network_comparison import NetworkRow
    from dcformat_pruning.study.network_report import plot_networks

    for name in ("study-criteria", "study-criteria-long"):
        plot(rows_of(name, ComparisonRow), ROOT / "docs" / f"{name}.png")
    for name in ("study-networks", "study-vgg", "study-fashion"):
        plot_networks(rows_of(name, NetworkRow), ROOT / "docs" / f"{name}.png")


if __name__ == "__main__":
    main()
