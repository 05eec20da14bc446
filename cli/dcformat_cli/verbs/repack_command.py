"""`dcformat repack`: write the same content with other coders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dcformat_cli.input_files import naming, opened
from dcformat_cli.output_files import OutputFile
from dcformat_cli.shared_options import (
    as_json,
    check_seconds,
    decode_seconds,
    file_argument,
    max_memory,
    max_work,
    mode,
    output,
)
from dcformat_cli.terminal import emit_json, say
from dcformat_cli.writing import choice_line, packed_in, packed_model, trials_as_json

if TYPE_CHECKING:
    from dcformat.modes import AnyMode


@click.command("repack")
@file_argument()
@output("the new file")
@mode("the new file")
@decode_seconds()
@max_memory()
@max_work()
@as_json()
def repack_command(
    file: str,
    output: OutputFile,
    mode: AnyMode,
    seconds: float,
    max_memory: int | None,
    max_work: int | None,
    as_json: bool,
) -> None:
    """Write the content of FILE (- for stdin) in another mode.

    Tensors, network, labels and metadata stay the same to the bit; only the coders change. If no mode decodes in time,
    --mode auto keeps the one that decodes fastest.
    """
    check_seconds(mode, seconds)
    output.check(file)
    with opened(file, max_memory, max_work, delta=True) as content:
        model, before = content.model(), content.size
    with naming(file):
        packed = packed_in(mode, lambda each: packed_model(model, file, each), model.elements, seconds)
    with output.open() as out:
        out.write(packed.data)
    if as_json:
        document = {"file": file, "output": str(output), "mode": packed.mode, "before": before}
        emit_json({**document, "tried": trials_as_json(packed.trials)}, err=output.to_stdout)
    else:
        say(f"{output}: {choice_line(packed.trials, packed.mode)} (was {before:,})", err=output.to_stdout)
