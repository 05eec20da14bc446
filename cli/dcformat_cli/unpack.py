"""`dcformat unpack`: a file's tensors for other programs, names and bits as they were."""

from __future__ import annotations

from pathlib import Path

import click

from dcformat.files import replacing
from dcformat_cli.archives import write_npz, write_safetensors
from dcformat_cli.failures import misuse
from dcformat_cli.inputs import opened
from dcformat_cli.options import file_argument, max_memory, output
from dcformat_cli.terminal import say

_WRITERS = {".safetensors": write_safetensors, ".npz": write_npz}


@click.command("unpack")
@file_argument()
@output("the tensors, OUT.safetensors or OUT.npz,")
@max_memory()
def unpack_command(file: str, output: Path, max_memory: int | None) -> None:
    """Give the tensors of FILE (- for stdin) back: the same names, shapes, dtypes and bits.

    NumPy has no bfloat16 and no scaled int8: such tensors need a .safetensors file, where an int8 tensor's
    scale is kept in the metadata as NAME.dcformat_scale.
    """
    writer = _WRITERS.get(output.suffix.lower())
    if writer is None:
        raise misuse(f"{output}: expected a name ending in .safetensors or .npz, found {output.suffix or 'none'!r}")
    with opened(file, max_memory) as content:
        with replacing(output) as out:
            writer(output, content, out)
        say(f"{output}: {len(content.names)} tensors")
