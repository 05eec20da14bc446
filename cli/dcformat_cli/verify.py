"""`dcformat verify`: every byte of a file is read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dcformat_cli.failures import InputError
from dcformat_cli.inputs import opened
from dcformat_cli.options import file_argument, max_memory
from dcformat_cli.terminal import say

if TYPE_CHECKING:
    from dcformat import DcfFile


@click.command("verify")
@file_argument()
@max_memory()
def verify_command(file: str, max_memory: int | None) -> None:
    """Check every byte of FILE (- for stdin): checksums, structure, every tensor decoded, the content digest.

    A file that holds a self-test is also run: this machine must classify its inputs as the machine that made it did.
    Exit code 0: the tensors are those that were saved. 1: they are not, and the line on stderr says why.
    """
    with opened(file, max_memory) as content:
        content.verify()
        tested = ""
        if content.self_test is not None:
            _run_self_test(file, content)
            tested = f", self-test of {content.self_test.samples} inputs passed"
        say(
            f"{file}: good: {content.size:,} bytes, {len(content.names)} tensors, "
            f"content digest {content.digest.hex()}{tested}"
        )


def _run_self_test(file: str, content: DcfFile) -> None:
    from dcformat_runtime import Session
    from dcformat_runtime.selftest import run_self_test

    model = content.model()
    if model.graph is None:
        raise InputError(file, "a network for its self-test", "tensors alone")
    if not run_self_test(model, Session.from_model(model)):
        raise InputError(file, "the results that its self-test states", "others: this machine computes it wrongly")
