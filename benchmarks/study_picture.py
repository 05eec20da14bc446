"""Draws docs/study-criteria.png from the figures in docs/study-criteria.csv, without training anything.

python benchmarks/study_picture.py
"""

from __future__ import annotations

import csv
import sys
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "runtime", "pruning")]


def main() -> None:
    from dcformat_pruning.study import ComparisonRow
    from dcformat_pruning.study.report import plot

    kinds = {"str": str, "int": int, "float": float}
    with (ROOT / "docs" / "study-criteria.csv").open(newline="") as file:
        kind_of = {f.name: kinds[str(f.type)] for f in fields(ComparisonRow)}
        rows = [
            ComparisonRow(**{name: kind(line[name]) for name, kind in kind_of.items()}) for line in csv.DictReader(file)
        ]
    plot(rows, ROOT / "docs" / "study-criteria.png")


if __name__ == "__main__":
    main()
