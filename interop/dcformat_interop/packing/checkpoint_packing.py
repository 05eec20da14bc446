"""Packs a checkpoint tensor by tensor; the memory that this takes does not depend on the size of the checkpoint."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dcformat import __version__, layout
from dcformat.assembly import CodedTensor
from dcformat.codecs import Mode
from dcformat.model import STORAGE
from dcformat.piecewise import CodedChunk, Survey
from dcformat.wording import counted
from dcformat_interop.checkpoint_reader import Note, no_tensors, remarks, require_all
from dcformat_interop.misfits import require_fit
from dcformat_interop.packing.elements import FileElements, Findings
from dcformat_interop.packing.journal import DoneChunk, DoneTensor, Journal, PackingWork
from dcformat_interop.packing.shards import Shards, size_note
from dcformat_interop.packing.tensor_selection import Selection, select
from dcformat_interop.packing.units import (
    ChunkOfTensor,
    CodedWhole,
    Surveyed,
    SurveyOfTensor,
    Unit,
    UnitResult,
    WholeTensors,
    divided,
    is_large,
    working_bytes,
)
from dcformat_interop.packing.workers import Executor
from dcformat_interop.refusals import UnfitError

#: From this many bytes of tensors on, finished parts are kept beside the output; fewer take seconds to code again.
JOURNAL_FROM = 64 << 20

#: Maximum number of names in a note.
_LISTED = 5


@dataclass(frozen=True, slots=True)
class PackingProgress:
    """The progress of a packing, in bytes of the checkpoint.

    Attributes
    ----------
    done, total : int
        Bytes of finished tensors and chunks, and of all.
    kept : int
        The part of `done` that an earlier run finished.
    """

    done: int
    total: int
    kept: int


@dataclass(slots=True)
class _Large:
    """A tensor in pieces whose chunks are in progress."""

    elements: FileElements
    survey: Survey
    findings: Findings
    left: set[int] = field(default_factory=set)


class Packing:
    """The coding of all tensors of a checkpoint.

    Parameters
    ----------
    shards : Shards
    mode : {'fast', 'small', 'tiny'}
    exact : bool
        Whether all negative zeros stay negative. Otherwise they become positive, but in a checkpoint of several files
        only in tensors that have many of them, because other files are to be restored byte for byte.
    skip : sequence of str
        Names of tensors to leave out, or patterns.
    max_memory : int or None
        Maximum number of bytes that the units of work that run on this machine at the same time may take.

    Attributes
    ----------
    selection : Selection

    Raises
    ------
    UnfitError
        As `select`, or nothing is left to pack, or a file cannot hold the dtype, name or shape of a tensor that `skip`
        does not name.
    """

    def __init__(self, shards: Shards, mode: Mode, *, exact: bool, skip: Sequence[str], max_memory: int | None) -> None:
        self._shards, self._mode, self._exact, self._max_memory = shards, mode, exact, max_memory
        self.selection: Selection = select(shards, skip, exact or (None if shards.are_several else False))
        if not self.selection.elements:
            raise no_tensors(str(shards.path), self.selection.left_out)
        require_all(str(shards.path), self.selection.left_out)
        require_fit(shards.path, ((each.name, each.shape) for each in self.selection.elements))

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors that are packed."""
        return sum(each.nbytes for each in self.selection.elements)

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors that are packed."""
        return sum(each.size for each in self.selection.elements)

    def journal(self, path: Path | None) -> Journal:
        """Open the journal for this packing, and take over the finished parts of an earlier run. See `Journal`."""
        files: dict[str, list[Any]] = {}
        for each in self.selection.elements:
            mask = [] if each.mask is None else [*each.mask.stamp, each.mask.offset]
            files[each.name] = [os.fspath(each.path), *each.stamp, each.offset, each.scale, *mask]
        options = {"version": __version__, "format": [layout.MAJOR, layout.MINOR], "mode": self._mode}
        return Journal(path, PackingWork({**options, "exact": self._exact}, files))

    def run(self, engine: Executor, journal: Journal, progress: Callable[[PackingProgress], None]) -> None:
        """Code all tensors that the journal does not have; an error leaves the parts finished by then in it.

        Raises
        ------
        UnfitError
            A file has changed, or a unit of work takes more memory than allowed.
        FormatError
            A tensor is beyond a limit of the format.
        WorkerError
            A worker ended before its work was done.
        OSError
            A file cannot be read, or the journal cannot be written.
        """
        run = _Run(self, engine, journal, progress)
        run.to_the_end()

    def coded(self, journal: Journal) -> list[CodedTensor]:
        """Return all tensors, in order, with their payloads in the journal."""
        out = []
        for each in self.selection.elements:
            done = journal.tensors[each.name]
            payload = partial(_payload, journal, done)
            out.append(CodedTensor(each.name, done.digest, done.head, done.size, payload))
        return out

    def require_memory(self, what: str, need: int, engine: Executor) -> None:
        """Raise `UnfitError` if as many units of this need as run at a time take more memory than allowed."""
        if self._max_memory is not None and need * engine.jobs > self._max_memory:
            jobs = f" in {engine.jobs} jobs" if engine.jobs > 1 else ""
            expected = f"tensors that take at most {self._max_memory:,} bytes to pack (--max-memory)"
            raise UnfitError(self._shards.path, expected, f"one that may take {need * engine.jobs:,}{jobs}", what)

    def notes(self, journal: Journal) -> list[Note]:
        """Return notes on everything unusual in the checkpoint."""
        found = {each.name: journal.tensors[each.name].findings for each in self.selection.elements}
        notes = []
        if (text := size_note(self._shards)) is not None:
            notes.append(Note(text, True))
        if self.selection.folded:
            folded = counted(self.selection.folded, "pruning mask")
            notes.append(Note(f"folded {folded} (NAME_orig, NAME_mask) into the weights"))
        infinite = {name: each.not_finite for name, each in found.items() if each.not_finite}
        masks = [name for name, each in found.items() if each.is_mask]
        notes += remarks(self.selection.left_out, infinite, masks)
        zeros = sum(each.negative_zeros for each in found.values())
        small = {name: each.denormals for name, each in found.items() if each.denormals}
        return [*notes, *value_notes(zeros, small)]

    @property
    def mode(self) -> Mode:
        """The mode."""
        return self._mode


def value_notes(negative_zeros: int, denormals: Mapping[str, int]) -> list[Note]:
    """Return notes on values: the number of negative zeros made positive, and of denormal values by tensor."""
    notes = []
    if negative_zeros:
        zeros = counted(negative_zeros, "negative zero")
        notes.append(Note(f"stored {zeros} as positive zero (--exact keeps the sign)"))
    if denormals:
        names = ", ".join(list(denormals)[:_LISTED]) + (", ..." if len(denormals) > _LISTED else "")
        count = counted(sum(denormals.values()), "denormal value")
        notes.append(Note(f"{count} (slow on most processors) in {names}"))
    return notes


def _payload(journal: Journal, done: DoneTensor) -> Iterator[bytes]:
    for part in done.parts:
        yield from journal.read(part)


class _Run:
    """One run of an engine over the unfinished work."""

    def __init__(
        self, packing: Packing, engine: Executor, journal: Journal, progress: Callable[[PackingProgress], None]
    ) -> None:
        self._packing, self._engine, self._journal, self._progress = packing, engine, journal, progress
        self._large: dict[str, _Large] = {}
        self._chunks: deque[ChunkOfTensor] = deque()
        self._total, self._done, self._kept = packing.data_bytes, 0, 0
        done = [each for each in packing.selection.elements if each.name in journal.tensors]
        self._done = self._kept = sum(each.nbytes for each in done)
        self._left = [each for each in packing.selection.elements if each.name not in journal.tensors]
        for each in self._left:
            if not is_large(each):
                packing.require_memory(each.name, working_bytes(each), engine)

    def to_the_end(self) -> None:
        """Do all remaining work."""
        first = divided(self._left, self._packing.mode)
        under_way = 0
        self._report()
        while True:
            while under_way < self._engine.slots and (unit := self._next(first)) is not None:
                self._engine.submit(unit)
                under_way += 1
            if not under_way:
                return
            done, result = self._engine.wait()
            under_way -= 1
            self._keep(done, result)
            self._report()

    def _next(self, first: Iterator[Unit]) -> Unit | None:
        """Return a chunk of a surveyed tensor, or else the next unit; None if there is none now."""
        return self._chunks.popleft() if self._chunks else next(first, None)

    def _report(self) -> None:
        self._progress(PackingProgress(self._done, self._total, self._kept))

    def _keep(self, unit: Unit, result: UnitResult) -> None:
        """Put a result into the journal, and find the work that can be done now."""
        if isinstance(unit, WholeTensors):
            assert isinstance(result, list)  # the result of such a unit
            for elements, coded in zip(unit.elements, result, strict=True):
                self._keep_whole(elements, coded)
        elif isinstance(unit, SurveyOfTensor):
            assert isinstance(result, Surveyed)
            self._begin(_Large(result.elements, result.survey, result.findings))
        else:
            assert isinstance(result, CodedChunk)
            place = self._journal.put(result.data)
            name = unit.elements.name
            self._journal.add_chunk(name, unit.number, DoneChunk(place, result.stored))
            self._count(self._large[name], unit.number)
            self._finish_if_complete(self._large[name])

    def _keep_whole(self, elements: FileElements, coded: CodedWhole) -> None:
        place = self._journal.put(coded.payload)
        self._journal.add_tensor(coded.name, DoneTensor(coded.head, coded.digest, (place,), coded.findings))
        self._done += elements.nbytes

    def _begin(self, large: _Large) -> None:
        """Divide a surveyed tensor into its unfinished chunks."""
        name, chunks = large.elements.name, large.survey.chunks
        self._packing.require_memory(name, large.survey.working_bytes, self._engine)
        self._large[name] = large
        for number in range(len(chunks)):
            if (name, number) in self._journal.chunks:
                self._kept += self._count(large, number)
            else:
                large.left.add(number)
                self._chunks.append(ChunkOfTensor(large.elements, large.survey, number))
        self._finish_if_complete(large)

    def _count(self, large: _Large, number: int) -> int:
        """Count a finished chunk; return its bytes in the checkpoint."""
        large.left.discard(number)
        first, last = large.survey.chunks[number]
        size = (last - first) * large.survey.columns * STORAGE[large.elements.dtype].itemsize
        self._done += size
        return size

    def _finish_if_complete(self, large: _Large) -> None:
        if large.left:
            return
        name = large.elements.name
        chunks = [self._journal.chunks[name, number] for number in range(len(large.survey.chunks))]
        front = large.survey.front([each.place.size for each in chunks], [each.stored for each in chunks])
        parts = (self._journal.put(front), *(each.place for each in chunks))
        done = DoneTensor(bytes(large.survey.head), large.survey.digest, parts, large.findings)
        self._journal.add_tensor(name, done)
        del self._large[name]
