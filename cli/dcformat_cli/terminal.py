"""What the user sees: text made safe, notes and warnings, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click


def printable(text: str) -> str:
    """Return `text` with what a terminal would act upon (controls, bidi marks, lone surrogates) escaped.

    Names come from files that anyone may have made: an escape sequence in one must not reach the terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def note(text: str) -> None:
    """Say something of interest on stderr."""
    click.echo(printable(f"note: {text}"), err=True)


def warn(text: str) -> None:
    """Warn on stderr."""
    click.echo(printable(f"warning: {text}"), err=True)


def say(text: str) -> None:
    """Print one line of the result."""
    click.echo(printable(text))


def emit_json(value: Any) -> None:
    """Print a result for programs: one JSON document, ASCII, keys in a fixed order."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; the first column is set left, the others right; the last may be a total.

    A line feed in a column's name is where it may be broken on a terminal.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: bool = False

    def show(self) -> None:
        """Print with rules and bold type on a terminal, else as plain text that is the same everywhere."""
        if sys.stdout.isatty():
            self._show_rich()
        else:
            click.echo("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return the plain form."""
        grid = [
            [name.replace("\n", "") for name in self.columns],
            *([printable(cell) for cell in row] for row in self.rows),
        ]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))]
        out = [printable(self.title)]
        for row in grid:
            cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            out.append(("  " + "  ".join(cells)).rstrip())
        rule = "  " + "-" * (sum(widths) + 2 * (len(widths) - 1))
        out.insert(2, rule)
        if self.total:
            out.insert(-1, rule)
        return out

    def _show_rich(self) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(printable(self.title), "bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=0,
            show_edge=False,
        )
        for i, name in enumerate(self.columns):
            table.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
        for number, row in enumerate(self.rows, start=1):
            last = self.total and number == len(self.rows)
            if last:
                table.add_section()
            table.add_row(*(Text(printable(cell)) for cell in row), style="bold" if last else None)
        Console().print(table)
