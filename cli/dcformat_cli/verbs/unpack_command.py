"""`dcformat unpack`: write a file's tensors for other programs, with the same names and bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from dcformat_interop import write_npz, write_safetensors
from dcformat_interop.packing.packed_files import PackedFiles, is_sharded, opened_files
from dcformat_interop.packing.restore import restore

from dcformat.codecs.work import writing_steps
from dcformat.limits import require_work
from dcformat.model import require_no_delta
from dcformat.wording import counted
from dcformat_cli.failures import UnfitError, describe, misuse
from dcformat_cli.group import Choice, suggestion
from dcformat_cli.input_files import opened
from dcformat_cli.output_files import OutputFile, refuse_existing
from dcformat_cli.shared_options import as_json, file_argument, max_memory, max_work, output
from dcformat_cli.terminal import emit_json, say, warn

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
@click.option("--tensor", "wanted", multiple=True, metavar="NAME", help="Write only this tensor; may be repeated.")
@click.option("--skip-damaged", is_flag=True, help="Leave out tensors that are damaged or missing, and name them.")
@max_memory()
@max_work()
@as_json()
def unpack_command(
    file: str,
    output: OutputFile,
    form: str | None,
    wanted: Sequence[str],
    skip_damaged: bool,
    max_memory: int | None,
    max_work: int | None,
    as_json: bool,
) -> None:
    """Write the tensors of FILE (- for stdin) with the same names, shapes, dtypes and bits.

    NumPy has neither bfloat16 nor scaled int8, so tensors of these types need a .safetensors file. Its metadata holds
    the scale of an int8 tensor as NAME.dcformat_scale. If FILE was packed from a .safetensors file, the new one gets
    the metadata of the original.

    FILE may also be the index of several files (*.dcf.index.json), or their directory. If the tensors were packed from
    several safetensors files, and OUT is a directory (--format shards makes it), it gets the same files, byte for byte.

    With --skip-damaged, the command writes the intact tensors of a damaged or truncated file. The exit code
    is 0 if there is at least one.
    """
    chosen = form or _form(output)
    if chosen == _SHARDS:
        _check_shards(output, wanted, skip_damaged)
    else:
        output.check(file)
    with _opened(file, max_memory, max_work, skip_damaged) as content:
        require_no_delta(content.delta, file)
        names = _wanted(file, content, wanted)
        damaged = {name: error for name, error in content.damaged().items() if name in names} if skip_damaged else {}
        for name, error in damaged.items():
            warn(f"left out {name}: {describe(error)}")
        names = [name for name in names if name not in damaged]
        if damaged and not names:
            raise UnfitError(file, "at least one tensor that is whole", "none")
        steps = sum(content.work(name) + writing_steps(content.info(name)) for name in names)
        require_work("unpacking the file", steps, max_work)
        written = []
        if chosen == _SHARDS:
            written = _restored(content, output, max_memory)
        else:
            with output.open() as out:
                _WRITERS[chosen](output, content, out, set(content.names) - set(names))
        if as_json:
            tensors = [
                {"name": info.name, "shape": list(info.shape), "dtype": info.dtype} for info in map(content.info, names)
            ]
            document = {"file": file, "output": str(output), "format": chosen, "tensors": tensors}
            document |= ({"damaged": list(damaged)} if skip_damaged else {}) | ({"files": written} if written else {})
            emit_json(document, err=output.to_stdout)
        else:
            files = f" in {counted(len(written), 'file')}" if written else ""
            say(f"{output}: {counted(len(names), 'tensor')}{files}", err=output.to_stdout)


def _wanted(file: str, content: PackedFiles, wanted: Sequence[str]) -> list[str]:
    """Return the names of the tensors to write."""
    known = list(content.names)
    for name in wanted:
        if name not in known:
            raise misuse(f"{file}: no tensor {name!r}.{suggestion(name, known)}")
    return [name for name in known if name in wanted or not wanted]


@contextmanager
def _opened(file: str, max_memory: int | None, max_work: int | None, skip_damaged: bool) -> Iterator[PackedFiles]:
    """Open one file or several."""
    if file != "-" and is_sharded(Path(file)):
        with opened_files(Path(file), max_memory=max_memory, max_work=max_work, partial=skip_damaged) as packed:
            yield packed
        return
    with opened(file, max_memory, max_work, partial=skip_damaged, delta=True) as content:
        yield PackedFiles(content.path or file, [content])


def _check_shards(output: OutputFile, wanted: Sequence[str], skip_damaged: bool) -> None:
    if wanted or skip_damaged:
        raise misuse("--format shards restores whole files: --tensor and --skip-damaged need another format")
    if output.path is None:
        raise misuse("--format shards: expected a directory for the output, found stdout")
    if output.path.exists() and not output.path.is_dir():
        raise misuse(f"{output}: expected a directory for several files, found a file")


def _restored(content: PackedFiles, output: OutputFile, max_memory: int | None) -> list[str]:
    """Write the safetensors files from which the tensors came, and return their names."""
    origin = content.origin(max_memory)
    if origin is None or output.path is None:
        expected = "a file that was packed from several safetensors files, unchanged"
        raise UnfitError(content.path, expected, "another (-o OUT.safetensors writes all tensors to one file)")
    for name in origin.names:
        refuse_existing(output.path / name, output.force)
    output.path.mkdir(exist_ok=True)
    return [str(path) for path in restore(content, origin, output.path)]


def _form(output: OutputFile) -> str:
    if output.path is None:
        return "safetensors"
    if output.path.is_dir():
        return _SHARDS
    suffix = output.path.suffix.lower().removeprefix(".")
    if suffix not in _WRITERS:
        found = output.path.suffix or "none"
        raise misuse(f"{output}: expected a name ending in .safetensors or .npz, or --format, found {found!r}")
    return suffix
