"""`dcformat unpack`: write a file's tensors for other programs, with the same names and bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from dcformat_interop import UnfitError, write_npz, write_safetensors
from dcformat_interop.packing.files import PackedFiles, is_sharded, opened_files
from dcformat_interop.packing.restore import restore

from dcformat.codecs.work import writing_steps
from dcformat.limits import require_work
from dcformat.wording import counted
from dcformat_cli.failures import misuse
from dcformat_cli.group import Choice
from dcformat_cli.input_files import opened
from dcformat_cli.options import as_json, file_argument, max_memory, max_work, output
from dcformat_cli.output_files import Output, refuse_existing
from dcformat_cli.terminal import emit_json, say

_WRITERS = {"safetensors": write_safetensors, "npz": write_npz}

#: The form of the output that is a directory.
_SHARDS = "shards"


@click.command("unpack")
@file_argument()
@output("the tensors, OUT.safetensors or OUT.npz,")
@click.option(
    "--format",
    "form",
    type=Choice([*_WRITERS, _SHARDS]),
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

    FILE may also be the index of several files (*.dcf.index.json), or their directory. If the tensors were packed from
    several safetensors files, and OUT is a directory (--format shards makes it), it gets the same files, byte for byte.
    """
    chosen = form or _form(output)
    if chosen == _SHARDS:
        _check_directory(output)
    else:
        output.check(file)
    with _opened(file, max_memory, max_work) as content:
        steps = content.work() + sum(writing_steps(content.info(name)) for name in content.names)
        require_work("unpacking the file", steps, max_work)
        written = []
        if chosen == _SHARDS:
            written = _restored(content, output)
        else:
            with output.open() as out:
                _WRITERS[chosen](output, content, out)
        if as_json:
            tensors = [
                {"name": info.name, "shape": list(info.shape), "dtype": info.dtype}
                for info in map(content.info, content.names)
            ]
            document = {"file": file, "output": str(output), "format": chosen, "tensors": tensors}
            emit_json({**document, "files": written} if written else document, err=output.to_stdout)
        else:
            files = f" in {counted(len(written), 'file')}" if written else ""
            say(f"{output}: {counted(len(content.names), 'tensor')}{files}", err=output.to_stdout)


@contextmanager
def _opened(file: str, max_memory: int | None, max_work: int | None) -> Iterator[PackedFiles]:
    """Open one file or several."""
    if file != "-" and is_sharded(Path(file)):
        with opened_files(Path(file), max_memory=max_memory, max_work=max_work) as packed:
            yield packed
        return
    with opened(file, max_memory, max_work) as content:
        yield PackedFiles(content.path or file, [content])


def _check_directory(output: Output) -> None:
    if output.path is None:
        raise misuse("--format shards: expected a directory for the output, found stdout")
    if output.path.exists() and not output.path.is_dir():
        raise misuse(f"{output}: expected a directory for several files, found a file")


def _restored(content: PackedFiles, output: Output) -> list[str]:
    """Write the safetensors files that the tensors came from, and return their names."""
    origin = content.origin()
    if origin is None or output.path is None:
        expected = "a file that was packed from several safetensors files, unchanged"
        raise UnfitError(content.path, expected, "another (-o OUT.safetensors writes all tensors to one file)")
    for name in origin.names:
        refuse_existing(output.path / name, output.force)
    output.path.mkdir(exist_ok=True)
    return [str(path) for path in restore(content, origin, output.path)]


def _form(output: Output) -> str:
    if output.path is None:
        return "safetensors"
    if output.path.is_dir():
        return _SHARDS
    suffix = output.path.suffix.lower().removeprefix(".")
    if suffix not in _WRITERS:
        found = output.path.suffix or "none"
        raise misuse(f"{output}: expected a name ending in .safetensors or .npz, or --format, found {found!r}")
    return suffix
