"""`dcformat unpack`: write a file's tensors for other programs, with the same names and bits."""

from __future__ import annotations

import click
from dcformat_interop import write_npz, write_safetensors

from dcformat.codecs.work import writing_steps
from dcformat.limits import require_work
from dcformat.wording import counted
from dcformat_cli.failures import misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import opened
from dcformat_cli.options import as_json, file_argument, max_memory, max_work, output
from dcformat_cli.output_files import Output
from dcformat_cli.terminal import emit_json, say

_WRITERS = {"safetensors": write_safetensors, "npz": write_npz}


@click.command("unpack")
@file_argument()
@output("the tensors, OUT.safetensors or OUT.npz,")
@click.option(
    "--format",
    "form",
    type=Choice(list(_WRITERS)),
    help="The form of the output [default: the one that its name implies; safetensors for stdout].",
)
@max_memory()
@max_work()
@as_json()
def unpack_command(
    file: str, output: Output, form: str | None, max_memory: int | None, max_work: int | None, as_json: bool
) -> None:
    """Write the tensors of FILE (- for stdin) with the same names, shapes, dtypes and bits.

    NumPy has neither bfloat16 nor scaled int8, so tensors of these types need a .safetensors file. Its metadata holds
    the scale of an int8 tensor as NAME.dcformat_scale. If FILE was packed from a .safetensors file, the new one gets
    the metadata of the original.
    """
    chosen = form or _form(output)
    output.check(file)
    with opened(file, max_memory, max_work) as content:
        steps = content.work() + sum(writing_steps(content.info(name)) for name in content.names)
        require_work("unpacking the file", steps, max_work)
        with output.open() as out:
            _WRITERS[chosen](output, content, out)
        if as_json:
            tensors = [
                {"name": info.name, "shape": list(info.shape), "dtype": info.dtype}
                for info in map(content.info, content.names)
            ]
            emit_json({"file": file, "output": str(output), "format": chosen, "tensors": tensors}, err=output.to_stdout)
        else:
            say(f"{output}: {counted(len(content.names), 'tensor')}", err=output.to_stdout)


def _form(output: Output) -> str:
    if output.path is None:
        return "safetensors"
    suffix = output.path.suffix.lower().removeprefix(".")
    if suffix not in _WRITERS:
        found = output.path.suffix or "none"
        raise misuse(f"{output}: expected a name ending in .safetensors or .npz, or --format, found {found!r}")
    return suffix
