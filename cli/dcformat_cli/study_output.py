"""The output that the verbs of `dcformat study` share: their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dcformat.files import check_output, replacing
from dcformat_cli.output_files import refuse_existing
from dcformat_cli.shared_options import FileName
from dcformat_cli.terminal import emit_json

OUT = click.option(
    "--out",
    type=FileName(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write tables and plots here; the tables are updated as the study proceeds.",
)
RESUME = click.option(
    "--resume",
    type=FileName(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep dense networks and finished rows here, and continue from what DIR already holds.",
)
FORCE = click.option("-f", "--force", is_flag=True, help="With --out: replace existing files.")


def prepare(out: Path | None, force: bool, names: tuple[str, ...], resume: Path | None = None) -> None:
    """Make the directories; fail before the work starts if results cannot be written, or would replace existing files.

    It is called once the data is loaded, so that a study without data leaves no directory behind.
    """
    if out is not None:
        for name in names:
            refuse_existing(out / name, force)
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            check_output(out / name)
    if resume is not None:
        resume.mkdir(parents=True, exist_ok=True)


def write(out: Path, files: dict[str, str]) -> None:
    """Write tables, given by the names of their files."""
    for name, text in files.items():
        with replacing(out / name) as file:
            file.write(text.encode())


def print_rows(rows: Sequence[Any], table: str, as_json: bool) -> None:
    """Print the rows as JSON, or as the table made from them."""
    if as_json:
        emit_json({"rows": [asdict(row) for row in rows]})
    else:
        click.echo(table, nl=False)
