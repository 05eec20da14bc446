"""`dcformat pack` of safetensors files: tensor by tensor, in one process, several, or on a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dcformat_interop.packing.cached_files import check_cached_files
from dcformat_interop.packing.checkpoint_packing import JOURNAL_FROM, Packing
from dcformat_interop.packing.journal import Journal
from dcformat_interop.packing.origin import origin_section
from dcformat_interop.packing.packed_files import INDEX_NAME, write_one, write_shards
from dcformat_interop.packing.shards import Shards, find_shards
from dcformat_interop.packing.workers import Executor, Processes, ThisProcess

import dcformat
from dcformat.codecs import Mode
from dcformat.model import Extension
from dcformat.modes import STEPS_PER_SECOND, ModeTrial, best, modes_to_try, trial
from dcformat_cli import summary
from dcformat_cli.byte_progress import ByteProgress
from dcformat_cli.failures import misuse, require_ray
from dcformat_cli.input_files import naming
from dcformat_cli.output_files import OutputFile
from dcformat_cli.pack.checkpoints import kept_metadata
from dcformat_cli.pack.pack_options import PackOptions
from dcformat_cli.progress import counting
from dcformat_cli.terminal import emit_json, note, say, show_notes
from dcformat_cli.writing import say_choice, trials_as_json

#: The name of the journal in the directory of several output files.
_JOURNAL = ".packing.journal"


@dataclass(frozen=True, slots=True)
class Spread:
    """The place of the work, and the division of the output.

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


class _Coded(NamedTuple):
    """A packing whose tensors are all coded, in a journal."""

    packing: Packing
    journal: Journal


class _Text(NamedTuple):
    """The contents of the file besides the tensors."""

    metadata: Mapping[str, str]
    extensions: Sequence[Extension]


def pack_stream(options: PackOptions, spread: Spread) -> None:
    """Pack a checkpoint tensor by tensor."""
    output = options.output
    shards = find_shards(options.checkpoint, max_memory=options.max_memory)
    packings = _packings(options, shards)
    first = packings[0]
    journaled = len(packings) == 1 and first.data_bytes >= JOURNAL_FROM
    journal_path = _journal_path(output, spread) if journaled else None
    with ExitStack() as stack:
        if spread.shard_bytes is None:
            output.check(options.checkpoint, *(shard.path for shard in shards.shards))
        else:
            stack.enter_context(_directory(output))
        with counting("checking the digest of") as checking:
            check_cached_files(shards, checking)
        engine = _engine(spread)
        stack.callback(engine.close)
        with _kept(journal_path), naming(shards.path):
            coded = [stack.enter_context(_run(packing, engine, journal_path)) for packing in packings]
            show_notes(first.notes(coded[0].journal))
            note("without --architecture, the file holds only tensors and cannot be run")
            text = _Text({**kept_metadata(shards.metadata), **options.pairs()}, _origin(shards, coded[0]))
            trials = [_tried(each, text) for each in coded] if len(coded) > 1 else []
            kept = coded[0]
            if trials:
                kept = coded[trials.index(best(trials, options.seconds))]
            _write(options, spread, kept, text, trials)
        kept.journal.remove()


def _packings(options: PackOptions, shards: Shards) -> list[Packing]:
    """Return a packing for each mode to try: only one if there is so much to code that it needs a journal."""

    def packing(mode: Mode) -> Packing:
        return Packing(shards, mode, exact=options.exact, skip=options.skip, max_memory=options.max_memory)

    first = packing("fast" if options.mode == "auto" else options.mode)
    modes = modes_to_try(options.mode, first.parameters, options.seconds)
    others = modes[1:] if first.data_bytes < JOURNAL_FROM else ()
    return [first, *map(packing, others)]


@contextmanager
def _run(packing: Packing, engine: Executor, journal_path: Path | None) -> Iterator[_Coded]:
    """Code all tensors that the journal does not have, and keep the journal open until the block ends."""
    with packing.journal(journal_path) as journal:
        if journal.restarted:
            note(f"{journal_path}: work of an earlier run is damaged or belongs to another packing, and is done again")
        progress = ByteProgress()
        try:
            packing.run(engine, journal, progress)
        finally:
            progress.end()
        yield _Coded(packing, journal)


def _origin(shards: Shards, coded: _Coded) -> list[Extension]:
    """Return the section from which `unpack` makes the same files again, if there are several."""
    packing, journal = coded
    exact = not any(journal.tensors[each.name].findings.negative_zeros for each in packing.selection.elements)
    if not shards.are_several:
        return []
    if packing.selection.is_whole and exact:
        return [origin_section(shards)]
    note("unpack cannot restore the files byte for byte, because some of their content is changed")
    return []


def _tried(coded: _Coded, text: _Text) -> ModeTrial:
    with tempfile.TemporaryFile() as spool:
        mode = coded.packing.mode
        write_one(coded.packing.coded(coded.journal), mode, text.metadata, text.extensions, spool)
        spool.seek(0)
        return trial(mode, spool)


@contextmanager
def _kept(path: Path | None) -> Iterator[None]:
    """Say after a failure that the finished work is kept."""
    try:
        yield
    except BaseException:
        if path is not None:
            note(f"the finished work is kept in {path}*; the same command continues from there")
        raise


@contextmanager
def _directory(output: OutputFile) -> Iterator[None]:
    """Make the directory for several files; if the block fails and leaves nothing there, remove it again."""
    path = output.path
    if path is None:
        raise misuse("--shards: expected a directory for the output, found stdout")
    if path.exists() and not path.is_dir():
        raise misuse(f"{path}: expected a directory for several files, found a file")
    if (path / INDEX_NAME).exists() and not output.force:
        raise misuse(f"{path}: expected a directory without {INDEX_NAME}, found one; -f replaces it")
    is_new = not path.exists()
    path.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # The finished work is kept there.
                path.rmdir()
        raise


def _journal_path(output: OutputFile, spread: Spread) -> Path | None:
    if output.path is None:
        return None
    if spread.shard_bytes is not None:
        return output.path / _JOURNAL
    return output.path.with_name(f"{output.path.name}.journal")


def _engine(spread: Spread) -> Executor:
    if spread.engine == "ray":
        require_ray("--engine ray")
        from dcformat_interop.packing.ray_engine import RayEngine

        return RayEngine(spread.address)
    return Processes(spread.jobs) if spread.jobs > 1 else ThisProcess()


def _write(options: PackOptions, spread: Spread, coded: _Coded, text: _Text, trials: Sequence[ModeTrial]) -> None:
    """Assemble the file from the tensors, and report on the result."""
    output, packing, mode = options.output, coded.packing, coded.packing.mode
    tensors = packing.coded(coded.journal)
    if spread.shard_bytes is not None and output.path is not None:
        files = write_shards(tensors, mode, *text, output.path, spread.shard_bytes)
        _report_shards(options, packing, files, trials)
        return
    if output.path is not None and (output.path.is_file() or not output.path.exists()):
        with output.open() as file:
            size = write_one(tensors, mode, *text, file)
        _report(options, packing, size, output.path, trials)
        return
    with tempfile.TemporaryFile() as spool, output.open() as file:
        size = write_one(tensors, mode, *text, spool)
        spool.seek(0)
        shutil.copyfileobj(spool, file, 1 << 20)
        spool.seek(0)
        _report(options, packing, size, spool, trials)


def _report_shards(options: PackOptions, packing: Packing, files: Sequence[Path], trials: Sequence[ModeTrial]) -> None:
    *parts, index = files
    size = sum(path.stat().st_size for path in parts)
    if options.as_json:
        seconds = sum(trial(packing.mode, path).seconds for path in parts)
        tried = trials or [ModeTrial(packing.mode, size, seconds)]
        emit_json({"file": str(index), "files": [str(path) for path in parts], "mode": packing.mode,
                   "tried": trials_as_json(tried), "size": size, "parameters": packing.parameters,
                   "left_out": dict(packing.selection.left_out)})  # fmt: skip
        return
    say(summary.size_line(f"{index}: {len(parts)} files", size, packing.parameters))
    say_choice(options.mode, trials, packing.mode)


def _report(
    options: PackOptions, packing: Packing, size: int, file: BinaryIO | Path, trials: Sequence[ModeTrial]
) -> None:
    output = options.output
    if options.as_json:
        with dcformat.open(file, max_memory=options.max_memory, max_work=None) as content:
            tried = trials or [ModeTrial(packing.mode, size, content.work() / STEPS_PER_SECOND)]
            figures = summary.as_json(summary.summarize(content))
        document = {"file": str(output), "mode": packing.mode, "tried": trials_as_json(tried)}
        emit_json({**document, "left_out": dict(packing.selection.left_out), **figures}, err=output.to_stdout)
    else:
        say(summary.size_line(str(output), size, packing.parameters), err=output.to_stdout)
        say_choice(options.mode, trials, packing.mode, err=output.to_stdout)
