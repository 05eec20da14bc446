"""`dcformat apply`: make the new file from a delta and its base."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import click

from dcformat.wording import counted
from dcformat_cli.failures import misuse
from dcformat_cli.input_files import model_source, naming
from dcformat_cli.progress import counting
from dcformat_cli.shared_options import as_json, base, file_argument, max_memory, max_work, mode, output
from dcformat_cli.terminal import emit_json, say
from dcformat_cli.writing import checked_encoder

if TYPE_CHECKING:
    from dcformat.codecs import Mode
    from dcformat.delta_application import Application
    from dcformat.modes import AnyMode
    from dcformat_cli.output_files import OutputFile


@click.command("apply")
@file_argument()
@base(required=True)
@output("the new file")
@mode("the new file")
@max_memory()
@max_work()
@as_json()
def apply_command(
    file: str, base: str, output: OutputFile, mode: AnyMode, max_memory: int | None, max_work: int | None, as_json: bool
) -> None:
    """Make the new file from a delta, FILE (- for stdin), and its base, the file that `pack --base` named.

    The tensors, network, labels, metadata and content digest are those of the model that was packed, bit for bit. If
    that was a .dcf file that this version wrote, the same --mode gives the same bytes. Any other base is refused.
    """
    from dcformat.deltas import application

    if file == base:
        raise misuse(f"{base}: expected a delta and its base, found one file twice")
    output.check(file, base)
    (delta, label), (given, _) = model_source(file), model_source(base)
    with naming(label), application(delta, given, max_memory=max_memory, max_work=max_work) as new:
        count, digest = len(new.infos), new.delta.result.hex()
        written, size = _write(new, mode, output)
    if as_json:
        document = {"file": file, "base": base, "output": str(output), "mode": written, "bytes": size}
        emit_json({**document, "tensors": count, "digest": digest}, err=output.to_stdout)
    else:
        about = f"{size:,} bytes, {counted(count, 'tensor')}, content digest {digest}"
        say(f"{output}: {about}", err=output.to_stdout)


def _write(new: Application, mode: AnyMode, output: OutputFile) -> tuple[Mode, int]:
    """Write the new file; return its mode and size. Files are kept in memory only if there is a choice of modes."""
    from dcformat.modes import modes_to_try, smallest_file

    infos = new.infos

    def write(each: Mode, file: BinaryIO) -> int:
        with counting(f"packing ({each})") as progress:
            return new.write(file, each, checked_encoder(len(infos), each, progress))

    def made(each: Mode) -> bytes:
        file = BytesIO()
        write(each, file)
        return file.getvalue()

    modes = modes_to_try(mode, sum(info.size for info in infos.values()))
    with output.open() as out:
        if len(modes) == 1:
            return modes[0], write(modes[0], out)
        smallest = smallest_file(made, modes)
        return smallest.mode, out.write(smallest.data)
