"""`dcformat apply`: make the new file of a delta and its base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import dcformat
from dcformat.wording import counted
from dcformat_cli.failures import misuse
from dcformat_cli.input_files import model_source, naming
from dcformat_cli.options import as_json, base, file_argument, max_memory, max_work, mode, output
from dcformat_cli.terminal import emit_json, say
from dcformat_cli.writing import packed_in, packed_model

if TYPE_CHECKING:
    from dcformat.modes import AnyMode
    from dcformat_cli.output_files import Output


@click.command("apply")
@file_argument()
@base(required=True)
@output("the new file")
@mode("the new file")
@max_memory()
@max_work()
@as_json()
def apply_command(
    file: str, base: str, output: Output, mode: AnyMode, max_memory: int | None, max_work: int | None, as_json: bool
) -> None:
    """Make the new file from a delta, FILE (- for stdin), and its base, the file that `pack --base` named.

    The tensors, network, labels, metadata and content digest are those of the model that was packed, bit for bit. If
    that was a .dcf file that this version wrote, the same --mode gives the same bytes. Any other base is refused.
    """
    if file == base:
        raise misuse(f"{base}: expected a delta and its base, found one file twice")
    output.check(file, base)
    (delta, label), (given, _) = model_source(file), model_source(base)
    with naming(label):
        model = dcformat.apply(delta, given, max_memory=max_memory, max_work=max_work)
    packed = packed_in(mode, lambda each: packed_model(model, str(output), each), model.elements)
    with output.open() as out:
        out.write(packed.data)
    digest = packed.data[-8:].hex()
    if as_json:
        document = {"file": file, "base": base, "output": str(output), "mode": packed.mode, "bytes": len(packed.data)}
        emit_json({**document, "tensors": len(model.tensors), "digest": digest}, err=output.to_stdout)
    else:
        about = f"{len(packed.data):,} bytes, {counted(len(model.tensors), 'tensor')}, content digest {digest}"
        say(f"{output}: {about}", err=output.to_stdout)
