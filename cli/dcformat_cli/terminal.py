"""Output for the user: safe text, notes and warnings, tables."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dcformat_interop import Note

#: The key of the context under which ``-q`` is kept.
_QUIET = "dcformat_cli.quiet"

#: The version of all JSON documents; it goes up when a key is renamed, removed or redefined.
SCHEMA = 1


def printable(text: str) -> str:
    """Return the text with all characters escaped that a terminal would act upon.

    These are controls, bidi marks and lone surrogates. Names come from files that anyone may have made, so their
    escape sequences must not reach the terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def set_quiet(context: click.Context) -> None:
    """Leave out notes and progress from now on (``-q``)."""
    context.meta[_QUIET] = True


def is_quiet() -> bool:
    """Return whether the user wants neither notes nor progress."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_QUIET, False)


def shows_progress() -> bool:
    """Return whether stderr is a terminal on which lines may change in place."""
    return sys.stderr.isatty() and not is_dumb() and not is_quiet()


def note(text: str) -> None:
    """Print a note on stderr."""
    if is_quiet():
        return
    click.echo(printable(f"note: {text}"), err=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(printable(f"warning: {text}"), err=True)


def show_notes(notes: Iterable[Note]) -> None:
    """Print the notes and warnings about a checkpoint."""
    for item in notes:
        (warn if item.warning else note)(item.text)


def complain(text: str) -> None:
    """Print an error on stderr."""
    click.echo(printable(text), err=True)


def say(text: str, *, err: bool = False) -> None:
    """Print one line of the result, wrapped between words on a terminal; `err` sends it to stderr."""
    stream = sys.stderr if err else sys.stdout
    lines = [printable(text)]
    if stream.isatty():
        lines = wrap(lines[0], _columns(), break_long_words=False, break_on_hyphens=False) or [""]
    click.echo("\n".join(lines), err=err)


def emit_json(document: Mapping[str, Any], *, err: bool = False) -> None:
    """Print a result for programs: one JSON document in ASCII, with `SCHEMA` as its first key."""
    click.echo(json.dumps({"schema": SCHEMA, **document}, indent=2, allow_nan=False), err=err)


def styled() -> bool:
    """Return whether to print bold type on stdout: it is a terminal and not a dumb one, and NO_COLOR is not set."""
    return sys.stdout.isatty() and not is_dumb() and not os.environ.get("NO_COLOR")


def is_dumb() -> bool:
    """Return whether the terminal cannot move its cursor."""
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")


def _columns() -> int:
    """Return the maximum width of a line: COLUMNS, or the width of the terminal."""
    return max(20, shutil.get_terminal_size().columns)


@dataclass(frozen=True, slots=True)
class TextTable:
    """Rows of text under a title. The first column is aligned left, the others right. The last row may be a total.

    The name of a column may be broken at its line feeds. A row that is too wide takes several lines; a cell is never
    broken.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: bool = False

    def show(self) -> None:
        """Print the table in the width of the terminal or of COLUMNS; without either, print each row in one line."""
        limited = sys.stdout.isatty() or "COLUMNS" in os.environ
        lines = self.lines(_columns() if limited else None)
        if styled():
            rules = [i for i, line in enumerate(lines) if not line.strip(" -")]
            end = rules[-1] if self.total else len(lines)
            lines = [click.style(line, bold=True) if i < rules[0] or i > end else line for i, line in enumerate(lines)]
        click.echo("\n".join(lines))

    def lines(self, width: int | None = None) -> list[str]:
        """Return the table as lines of at most `width` columns, unless a cell is longer."""
        cells = [[printable(cell) for cell in row] for row in self.rows]
        heads = [[name.replace("\n", "")] for name in self.columns]
        gap = 2
        if width is not None and _line_width(_widths(heads, cells), gap) > width:
            heads = [name.split("\n") for name in self.columns]
            gap = 1
        widths = _widths(heads, cells)
        groups = _groups(widths, gap, width)
        header: list[str] = []
        for number, group in enumerate(groups):
            tall = max(len(heads[i]) for i in group)
            for line in range(-tall, 0):
                names = [head[line] if -line <= len(head) else "" for head in heads]
                header.append(_set(names, widths, gap, group, number))
        blocks = [header, *([_set(row, widths, gap, g, n) for n, g in enumerate(groups)] for row in cells)]
        rule = "  " + "-" * (
            max(_line_width([widths[i] for i in g], gap) + 2 * (n > 0) for n, g in enumerate(groups)) - 2
        )
        blocks.insert(1, [rule])
        if self.total:
            blocks.insert(-1, [rule])
        title = printable(self.title)
        head = [title] if width is None else wrap(title, width, break_long_words=False, break_on_hyphens=False)
        return [*head, *(line for block in blocks for line in block)]


def _widths(heads: Sequence[Sequence[str]], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, (*head, *(row[i] for row in cells)))) for i, head in enumerate(heads)]


def _line_width(widths: Sequence[int], gap: int) -> int:
    return 2 + sum(widths) + gap * (len(widths) - 1)


def _groups(widths: Sequence[int], gap: int, width: int | None) -> list[range]:
    """Divide the columns into runs that fit in a line; all runs but the first are indented by two more columns."""
    groups: list[range] = []
    start = 0
    for i in range(1, len(widths)):
        if width is not None and _line_width(widths[start : i + 1], gap) + 2 * bool(groups) > width:
            groups.append(range(start, i))
            start = i
    return [*groups, range(start, len(widths))]


def _set(row: Sequence[str], widths: Sequence[int], gap: int, group: range, number: int) -> str:
    """Return one line of a row: the columns of a group, aligned with those in the other rows."""
    cells = [row[i].ljust(widths[i]) if i == 0 else row[i].rjust(widths[i]) for i in group]
    return (" " * (4 if number else 2) + (" " * gap).join(cells)).rstrip()
