"""`dcformat verify`: every byte of a file is read and checked."""

from __future__ import annotations

import click

from dcformat_cli.inputs import opened
from dcformat_cli.options import file_argument, max_memory
from dcformat_cli.terminal import say


@click.command("verify")
@file_argument()
@max_memory()
def verify_command(file: str, max_memory: int | None) -> None:
    """Check every byte of FILE (- for stdin): checksums, structure, every tensor decoded, the content digest.

    Exit code 0: the tensors are those that were saved. 1: they are not, and the line on stderr says why.
    """
    with opened(file, max_memory) as content:
        content.verify()
        say(
            f"{file}: good: {content.size:,} bytes, {len(content.names)} tensors, content digest {content.digest.hex()}"
        )
