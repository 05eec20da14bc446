"""`dcformat pack` of safetensors files: tensor by tensor, in one process, several, or on a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dcformat_interop.packing.files import INDEX_NAME, write_one, write_shards
from dcformat_interop.packing.journal import Journal
from dcformat_interop.packing.origin import origin_section
from dcformat_interop.packing.pack import JOURNAL_FROM, Packing
from dcformat_interop.packing.shards import find_shards
from dcformat_interop.packing.workers import Engine, Processes, ThisProcess

import dcformat
from dcformat.model import Extension
from dcformat_cli import summary
from dcformat_cli.byte_progress import ByteProgress
from dcformat_cli.failures import misuse, require_ray
from dcformat_cli.input_files import naming
from dcformat_cli.output_files import Output
from dcformat_cli.terminal import emit_json, note, say, show_notes

if TYPE_CHECKING:
    from dcformat.codecs import Mode

#: The name of the journal in the directory of several output files.
_JOURNAL = ".packing.journal"


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the work is done, and how the output is divided.

    Attributes
    ----------
    jobs : int
        Number of processes on this machine.
    engine : {'local', 'ray'}
    address : str or None
        The address of a Ray cluster.
    shard_bytes : int or None
        Maximum size of a file of several; None makes one file.
    """

    jobs: int = 1
    engine: str = "local"
    address: str | None = None
    shard_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of ``pack`` that apply to tensors without a network."""

    checkpoint: Path
    output: Output
    mode: Mode
    skip: Sequence[str]
    exact: bool
    max_memory: int | None
    as_json: bool
    spread: Spread


def pack_stream(options: StreamOptions, metadata_of: Callable[[Mapping[str, str]], dict[str, str]]) -> None:
    """Pack a checkpoint; `metadata_of` turns its metadata into the file's."""
    output, spread = options.output, options.spread
    shards = find_shards(options.checkpoint, max_memory=options.max_memory)
    inputs = [shard.path for shard in shards.shards]
    if spread.shard_bytes is None:
        output.check(options.checkpoint, *inputs)
    else:
        _check_directory(output)
    packing = Packing(shards, options.mode, exact=options.exact, skip=options.skip, max_memory=options.max_memory)
    metadata = metadata_of(shards.metadata)
    journal_path = None if packing.data_bytes < JOURNAL_FROM else _journal_path(output, spread)
    with ExitStack() as stack:
        journal = stack.enter_context(packing.journal(journal_path))
        if journal.restarted:
            note(f"{journal_path}: what an earlier run finished is of another packing, or damaged, and is done again")
        progress = ByteProgress()
        with _kept(journal_path), naming(shards.path):
            stack.callback(progress.end)
            engine = _engine(spread)
            stack.callback(engine.close)
            packing.run(engine, journal, progress)
            progress.end()
            notes = packing.notes(journal)
            show_notes(notes)
            note("without --architecture, the file holds only tensors and cannot be run")
            exact = not any(journal.tensors[each.name].findings.negative_zeros for each in packing.selection.elements)
            whole = packing.selection.is_whole and exact
            origin = [origin_section(shards)] if shards.are_several and whole else []
            if shards.are_several and not whole:
                note("unpack cannot give back the files byte for byte, because some of their content is changed")
            _write(options, packing, journal, metadata, origin)
        journal.remove()


@contextmanager
def _kept(path: Path | None) -> Iterator[None]:
    """Say after a failure that what is finished is kept."""
    try:
        yield
    except BaseException:
        if path is not None:
            note(f"what is finished is kept in {path}*; the same command continues from there")
        raise


def _check_directory(output: Output) -> None:
    path = output.path
    if path is None:
        raise misuse("--shards: expected a directory for the output, found stdout")
    if path.exists() and not path.is_dir():
        raise misuse(f"{path}: expected a directory for several files, found a file")
    if (path / INDEX_NAME).exists() and not output.force:
        raise misuse(f"{path}: expected a directory without {INDEX_NAME}, found one; -f replaces it")
    path.mkdir(exist_ok=True)


def _journal_path(output: Output, spread: Spread) -> Path | None:
    if output.path is None:
        return None
    if spread.shard_bytes is not None:
        return output.path / _JOURNAL
    return output.path.with_name(f"{output.path.name}.journal")


def _engine(spread: Spread) -> Engine:
    if spread.engine == "ray":
        require_ray("--engine ray")
        from dcformat_interop.packing.ray_engine import RayEngine

        return RayEngine(spread.address)
    return Processes(spread.jobs) if spread.jobs > 1 else ThisProcess()


def _write(
    options: StreamOptions, packing: Packing, journal: Journal, metadata: Mapping[str, str], origin: list[Extension]
) -> None:
    """Put the tensors together and report on the result."""
    output, tensors = options.output, packing.coded(journal)
    if options.spread.shard_bytes is not None and output.path is not None:
        files = write_shards(tensors, options.mode, metadata, origin, output.path, options.spread.shard_bytes)
        size = sum(path.stat().st_size for path in files[:-1])
        if options.as_json:
            names = [str(path) for path in files]
            emit_json({"file": names[-1], "files": names[:-1], "mode": options.mode, "size": size,
                       "parameters": packing.parameters, "left_out": packing.selection.left_out})  # fmt: skip
        else:
            say(summary.size_line(f"{files[-1]}: {len(files) - 1} files", size, packing.parameters))
        return
    if output.path is not None and (output.path.is_file() or not output.path.exists()):
        with output.open() as file:
            size = write_one(tensors, options.mode, metadata, origin, file)
        _report(options, packing, size, output.path)
        return
    with tempfile.TemporaryFile() as spool, output.open() as file:
        size = write_one(tensors, options.mode, metadata, origin, spool)
        spool.seek(0)
        shutil.copyfileobj(spool, file, 1 << 20)
        spool.seek(0)
        _report(options, packing, size, spool)


def _report(options: StreamOptions, packing: Packing, size: int, file: BinaryIO | Path) -> None:
    output = options.output
    if options.as_json:
        with dcformat.open(file, max_memory=options.max_memory, max_work=None) as content:
            figures = summary.as_json(summary.summarize(content))
        document = {"file": str(output), "mode": options.mode, "left_out": dict(packing.selection.left_out), **figures}
        emit_json(document, err=output.to_stdout)
    else:
        say(summary.size_line(str(output), size, packing.parameters), err=output.to_stdout)
