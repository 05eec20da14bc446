"""Packings of checkpoints, and an engine that fails on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dcformat_interop.packing import units
from dcformat_interop.packing.checkpoint_packing import Packing
from dcformat_interop.packing.origin import origin_section
from dcformat_interop.packing.packed_files import write_one
from dcformat_interop.packing.shards import find_shards
from dcformat_interop.packing.workers import Executor, ThisProcess, WorkerError

from dcformat.codecs import Mode


class Counting(ThisProcess):
    """Does units, counts their tensors, and fails after some units."""

    def __init__(self, fail_after: int = 1 << 30) -> None:
        super().__init__()
        self.fail_after, self.units = fail_after, list[units.Unit]()

    def wait(self) -> tuple[units.Unit, units.UnitResult]:
        if len(self.units) >= self.fail_after:
            raise WorkerError("failed as asked")
        unit, result = super().wait()
        self.units.append(unit)
        return unit, result

    @property
    def names(self) -> list[str]:
        wholes = [unit for unit in self.units if isinstance(unit, units.WholeTensors)]
        return [each.name for unit in wholes for each in unit.elements]


def packing(path: Path, mode: Mode = "fast", skip: tuple[str, ...] = (), max_memory: int | None = None) -> Packing:
    return Packing(find_shards(path), mode, exact=False, skip=skip, max_memory=max_memory)


def pack(path: Path, out: Path, engine: Executor | None = None, journal: Path | None = None, **options: Any) -> bytes:
    """Pack a checkpoint and return the bytes."""
    work = packing(path, **options)
    with work.journal(journal) as kept:
        work.run(engine or ThisProcess(), kept, lambda _: None)
        with out.open("wb") as file:
            write_one(work.coded(kept), work.mode, {}, [origin_section(find_shards(path))], file)
        kept.remove()
    return out.read_bytes()
